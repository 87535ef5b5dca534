{{/* Names and labels. */}}

{{- define "gpu-telemetry.fullname" -}}
{{- /* Leaves room for what is put behind it: a name ends at 63 characters, and a StatefulSet's at 52. */ -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* {root, component}: what a selector matches; never changes */}}
{{- define "gpu-telemetry.selectorLabels" -}}
app.kubernetes.io/name: gpu-telemetry
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* {root, component}: all labels of an object */}}
{{- define "gpu-telemetry.labels" -}}
{{ include "gpu-telemetry.selectorLabels" . }}
app.kubernetes.io/part-of: gpu-telemetry
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* {root, component}: the metadata of an object that is named after its component */}}
{{- define "gpu-telemetry.metadata" -}}
name: {{ include "gpu-telemetry.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
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
{{ .image.repository }}:{{ .image.tag | default .root.Values.global.imageTag | default .root.Chart.AppVersion }}
{{- end -}}

{{/* {image}: an image of others */}}
{{- define "gpu-telemetry.foreignImage" -}}
{{- with .image.registry | trimSuffix "/" }}{{ . }}/{{ end -}}
{{ .image.repository }}:{{ .image.tag }}
{{- end -}}
