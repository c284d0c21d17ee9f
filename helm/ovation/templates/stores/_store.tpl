{{/* What the stores, and what watches them, share. */}}

{{/* Where a component keeps its data, as a part of its StatefulSet: include "ovation.claim" (list $ "kafka" .Values.kafka).
     A claim outlives its StatefulSet: only people delete votes. Its labels never change, since a claim's template may not. */}}
{{- define "ovation.claim" -}}
{{- $root := index . 0 -}}
{{- $persistence := (index . 2).persistence -}}
persistentVolumeClaimRetentionPolicy:
  whenDeleted: Retain
  whenScaled: Retain
{{- if $persistence.enabled }}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
      labels:
        {{- include "ovation.selectorLabels" (list $root (index . 1)) | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $persistence.storageClassName | default $root.Values.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $persistence.size }}
{{- end }}
{{- end -}}

{{/* In the list of a pod's volumes: what stands in for the claim where there is none, and /tmp, if its size is given.
     include "ovation.volumes" (list .Values.kafka "64Mi") */}}
{{- define "ovation.volumes" -}}
{{- if not (index . 0).persistence.enabled }}
- name: data
  emptyDir: {}
{{- end }}
{{- if gt (len .) 1 }}
- name: tmp
  emptyDir:
    sizeLimit: {{ index . 1 }}
{{- end }}
{{- end -}}

{{/* A container's image and when it is pulled: include "ovation.storeImage" (list $ .Values.kafka.image). */}}
{{- define "ovation.storeImage" -}}
image: {{ include "ovation.image" . }}
imagePullPolicy: {{ (index . 1).pullPolicy }}
{{- end -}}

{{/* How many bytes "512Mi", as Kubernetes has it, "512mb", as Redis has it, or "512m", as both Redis and Java might, at least are. */}}
{{- define "ovation.bytes" -}}
{{- $units := dict "" 1 "b" 1 "k" 1000 "kb" 1024 "ki" 1024 "m" 1000000 "mb" 1048576 "mi" 1048576 "g" 1000000000 "gb" 1073741824 "gi" 1073741824 -}}
{{- $text := include "ovation.text" . | lower -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "%s is no size in bytes" $text) }}{{ end -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units $unit) | int64 -}}
{{- end -}}

{{/* Refuses a memory limit that does not leave a fifth above what a store is told to take: else the kernel kills it when it is full.
     include "ovation.roomAbove" (list .Values.redis "redis" "maxmemory" "512mb") */}}
{{- define "ovation.roomAbove" -}}
{{- $limit := (index . 0).resources.limits.memory -}}
{{- $most := index . 3 -}}
{{- if gt (mulf 1.25 (include "ovation.bytes" $most | float64)) (include "ovation.bytes" $limit | float64) -}}
{{- fail (printf "%s.%s is %v, and %s.resources.limits.memory %v: leave at least a fifth above it" (index . 1) (index . 2) $most (index . 1) $limit) -}}
{{- end -}}
{{- end -}}

{{/* A value as text in an environment: of a file's large numbers Helm would make 2.68e+08. */}}
{{- define "ovation.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Restarts a component's pods when its configuration changes: an annotation of them, made of the text of it. */}}
{{- define "ovation.checksum" -}}
checksum/config: {{ sha256sum . }}
{{- end -}}
