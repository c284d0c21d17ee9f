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

{{/* A value as text in an environment: of a file's large numbers Helm would make 2.68e+08. */}}
{{- define "ovation.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Restarts a component's pods when its configuration changes: an annotation of them, made of the text of it. */}}
{{- define "ovation.checksum" -}}
checksum/config: {{ sha256sum . }}
{{- end -}}
