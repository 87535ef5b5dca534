{{/* What follows from the values: each is the text "true" or nothing. */}}

{{- define "gpu-telemetry.ownInfluxdb" -}}
{{- if and (eq .Values.storage.type "influxdb") (not .Values.influxdb.url) -}}true{{- end -}}
{{- end -}}

{{- define "gpu-telemetry.ownPostgresql" -}}
{{- if and (eq .Values.database.type "postgresql") (not .Values.database.url) (not .Values.database.existingSecret) -}}true{{- end -}}
{{- end -}}

{{/* A SQLite file, or memory, cannot be shared between pods: API and collector are then two containers of one pod. */}}
{{- define "gpu-telemetry.onePod" -}}
{{- if or (ne .Values.storage.type "influxdb") (eq .Values.database.type "sqlite") -}}true{{- end -}}
{{- end -}}

{{- define "gpu-telemetry.runsCollectors" -}}
{{- if ne .Values.storage.type "memory" -}}true{{- end -}}
{{- end -}}

{{/* With a database that is there already, migrations are a hook before an installation and an upgrade. The chart's own comes
     with the release, so at first they run beside it, and the pods that need them wait. */}}
{{- define "gpu-telemetry.migrateBeside" -}}
{{- if include "gpu-telemetry.ownPostgresql" . -}}
{{- if .Release.IsInstall -}}true
{{- else -}}
{{- $name := include "gpu-telemetry.fullname" . -}}
{{- if and (lookup "v1" "Secret" .Release.Namespace $name) (not (lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-postgresql" $name))) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gpu-telemetry.source" -}}
{{- if .Values.streamer.source -}}{{ .Values.streamer.source }}
{{- else if or .Values.streamer.data.existingConfigMap .Values.streamer.data.existingClaim -}}csv
{{- else if .Values.streamer.targets -}}dcgm
{{- else -}}simulate
{{- end -}}
{{- end -}}

{{/* A capture that is sent once is a Job: a StatefulSet would start it again. */}}
{{- define "gpu-telemetry.streamsOnce" -}}
{{- if and (eq (include "gpu-telemetry.source" .) "csv") (not .Values.streamer.data.loop) -}}true{{- end -}}
{{- end -}}

{{- define "gpu-telemetry.influxdbUrl" -}}
{{- .Values.influxdb.url | default (printf "http://%s-influxdb:8086" (include "gpu-telemetry.fullname" .)) -}}
{{- end -}}

{{/* The first host of the ingress that is no wildcard, with its path: nothing where every one is a wildcard. */}}
{{- define "gpu-telemetry.publicUrl" -}}
{{- $ingress := .Values.api.ingress -}}
{{- $url := "" -}}
{{- range $ingress.hosts -}}
  {{- if not (or $url (hasPrefix "*" .)) -}}
    {{- $url = printf "http%s://%s%s" (ternary "s" "" (not (empty $ingress.tls))) (lower .) ($ingress.path | trimSuffix "/") -}}
  {{- end -}}
{{- end -}}
{{- $url -}}
{{- end -}}

{{/* Values that cannot work together: one line that says what to set. */}}
{{- define "gpu-telemetry.check" -}}
{{- $v := .Values -}}
{{- /* Pods must know their number (label apps.kubernetes.io/pod-index, spec.ordinals). A Helm that was built without release flags
       takes 1.20.0 for the version where it is told of none: hence here, and not as kubeVersion in Chart.yaml. */ -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if and (semverCompare "<1.28.0-0" $version) (ne $version "v1.20.0") -}}
  {{- fail (printf "this chart needs Kubernetes 1.28 or newer; this is %s" $version) -}}
{{- end -}}
{{- if include "gpu-telemetry.onePod" . -}}
  {{- $what := ternary (printf "storage.type=%s" $v.storage.type) "database.type=sqlite" (ne $v.storage.type "influxdb") -}}
  {{- if or (gt (int $v.api.replicaCount) 1) $v.api.autoscaling.enabled (gt (int $v.collector.replicaCount) 1) -}}
    {{- fail (printf "%s cannot be shared between pods: set api.replicaCount=1, collector.replicaCount=1 and api.autoscaling.enabled=false, or storage.type=influxdb and database.type=postgresql" $what) -}}
  {{- end -}}
{{- end -}}
{{- if and (eq $v.storage.type "influxdb") $v.influxdb.url (not $v.influxdb.token) (not $v.influxdb.existingSecret) -}}
  {{- fail "influxdb.url is given without its API token: set influxdb.token, or influxdb.existingSecret to a Secret that has it under the key influxdb.existingSecretKey" -}}
{{- end -}}
{{- if and $v.influxdb.token $v.influxdb.existingSecret -}}
  {{- fail "influxdb.token and influxdb.existingSecret are both given: set one of them" -}}
{{- end -}}
{{- if and $v.secrets.brokerToken (not $v.secrets.existingSecret) (lt (len (trim $v.secrets.brokerToken)) 16) -}}
  {{- fail "secrets.brokerToken is too short: use at least 16 characters, as openssl rand -hex 24 makes them" -}}
{{- end -}}
{{- if and $v.database.url $v.database.existingSecret -}}
  {{- fail "database.url and database.existingSecret are both given: set one of them" -}}
{{- end -}}
{{- if and (eq $v.database.type "sqlite") (or $v.database.url $v.database.existingSecret) -}}
  {{- fail "database.type=sqlite is a file of the pod's own: leave out database.url and database.existingSecret, or set database.type=postgresql" -}}
{{- end -}}
{{- if and $v.database.url (not (regexMatch "^postgres(ql)?://" $v.database.url)) -}}
  {{- fail "database.url is not a PostgreSQL's: set postgres://user:password@host:5432/name, or database.type=sqlite for a file" -}}
{{- end -}}
{{- if and $v.streamer.data.existingConfigMap $v.streamer.data.existingClaim -}}
  {{- fail "streamer.data.existingConfigMap and streamer.data.existingClaim are both given: set one of them" -}}
{{- end -}}
{{- if $v.streamer.enabled -}}
  {{- $source := include "gpu-telemetry.source" . -}}
  {{- if and (eq $source "csv") (not $v.streamer.data.existingConfigMap) (not $v.streamer.data.existingClaim) -}}
    {{- fail "streamer.source=csv has no capture: set streamer.data.existingConfigMap or streamer.data.existingClaim" -}}
  {{- end -}}
  {{- if and (eq $source "dcgm") (not $v.streamer.targets) -}}
    {{- fail "streamer.source=dcgm has no exporter: set streamer.targets, as {dcgm-exporter.gpu-operator.svc:9400}" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.api.ingress.enabled (not $v.api.ingress.hosts) -}}
  {{- fail "api.ingress.enabled without a host name: set api.ingress.hosts" -}}
{{- end -}}
{{- $named := or (include "gpu-telemetry.publicUrl" .) (hasKey $v.settings "PUBLIC_URL") (hasKey $v.api.settings "PUBLIC_URL") -}}
{{- if and $v.api.ingress.enabled (ne $v.api.ingress.path "/") (not $named) -}}
  {{- fail "api.ingress.path below a wildcard host: set api.settings.PUBLIC_URL, as https://gpus.example.com/gpu" -}}
{{- end -}}
{{- if and $v.api.autoscaling.enabled (gt (int $v.api.autoscaling.minReplicas) (int $v.api.autoscaling.maxReplicas)) -}}
  {{- fail "api.autoscaling.minReplicas is more than api.autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}
