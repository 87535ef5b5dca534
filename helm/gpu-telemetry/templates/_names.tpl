{{/* Names and labels. */}}

{{- define "gpu-telemetry.fullname" -}}
{{- /* Leaves room for what is put behind it: a name ends at 63 characters, and a StatefulSet's at 52. A Service's name has no dots and
       begins with a letter. A name that had to be changed for that ends in a checksum, so that a.b and a-b are two. */ -}}
{{- $asked := .Values.fullnameOverride | default .Release.Name -}}
{{- $name := regexReplaceAll "[^a-z0-9-]" (lower $asked) "-" | trimAll "-" -}}
{{- if not (regexMatch "^[a-z]" $name) -}}{{- $name = printf "r-%s" $name -}}{{- end -}}
{{- if eq $name $asked -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" ($name | trunc 33 | trimSuffix "-") (sha256sum $asked | trunc 6) -}}
{{- end -}}
{{- end -}}

{{/* {root, component}: what a selector matches; never changes */}}
{{- define "gpu-telemetry.selectorLabels" -}}
app.kubernetes.io/name: gpu-telemetry
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* {root, component}: all labels of an object */}}
{{- define "gpu-telemetry.labels" -}}
{{ include "gpu-telemetry.selectorLabels" . }}
app.kubernetes.io/part-of: gpu-telemetry
app.kubernetes.io/version: {{ .root.Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end -}}

{{/* {root, component}: the metadata of an object that is named after its component */}}
{{- define "gpu-telemetry.metadata" -}}
name: {{ include "gpu-telemetry.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "gpu-telemetry.labels" . | nindent 2 }}
{{- end -}}

{{- define "gpu-telemetry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gpu-telemetry.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* {root, image}: one of the project's images */}}
{{- define "gpu-telemetry.image" -}}
{{- $registry := .root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{ .image.repository }}:{{ include "gpu-telemetry.text" (.image.tag | default .root.Values.global.imageTag | default .root.Chart.AppVersion) }}
{{- end -}}

{{/* {image}: an image of others */}}
{{- define "gpu-telemetry.foreignImage" -}}
{{- with .image.registry | trimSuffix "/" }}{{ . }}/{{ end -}}
{{ .image.repository }}:{{ include "gpu-telemetry.text" .image.tag }}
{{- end -}}
