{{/* Shared by the stores, Prometheus, Alertmanager and Grafana. */}}

{{/* The part of a StatefulSet that claims the volume of its data: include "ovation.claim" (list $ "kafka" .Values.kafka).
     The claim remains when the StatefulSet is removed: only an operator deletes votes. Kubernetes allows no change of
     volumeClaimTemplates, so the labels contain no version. */}}
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

{{/* Volumes of a pod: an emptyDir for the data if persistence is disabled, and /tmp if a size is passed.
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

{{/* Image and pull policy of a container: include "ovation.storeImage" (list $ .Values.kafka.image). */}}
{{- define "ovation.storeImage" -}}
image: {{ include "ovation.image" . }}
imagePullPolicy: {{ (index . 1).pullPolicy }}
{{- end -}}

{{/* Returns a size in bytes. Accepts the units of Kubernetes ("512Mi"), Redis ("512mb") and Java ("512m"). "512m" is 512
     MiB in Java and 512 MB in Redis; the template returns the smaller one. */}}
{{- define "ovation.bytes" -}}
{{- $units := dict "" 1 "b" 1 "k" 1000 "kb" 1024 "ki" 1024 "m" 1000000 "mb" 1048576 "mi" 1048576 "g" 1000000000 "gb" 1073741824 "gi" 1073741824 -}}
{{- $text := include "ovation.text" . | lower -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "%s is not a size in bytes: write a number with a unit, such as 512Mi or 512mb" $text) }}{{ end -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units $unit) | int64 -}}
{{- end -}}

{{/* Rejects a memory limit of which less than a fifth remains beside the configured memory of a store. Without that
     headroom the kernel kills the store when its memory is full. include "ovation.requireHeadroom" (list .Values.redis
     "redis" "maxmemory" "512mb") */}}
{{- define "ovation.requireHeadroom" -}}
{{- $limit := (index . 0).resources.limits.memory -}}
{{- $memory := index . 3 -}}
{{- if gt (mulf 1.25 (include "ovation.bytes" $memory | float64)) (include "ovation.bytes" $limit | float64) -}}
{{- fail (printf "%s.%s is %v and %s.resources.limits.memory is %v: at least a fifth of the limit must remain free" (index . 1) (index . 2) $memory (index . 1) $limit) -}}
{{- end -}}
{{- end -}}

{{/* Returns a value as the text of an environment variable. Helm itself would write a large number as 2.68e+08. */}}
{{- define "ovation.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Returns a pod annotation with the checksum of a configuration. A changed configuration restarts the pods. */}}
{{- define "ovation.checksum" -}}
checksum/config: {{ sha256sum . }}
{{- end -}}
