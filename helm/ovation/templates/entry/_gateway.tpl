{{/* Returns the name of the Gateway, created or existing. */}}
{{- define "ovation.gateway.name" -}}
{{ .Values.entry.gateway.name | default (include "ovation.fullname" .) }}
{{- end -}}

{{/* Returns the parents of our routes. If the created Gateway has an HTTPS listener, the routes are attached only to that
     one. */}}
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
