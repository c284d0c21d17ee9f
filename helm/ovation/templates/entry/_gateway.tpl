{{/* The Gateway that is made, or the one that is there. */}}
{{- define "ovation.gateway.name" -}}
{{ .Values.entry.gateway.name | default (include "ovation.fullname" .) }}
{{- end -}}

{{/* What our routes hang on: HTTPS alone, where the Gateway that is made has it. */}}
{{- define "ovation.gateway.parents" -}}
{{- $gateway := .Values.entry.gateway -}}
- name: {{ include "ovation.gateway.name" . }}
{{- if $gateway.create }}
  sectionName: {{ ternary "https" "http" (not (empty $gateway.tls.secretName)) }}
{{- else }}
{{- with $gateway.namespace }}
  namespace: {{ . }}
{{- end }}
{{- with $gateway.sectionName }}
  sectionName: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
