{{/* One release of the operator per cluster: its objects carry the release's name. */}}
{{- define "vlm-operator.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "vlm-operator.selector" -}}
app.kubernetes.io/name: vlm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vlm-operator.labels" -}}
{{ include "vlm-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "vlm-operator.gateway" -}}
{{ include "vlm-operator.name" . }}-gateway
{{- end -}}

{{- define "vlm-operator.gateway-selector" -}}
app.kubernetes.io/name: vlm-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vlm-operator.gateway-labels" -}}
{{ include "vlm-operator.gateway-selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "vlm-operator.runtime-tag" -}}
{{- .Values.image.runtimeTag | default (include "vlm-operator.tag" .) -}}
{{- end -}}

{{/* Whether the operator may look at nodes, which are in no namespace: "true" or nothing. */}}
{{- define "vlm-operator.watches-nodes" -}}
{{- if kindIs "invalid" .Values.nodes.watch | ternary (not .Values.watchNamespaces) .Values.nodes.watch }}true{{ end -}}
{{- end -}}

{{- define "vlm-operator.tag" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}
