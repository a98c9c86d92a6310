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

{{- define "vlm-operator.continuation-secret" -}}
{{- .Values.gateway.continuation.secretName | default (printf "%s-continuation" (include "vlm-operator.gateway" .)) -}}
{{- end -}}

{{/* The key pair by which a gateway moves a stream to another model server, as {"public": …, "private": …} in JSON;
"private" only where the chart writes the Secret, and nothing where there is no key. Made at the first installation and
read back at each later one: that takes nobody's rights but those of whoever runs helm. Where templates are rendered
without a cluster there is nothing to read back, and a key that changes with each rendering would restart every model,
so there the values name one or there is none. */}}
{{- define "vlm-operator.continuation" -}}
{{- if not (hasKey .Values.gateway "keys") -}}
{{- $keys := dict -}}
{{- $given := .Values.gateway.continuation -}}
{{- if not .Values.gateway.enabled -}}
{{- else if $given.publicKey -}}
{{- $_ := set $keys "public" $given.publicKey -}}
{{- else if lookup "v1" "ServiceAccount" .Release.Namespace "" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "vlm-operator.continuation-secret" .) -}}
{{- if $secret -}}
{{- $_ := set $keys "public" (index $secret.data "public" | b64dec) -}}
{{- $_ := set $keys "private" (index $secret.data "private" | b64dec) -}}
{{- else -}}
{{- $private := genPrivateKey "ed25519" -}}
{{- /* The public key stands in a certificate behind these bytes (RFC 8410, section 4), and helm makes no other form. */ -}}
{{- $certificate := (genSelfSignedCertWithKey "vlm-gateway" list list 1 $private).Cert -}}
{{- $der := regexReplaceAll "-----[A-Z ]+-----|\\s" $certificate "" | b64dec -}}
{{- $behind := index (splitList "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" $der) 1 -}}
{{- $_ := set $keys "public" ($behind | trunc 32 | b64enc) -}}
{{- $_ := set $keys "private" $private -}}
{{- end -}}
{{- end -}}
{{- /* Every template gets the same. */ -}}
{{- $_ := set .Values.gateway "keys" $keys -}}
{{- end -}}
{{- .Values.gateway.keys | toJson -}}
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
