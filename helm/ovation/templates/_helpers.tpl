{{/* Returns the prefix of the names of all objects. It contains `ovation`, and it is at most 40 characters long, so that
     suffixes fit. */}}
{{- define "ovation.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Returns the name of a component's objects: include "ovation.name" (list $ "kafka"). */}}
{{- define "ovation.name" -}}
{{ include "ovation.fullname" (index . 0) }}-{{ index . 1 }}
{{- end -}}

{{/* Returns the labels that select a component's pods: include "ovation.selectorLabels" (list $ "kafka"). The pods of a
     store have only these labels, so that a new version of the chart does not restart the store. */}}
{{- define "ovation.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: ovation
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Returns the labels of a component's objects: include "ovation.labels" (list $ "kafka"). */}}
{{- define "ovation.labels" -}}
{{- $root := index . 0 -}}
{{ include "ovation.selectorLabels" . }}
app.kubernetes.io/part-of: ovation
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* Returns the full name of an image: include "ovation.image" (list $ .Values.kafka.image), where the second argument is a
     map with `registry`, `repository` and `tag`. */}}
{{- define "ovation.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $image.registry | default $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{/* Returns the name of the Secret with the voter secret, the read token and the passwords. */}}
{{- define "ovation.secretName" -}}
{{ .Values.secret.existing | default (include "ovation.fullname" .) }}
{{- end -}}

{{/* Returns the fields that all pod specs share: include "ovation.pod" (list $ "kafka" .Values.kafka 1000), where the last
     argument is the user id. A component's own nodeSelector, tolerations, affinity and priorityClassName override the
     global ones. */}}
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

{{/* Spreads a component's pods over the node labels of `spread`: include "ovation.spread" (list $ "kafka"). For a
     Deployment, pass "pod-template-hash" as a third argument: then the scheduler compares only the pods of one rollout.
     Otherwise the old pods count too, and new pods gather on the nodes without old ones. */}}
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

{{/* Returns the securityContext of every container: the Pod Security Standard `restricted`, and a root file system that is
     read-only. */}}
{{- define "ovation.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* ---- Components ---- */}}

{{/* Returns `true` if the entry sends votes through the forwarder, else nothing. */}}
{{- define "ovation.hasForwarder" -}}
{{- if and (eq .Values.entry.kind "gateway") (gt (int .Values.entry.gateway.weights.grpc) 0) }}true{{ end -}}
{{- end -}}

{{/* Returns our installed programs as a JSON list. */}}
{{- define "ovation.programs" -}}
{{- $components := list "rest-producer" "grpc-producer" "consumer" "results" -}}
{{- if include "ovation.hasForwarder" . }}{{ $components = append $components "forwarder" }}{{ end -}}
{{ toJson $components }}
{{- end -}}

{{/* Returns all installed components as a JSON list: our programs, `helm test`, the stores and the monitoring. */}}
{{- define "ovation.components" -}}
{{- $components := append (include "ovation.programs" . | fromJsonArray) "test" -}}
{{- range list "kafka" "redis" "mongodb" "prometheus" "alertmanager" "grafana" }}
{{- if (get $.Values .).enabled }}{{ $components = append $components . }}{{ end -}}
{{- end -}}
{{ toJson $components }}
{{- end -}}

{{/* ---- Our programs ---- */}}

{{/* Returns strategy and selector of a program's Deployment: include "ovation.rollout" (list $ "consumer"). A rollout stops
     an old pod only after a new one is ready. */}}
{{- define "ovation.rollout" -}}
strategy:
  rollingUpdate:
    maxSurge: 1
    maxUnavailable: 0
selector:
  matchLabels:
    {{- include "ovation.selectorLabels" . | nindent 4 }}
{{- end -}}

{{/* Returns the metadata of a program's pods. The checksum replaces the pods when the configuration changes. */}}
{{- define "ovation.podMetadata" -}}
labels:
  {{- include "ovation.labels" . | nindent 2 }}
  # Selected by the Service of the admin ports.
  ovation-admin: "true"
annotations:
  checksum/config: {{ include "ovation.toml" (index . 0) | sha256sum }}
{{- end -}}

{{/* Returns terminationGracePeriodSeconds. For `drainSeconds` the pod still serves requests while the entry removes its
     address. Then it receives SIGTERM, and the program exits within 9 seconds (service/src/program.rs). One second is
     spare. */}}
{{- define "ovation.terminationGracePeriod" -}}
{{ add .Values.drainSeconds 10 }}
{{- end -}}

{{/* Returns the fields that the containers of all programs share: include "ovation.container" (list $ .Values.results). */}}
{{- define "ovation.container" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
image: {{ include "ovation.image" (list $root $root.Values.image) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- include "ovation.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml $own.resources | nindent 2 }}
# Programs listen at once and wait for their stores without a limit. A missing store affects readiness, not liveness.
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 1
  # While a program tries to connect to Kafka, it answers only between two attempts.
  timeoutSeconds: 5
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Returns the readiness probe. /readyz queries the stores, which may take two seconds. */}}
{{- define "ovation.readiness" -}}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Returns the preStop hook, which delays SIGTERM until the pod is removed from the endpoints. The kubelet itself waits:
     the action `sleep` needs no program in the image. */}}
{{- define "ovation.drain" -}}
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.drainSeconds }}}
{{- end -}}

{{/* Returns the contest in which `helm test` votes. The contests of the values may restrict voters or candidates, so the
     chart adds the contest `check` without rules. Without contests in the values, there is only `bands`, which is open to
     any name. */}}
{{- define "ovation.testContest" -}}
{{- if .Values.contests }}check{{ else }}bands{{ end -}}
{{- end -}}

{{/* Returns ovation.toml. JSON strings, numbers and lists are valid TOML, and toJson writes integers as integers. */}}
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

{{/* Returns how fast consumers are scaled. Pods are added at once. They are removed together and late, since every change
     of their number reassigns partitions. */}}
{{- define "ovation.scaling" -}}
behavior:
  scaleUp:
    stabilizationWindowSeconds: 0
  scaleDown:
    stabilizationWindowSeconds: {{ .Values.consumer.scaleDownSeconds }}
{{- end -}}
