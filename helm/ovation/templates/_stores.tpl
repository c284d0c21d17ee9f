{{/* Configures the stores of the programs. A store is either the chart's own or an external one: `refusals.yaml` rejects
     any other combination. Stores are named by their keys under `external`: voteLog, tallies, ledger. */}}

{{/* Environment variables with the URLs of stores: include "ovation.stores" (list $ "voteLog" "tallies" "ledger"). */}}
{{- define "ovation.stores" -}}
{{- $root := index . 0 -}}
{{- $fullname := include "ovation.fullname" $root -}}
{{- $secret := include "ovation.secretName" $root -}}
{{- $own := dict
      "voteLog" (printf "kafka://%s-kafka:9092/votes?replication=%v" $fullname (min 3 (int $root.Values.kafka.replicas)))
      "tallies" (printf "redis://:$(REDIS_PASSWORD)@%s-redis:6379" $fullname)
      "ledger" (printf "mongodb://ovation:$(MONGODB_PASSWORD)@%s-mongodb:27017/ovation?authSource=admin" $fullname) -}}
{{- $passwords := dict "tallies" "redis" "ledger" "mongodb" -}}
{{- range $store := slice . 1 }}
{{- $external := get $root.Values.external $store }}
{{- $name := printf "OVATION_%s" (snakecase $store | upper) }}
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

{{/* CA certificates of external stores, as volume mounts and as volumes: include "ovation.authorities.mounts" (list $
     "voteLog"). */}}
{{- define "ovation.authorities.mounts" -}}
{{- $root := index . 0 -}}
{{- range $store := slice . 1 }}
{{- if (get $root.Values.external $store).caSecret }}
- name: {{ kebabcase $store }}-authorities
  mountPath: /etc/ovation/{{ kebabcase $store }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "ovation.authorities.volumes" -}}
{{- $root := index . 0 -}}
{{- range $store := slice . 1 }}
{{- with (get $root.Values.external $store).caSecret }}
- name: {{ kebabcase $store }}-authorities
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}
