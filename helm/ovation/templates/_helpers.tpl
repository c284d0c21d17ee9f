{{/* What the release's objects are called: `ovation` if the release is. Short enough for what is put behind it. */}}
{{- define "ovation.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* The name of a component's objects: include "ovation.name" (list $ "kafka"). */}}
{{- define "ovation.name" -}}
{{ include "ovation.fullname" (index . 0) }}-{{ index . 1 }}
{{- end -}}

{{/* What tells a component's pods from all others, for as long as they live: include "ovation.selectorLabels" (list $ "kafka").
     The pods of a store bear these alone, so that a new version of ours does not restart it. */}}
{{- define "ovation.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: ovation
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of a component's objects: include "ovation.labels" (list $ "kafka"). */}}
{{- define "ovation.labels" -}}
{{- $root := index . 0 -}}
{{ include "ovation.selectorLabels" . }}
app.kubernetes.io/part-of: ovation
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* An image as the cluster pulls it: include "ovation.image" (list $ .Values.kafka.image), of a map with `repository`, `tag`
     and, for our own, `registry`. */}}
{{- define "ovation.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $image.registry | default $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{/* The Secret with the voters' secret and the passwords. */}}
{{- define "ovation.secretName" -}}
{{ .Values.secret.existing | default (include "ovation.fullname" .) }}
{{- end -}}

{{/* What the specs of all pods share: include "ovation.pod" (list $ "kafka" .Values.kafka 1000), the last being the user's id.
     A component's own nodeSelector, tolerations, affinity and priorityClassName stand over those of all. */}}
{{- define "ovation.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := index . 2 -}}
{{- $user := index . 3 -}}
serviceAccountName: {{ include "ovation.name" (list $root $component) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $own $key | default (get $root.Values $key) }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Spreads a component's pods over nodes and zones: include "ovation.spread" (list $ "kafka"). Of a Deployment, with a third
     element "pod-template-hash", only the pods of one rollout are compared: else those of the last one count, and new ones
     gather where those are not. */}}
{{- define "ovation.spread" -}}
{{- $labels := include "ovation.selectorLabels" . }}
{{- $keys := slice . 2 }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $labels | nindent 8 }}
    {{- with $keys }}
    matchLabelKeys:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The securityContext of every container, as the Pod Security Standard `restricted` wants it, and nothing written but volumes. */}}
{{- define "ovation.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}
