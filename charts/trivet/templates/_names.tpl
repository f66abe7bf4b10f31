{{/* Labels of every object of the release. Names are fixed: two Trivets in one cluster would fight over its nodes. */}}
{{- define "trivet.labels" -}}
app.kubernetes.io/name: trivet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What the operator's Deployment selects its pod by; it can never change. */}}
{{- define "trivet.operatorSelector" -}}
app.kubernetes.io/name: trivet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The reference of an image: its digest, its tag, or the release's version. Takes (list $ image). */}}
{{- define "trivet.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}
