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

{{/* Spreads a component's pods over nodes and zones, or what else `spread` names: include "ovation.spread" (list $ "kafka"). Of a Deployment, with a third
     element "pod-template-hash", only the pods of one rollout are compared: else those of the last one count, and new ones
     gather where those are not. */}}
{{- define "ovation.spread" -}}
{{- $labels := include "ovation.selectorLabels" . -}}
{{- $keys := slice . 2 -}}
{{- with (index . 0).Values.spread }}
topologySpreadConstraints:
{{- range . }}
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
{{- end }}
{{- end -}}

{{/* The securityContext of every container, as the Pod Security Standard `restricted` wants it, and nothing written but volumes. */}}
{{- define "ovation.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* ---- What there is ---- */}}

{{/* Whether votes are split between the two pipelines: then there is a forwarder. */}}
{{- define "ovation.hasForwarder" -}}
{{- if and (eq .Values.entry.kind "gateway") (gt (int .Values.entry.gateway.weights.grpc) 0) }}true{{ end -}}
{{- end -}}

{{/* Our programs that run, as a JSON list. */}}
{{- define "ovation.programs" -}}
{{- $there := list "rest-producer" "grpc-producer" "consumer" "results" -}}
{{- if include "ovation.hasForwarder" . }}{{ $there = append $there "forwarder" }}{{ end -}}
{{ toJson $there }}
{{- end -}}

{{/* All components that run, as a JSON list: our programs, `helm test`, the stores and what watches. */}}
{{- define "ovation.components" -}}
{{- $there := append (include "ovation.programs" . | fromJsonArray) "test" -}}
{{- range list "kafka" "redis" "mongodb" "prometheus" "alertmanager" "grafana" }}
{{- if (get $.Values .).enabled }}{{ $there = append $there . }}{{ end -}}
{{- end -}}
{{ toJson $there }}
{{- end -}}

{{/* ---- Our programs ---- */}}

{{/* How a program's Deployment is rolled out, and whose pods are its: include "ovation.rollout" (list $ "consumer").
     A new pod is ready before an old one leaves. */}}
{{- define "ovation.rollout" -}}
strategy:
  rollingUpdate:
    maxSurge: 1
    maxUnavailable: 0
selector:
  matchLabels:
    {{- include "ovation.selectorLabels" . | nindent 4 }}
{{- end -}}

{{/* The metadata of its pods: a new configuration makes new ones. */}}
{{- define "ovation.podMetadata" -}}
labels:
  {{- include "ovation.labels" . | nindent 2 }}
  # By this the Service of the admin ports finds the pods of all programs.
  ovation-admin: "true"
annotations:
  checksum/config: {{ include "ovation.toml" (index . 0) | sha256sum }}
{{- end -}}

{{/* Leaving: for `drainSeconds` the pod goes on as if nothing were, while its address is taken out of the entry; then SIGTERM,
     and within 9 seconds the program has ended by itself (service/src/program.rs). A second is left over. */}}
{{- define "ovation.grace" -}}
{{ add .Values.drainSeconds 10 }}
{{- end -}}

{{/* What the containers of all programs share: include "ovation.container" (list $ .Values.results). */}}
{{- define "ovation.container" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
image: {{ include "ovation.image" (list $root $root.Values.image) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- include "ovation.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml $own.resources | nindent 2 }}
# Programs listen at once, and wait for their stores as long as it takes: that is readiness, not life.
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 1
  # While a program looks for a Kafka that is not there yet, it answers between two looks.
  timeoutSeconds: 5
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Ready asks the stores, which may take two seconds. */}}
{{- define "ovation.readiness" -}}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Endpoints forget a pod that leaves within a moment; until then it goes on. The image has no shell, so the kubelet waits. */}}
{{- define "ovation.drain" -}}
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.drainSeconds }}}
{{- end -}}

{{/* The contest that `helm test` votes in. Contests may want voters or candidates, so beside them there is one that wants neither;
     without contests there is `bands` alone, which is open to any name. */}}
{{- define "ovation.testContest" -}}
{{- if .Values.contests }}check{{ else }}bands{{ end -}}
{{- end -}}

{{/* ovation.toml. Every JSON text, number and list is one in TOML too; and a whole number stays one. */}}
{{- define "ovation.toml" -}}
{{- range $key, $value := .Values.config }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- range $contest, $rules := .Values.contests }}

[contests.{{ $contest }}]
{{- range $key, $value := $rules }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- if and .Values.contests (not (hasKey .Values.contests "check")) }}

[contests.check]
{{- end }}
{{- end -}}

{{/* How fast consumers come and go: at once when there is work; when there is less, all at once too, but late, since each change
     moves partitions. */}}
{{- define "ovation.scaling" -}}
behavior:
  scaleUp:
    stabilizationWindowSeconds: 0
  scaleDown:
    stabilizationWindowSeconds: {{ .Values.consumer.scaleDownSeconds }}
{{- end -}}
