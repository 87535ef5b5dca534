{{/* What pods have in common. */}}

{{/* {root, component, values}: metadata of a pod template. The checksums roll the pods when what they read has changed. */}}
{{- define "gpu-telemetry.podMetadata" -}}
labels:
  {{- include "gpu-telemetry.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- include "gpu-telemetry.texts" . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "gpu-telemetry.configData" .root | sha256sum }}
  checksum/secret: {{ include "gpu-telemetry.secretData" .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- include "gpu-telemetry.texts" . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* {root, component, values}: the part of a pod's spec before its containers */}}
{{- define "gpu-telemetry.podSpec" -}}
serviceAccountName: {{ include "gpu-telemetry.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
# Else a service named mq would set MQ_PORT to an address of its own.
enableServiceLinks: false
{{- with .values.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ int64 . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- include "gpu-telemetry.scheduling" . }}
{{- end -}}

{{- define "gpu-telemetry.scheduling" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- include "gpu-telemetry.texts" . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey .values "topologySpreadConstraints" }}
topologySpreadConstraints:
  {{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gpu-telemetry.selectorLabels" . | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "gpu-telemetry.securityContext" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* {root, image}: how a container of ours begins */}}
{{- define "gpu-telemetry.container" -}}
image: {{ include "gpu-telemetry.image" . | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
workingDir: /app
{{ include "gpu-telemetry.securityContext" . }}
{{- end -}}

{{/* {root, values, secrets, fixed, fields}: environment of a container of ours: out of Secrets, out of the pod (name -> field path),
     and plain values. The settings that the values give, of this component or of all, win over the chart's own; null is none, as
     --set NAME=null says it. */}}
{{- define "gpu-telemetry.env" -}}
{{- $root := .root -}}
{{- $settings := .values.settings -}}
{{- range .secrets -}}
{{ include "gpu-telemetry.secretEnv" (dict "root" $root "name" .) }}
{{ end -}}
{{- range $name, $path := .fields }}
{{- if not (hasKey $settings $name) }}
- name: {{ $name | quote }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $path }}
{{- end }}
{{- end }}
{{- $plain := dict -}}
{{- range $name, $value := .fixed }}{{- if not (hasKey $root.Values.settings $name) }}{{- $_ := set $plain $name $value -}}{{- end -}}{{- end -}}
{{- range $name, $value := $settings }}{{- if not (kindIs "invalid" $value) }}{{- $_ := set $plain $name $value -}}{{- end -}}{{- end -}}
{{- with $root.Values.mqServer.tls.existingSecret -}}
  {{- if not (hasKey $plain "BROKER_TLS_CERT") -}}{{- $_ := set $plain "BROKER_TLS_CA" "/etc/gpu-telemetry/tls/ca.crt" -}}{{- end -}}
{{- end -}}
{{- range $name, $value := $plain }}
- name: {{ $name | quote }}
  value: {{ include "gpu-telemetry.text" $value | quote }}
{{- end }}
{{- include "gpu-telemetry.envVars" .values.extraEnv }}
{{- end -}}

{{- define "gpu-telemetry.envFrom" -}}
envFrom:
  - configMapRef:
      name: {{ include "gpu-telemetry.fullname" . | quote }}
{{- end -}}

{{/* the secrets that a container needs that asks the database and the store */}}
{{- define "gpu-telemetry.storeSecrets" -}}
{{- $names := list "SECRET_KEY" "BROKER_TOKEN" -}}
{{- if eq .Values.database.type "postgresql" -}}{{- $names = append $names "DATABASE_URL" -}}{{- end -}}
{{- if eq .Values.storage.type "influxdb" -}}{{- $names = append $names "INFLUXDB_TOKEN" -}}{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{/* how a client finds the broker's certificate */}}
{{- define "gpu-telemetry.tlsEnv" -}}
{{- if .Values.mqServer.tls.existingSecret }}
- name: BROKER_TLS_CA
  value: /etc/gpu-telemetry/tls/ca.crt
{{- end }}
{{- end -}}

{{- define "gpu-telemetry.tlsMount" -}}
{{- if .Values.mqServer.tls.existingSecret }}
- name: tls
  mountPath: /etc/gpu-telemetry/tls
  readOnly: true
{{- end }}
{{- end -}}

{{/* for clients: the CA alone, never the broker's key */}}
{{- define "gpu-telemetry.tlsVolume" -}}
{{- with .Values.mqServer.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end -}}

{{/* [values of a component]: what its containers mount */}}
{{- define "gpu-telemetry.mounts" -}}
- name: state
  mountPath: /var/lib/gpu-telemetry
- name: tmp
  mountPath: /tmp
{{- range . }}
{{- with .extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* [values of components that share a pod]: their volumes, each once */}}
{{- define "gpu-telemetry.extraVolumes" -}}
{{- $volumes := list -}}
{{- range . -}}{{- $volumes = concat $volumes (.extraVolumes | default list) -}}{{- end -}}
{{- with $volumes | uniq }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gpu-telemetry.tmpVolume" -}}
- name: tmp
  emptyDir: {}
{{- end -}}

{{/* {root, persistence, name}: a claim's spec */}}
{{- define "gpu-telemetry.claimSpec" -}}
accessModes: [ReadWriteOnce]
{{- with .persistence.storageClass | default .root.Values.global.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ include "gpu-telemetry.text" .persistence.size | quote }}
{{- end -}}

{{/* {root, persistence, component}: of a StatefulSet, its claim; else nothing, see stateVolume */}}
{{- define "gpu-telemetry.claimTemplates" -}}
{{- if .persistence.enabled }}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: state
      labels:
        {{- include "gpu-telemetry.selectorLabels" . | nindent 8 }}
    spec:
      {{- include "gpu-telemetry.claimSpec" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* {persistence}: in place of a claim */}}
{{- define "gpu-telemetry.stateVolume" -}}
{{- if not .persistence.enabled }}
- name: state
  emptyDir:
    sizeLimit: {{ include "gpu-telemetry.text" .persistence.size | quote }}
{{- end }}
{{- end -}}

{{/* {name, port}: at METRICS_ADDR, for collector, streamer and watch: /health is 503 where only a restart helps, /ready also while a
     partner is away */}}
{{- define "gpu-telemetry.ownProbes" -}}
ports:
  - name: {{ .name }}
    containerPort: {{ int64 .port }}
startupProbe:
  httpGet: {path: /health, port: {{ .name }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /health, port: {{ .name }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /ready, port: {{ .name }}}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end -}}

{{- define "gpu-telemetry.listen" -}}
{{- $host := .root.Values.listenHost | trimPrefix "[" | trimSuffix "]" -}}
{{- if contains ":" $host -}}{{- $host = printf "[%s]" $host -}}{{- end -}}
{{- printf "%s:%d" $host (int .port) -}}
{{- end -}}

{{/* {root, image, values}: wait until the migrations of this version are done: nothing of ours meets a database that it does not know */}}
{{- define "gpu-telemetry.waitForMigrations" -}}
- name: wait-for-migrations
  {{- include "gpu-telemetry.container" . | nindent 2 }}
  command: [python, manage.py, waitmigrated]
  {{- include "gpu-telemetry.envFrom" .root | nindent 2 }}
  env:
    {{- include "gpu-telemetry.secretEnv" (dict "root" .root "name" "SECRET_KEY") | nindent 4 }}
    {{- include "gpu-telemetry.secretEnv" (dict "root" .root "name" "DATABASE_URL") | nindent 4 }}
    {{- include "gpu-telemetry.envVars" .values.extraEnv | nindent 4 }}
  resources:
    {{- toYaml .root.Values.migrate.resources | nindent 4 }}
  volumeMounts:
    {{- include "gpu-telemetry.mounts" (list .values) | nindent 4 }}
{{- end -}}

{{/* {root}: the collector's container, in a pod of its own or in the API's */}}
{{- define "gpu-telemetry.collectorContainer" -}}
{{- $values := .root.Values.collector -}}
{{- $fixed := dict "METRICS_ADDR" (include "gpu-telemetry.listen" (dict "root" .root "port" 9102)) -}}
{{- $fields := dict -}}
{{- if include "gpu-telemetry.onePod" .root -}}
  {{- $_ := set $fixed "COLLECTOR_ID" (printf "%s-collector" (include "gpu-telemetry.fullname" .root)) -}}
{{- else -}}
  {{- $_ := set $fields "COLLECTOR_ID" "metadata.name" -}}
{{- end -}}
- name: collector
  {{- include "gpu-telemetry.container" (dict "root" .root "image" $values.image) | nindent 2 }}
  command: [python, manage.py, collect]
  {{- include "gpu-telemetry.envFrom" .root | nindent 2 }}
  env:
    {{- include "gpu-telemetry.env" (dict "root" .root "values" $values "secrets" (include "gpu-telemetry.storeSecrets" .root | fromYamlArray) "fixed" $fixed "fields" $fields) | nindent 4 }}
  {{- include "gpu-telemetry.ownProbes" (dict "name" "metrics" "port" 9102) | nindent 2 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    {{- include "gpu-telemetry.mounts" (list $values) | nindent 4 }}
    {{- include "gpu-telemetry.tlsMount" .root | nindent 4 }}
{{- end -}}

{{/* {root}: the watch's container, in a pod of its own or in the API's */}}
{{- define "gpu-telemetry.watchContainer" -}}
{{- $values := .root.Values.watch -}}
{{- $fixed := dict "METRICS_ADDR" (include "gpu-telemetry.listen" (dict "root" .root "port" 9103)) -}}
{{- $api := .root.Values.api -}}
{{- /* messages have links to the API's pages */ -}}
{{- if $api.ingress.enabled -}}
  {{- $_ := set $fixed "TRUSTED_PROXIES" "1" -}}
  {{- with include "gpu-telemetry.publicUrl" .root -}}{{- $_ := set $fixed "PUBLIC_URL" . -}}{{- end -}}
{{- end -}}
{{- range list "PUBLIC_URL" "TRUSTED_PROXIES" -}}
  {{- if hasKey $api.settings . -}}{{- $_ := set $fixed . (get $api.settings . | toString) -}}{{- end -}}
{{- end -}}
- name: watch
  {{- include "gpu-telemetry.container" (dict "root" .root "image" $values.image) | nindent 2 }}
  command: [python, manage.py, watch]
  {{- include "gpu-telemetry.envFrom" .root | nindent 2 }}
  env:
    {{- include "gpu-telemetry.env" (dict "root" .root "values" $values "secrets" (include "gpu-telemetry.storeSecrets" .root | fromYamlArray) "fixed" $fixed "fields" (dict)) | nindent 4 }}
    {{- if $values.notifySecret }}
    {{- range list "NOTIFY_URLS" "ALERTMANAGER_URL" "HEARTBEAT_URL" }}
    - name: {{ . | quote }}
      valueFrom:
        secretKeyRef: {name: {{ $values.notifySecret | quote }}, key: {{ . }}, optional: true}
    {{- end }}
    {{- end }}
  {{- include "gpu-telemetry.ownProbes" (dict "name" "watch-metrics" "port" 9103) | nindent 2 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    {{- include "gpu-telemetry.mounts" (list $values) | nindent 4 }}
    {{- include "gpu-telemetry.tlsMount" .root | nindent 4 }}
{{- end -}}
