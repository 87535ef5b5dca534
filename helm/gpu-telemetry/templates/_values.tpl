{{/* How values are printed. */}}

{{/* A value as the text that a setting takes. Helm reads a number of a file as a float64, which Go prints as 1e+06 from a million on. */}}
{{- define "gpu-telemetry.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) -}}{{ printf "%.0f" . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A map whose values Kubernetes wants as texts: labels, annotations, node selectors. */}}
{{- define "gpu-telemetry.texts" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ include "gpu-telemetry.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* A list of EnvVar, of which a plain value is a text. */}}
{{- define "gpu-telemetry.envVars" -}}
{{- range . }}
{{- $variable := deepCopy . }}
{{- if hasKey . "value" }}{{- $_ := set $variable "value" (include "gpu-telemetry.text" .value) }}{{- end }}
{{ list $variable | toYaml }}
{{- end }}
{{- end -}}

{{/* What the name of a Job ends in. A Job cannot be changed, so one with another content needs another name. */}}
{{- define "gpu-telemetry.checksum" -}}
{{- . | toString | sha256sum | trunc 8 -}}
{{- end -}}
