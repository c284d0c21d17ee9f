{{/* Where the programs find the stores. A store is the chart's own or one elsewhere; `refusals.yaml` sees to it that it is one of
     the two. */}}

{{/* The environment with the stores' URLs: include "ovation.stores" (list $ "queue" "tally" "book"). */}}
{{- define "ovation.stores" -}}
{{- $root := index . 0 -}}
{{- $fullname := include "ovation.fullname" $root -}}
{{- $secret := include "ovation.secretName" $root -}}
{{- $own := dict
      "queue" (printf "kafka://%s-kafka:9092/votes?replication=%v" $fullname (min 3 (int $root.Values.kafka.replicas)))
      "tally" (printf "redis://:$(REDIS_PASSWORD)@%s-redis:6379" $fullname)
      "book" (printf "mongodb://ovation:$(MONGODB_PASSWORD)@%s-mongodb:27017/ovation?authSource=admin" $fullname) -}}
{{- $passwords := dict "tally" "redis" "book" "mongodb" -}}
{{- range $store := slice . 1 }}
{{- $external := get $root.Values.external $store }}
{{- $name := printf "OVATION_%s" (upper $store) }}
{{- if $external.existingSecret }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ $external.key }}}
{{- else if $external.url }}
- name: {{ $name }}
  value: {{ $external.url | quote }}
{{- else }}
{{- with get $passwords $store }}
- name: {{ upper . }}_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ . }}-password}
{{- end }}
- name: {{ $name }}
  value: {{ get $own $store | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The authorities of stores elsewhere, as mounts and as volumes: include "ovation.authorities.mounts" (list $ "queue"). */}}
{{- define "ovation.authorities.mounts" -}}
{{- $root := index . 0 -}}
{{- range $store := slice . 1 }}
{{- if (get $root.Values.external $store).caSecret }}
- name: {{ $store }}-authorities
  mountPath: /etc/ovation/{{ $store }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "ovation.authorities.volumes" -}}
{{- $root := index . 0 -}}
{{- range $store := slice . 1 }}
{{- with (get $root.Values.external $store).caSecret }}
- name: {{ $store }}-authorities
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}
