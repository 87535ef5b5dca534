{{/* What the chart's own Secret holds, as YAML of base64: what the values give, else what is in the cluster, else made now. It is
     made once in a rendering, so that checksums are those of the Secret that is written. */}}
{{- define "gpu-telemetry.secretData" -}}
{{- $name := include "gpu-telemetry.fullname" . -}}
{{- if not (hasKey .Values "madeSecrets") -}}
  {{- $old := default dict (default dict (lookup "v1" "Secret" .Release.Namespace $name)).data -}}
  {{- $data := dict -}}
  {{- if not .Values.secrets.existingSecret -}}
    {{- $_ := set $data "SECRET_KEY" (include "gpu-telemetry.secretText" (list .Values.secrets.secretKey (get $old "SECRET_KEY") 64)) -}}
    {{- $_ := set $data "BROKER_TOKEN" (include "gpu-telemetry.secretText" (list .Values.secrets.brokerToken (get $old "BROKER_TOKEN") 48)) -}}
  {{- end -}}
  {{- if include "gpu-telemetry.ownInfluxdb" . -}}
    {{- $_ := set $data "INFLUXDB_PASSWORD" (include "gpu-telemetry.secretText" (list .Values.influxdb.password (get $old "INFLUXDB_PASSWORD") 32)) -}}
  {{- end -}}
  {{- if and (eq .Values.storage.type "influxdb") (not .Values.influxdb.existingSecret) -}}
    {{- $_ := set $data "INFLUXDB_TOKEN" (include "gpu-telemetry.secretText" (list .Values.influxdb.token (get $old "INFLUXDB_TOKEN") 64)) -}}
  {{- end -}}
  {{- if include "gpu-telemetry.ownPostgresql" . -}}
    {{- $password := include "gpu-telemetry.secretText" (list .Values.postgresql.password (get $old "POSTGRES_PASSWORD") 32) -}}
    {{- $_ := set $data "POSTGRES_PASSWORD" $password -}}
    {{- $_ := set $data "DATABASE_URL" (printf "postgres://telemetry:%s@%s-postgresql:5432/telemetry" (urlquery $password | replace "+" "%20") $name) -}}
  {{- else if .Values.database.url -}}
    {{- $_ := set $data "DATABASE_URL" (trim .Values.database.url) -}}
  {{- end -}}
  {{- $_ := set .Values "madeSecrets" $data -}}
{{- end -}}
{{- range $key, $value := .Values.madeSecrets }}
{{ $key }}: {{ $value | b64enc | quote }}
{{- end }}
{{- end -}}

{{/* [what the values give, base64 of what is in the cluster, length]: the first of them, else made at random. A file that is given with
     --set-file ends in a line break, which is no part of it. */}}
{{- define "gpu-telemetry.secretText" -}}
{{- regexReplaceAll "[\\r\\n]+$" (first . | default (index . 1 | b64dec) | default (randAlphaNum (index . 2 | int))) "" -}}
{{- end -}}

{{/* {root, name}: an environment variable out of the Secret that has it */}}
{{- define "gpu-telemetry.secretEnv" -}}
{{- $v := .root.Values -}}
{{- $secret := include "gpu-telemetry.fullname" .root -}}
{{- $key := .name -}}
{{- if and (has .name (list "SECRET_KEY" "BROKER_TOKEN")) $v.secrets.existingSecret -}}
  {{- $secret = $v.secrets.existingSecret -}}
{{- else if and (eq .name "INFLUXDB_TOKEN") $v.influxdb.existingSecret -}}
  {{- $secret = $v.influxdb.existingSecret -}}
  {{- $key = $v.influxdb.existingSecretKey -}}
{{- else if and (eq .name "DATABASE_URL") $v.database.existingSecret -}}
  {{- $secret = $v.database.existingSecret -}}
  {{- $key = $v.database.existingSecretKey -}}
{{- end -}}
- name: {{ .name | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | default $secret | quote }}
      key: {{ $key | quote }}
{{- end -}}
