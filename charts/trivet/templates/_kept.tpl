{{/*
The CRDs, and what running proxies need, outlive the release: `helm.sh/resource-policy: keep`. So an object that we are
about to install may exist already. Where Helm would adopt it (a release of this name was here before) we render it;
where Helm would refuse the whole release, because the object came from kubectl or from a release of another name, we
leave it alone, and NOTES.txt says so.

Leaving an object out of a manifest that once had it makes Helm delete it, unless the live object itself says keep.
That is why the CRDs in crds/ carry the annotation even for those who never use Helm.

Without a cluster (helm template) `lookup` finds nothing and everything is rendered.
*/}}

{{/* The names of the admission policies, and of their bindings. */}}
{{- define "trivet.policies" -}}
{{- list "trivet-namespace" "trivet-daemonset-deletion" "trivet-daemonset-writes" "trivet-proxy-reports" "trivet-configmap-deletion" "trivet-pod-deletion" "trivet-pod-eviction" "trivet-pod-writes" "trivet-dns-writes" | toJson }}
{{- end }}

{{/* "true" if the object exists and Helm would not adopt it. Takes (list $ apiVersion kind namespace name). */}}
{{- define "trivet.foreign" -}}
{{- $root := index . 0 }}
{{- $live := lookup (index . 1) (index . 2) (index . 3) (index . 4) }}
{{- if $live }}
{{- $labels := $live.metadata.labels | default dict }}
{{- $annotations := $live.metadata.annotations | default dict }}
{{- $ours := and
  (eq (get $labels "app.kubernetes.io/managed-by") "Helm")
  (eq (get $annotations "meta.helm.sh/release-name") $root.Release.Name)
  (eq (get $annotations "meta.helm.sh/release-namespace") $root.Release.Namespace) }}
{{- if not $ours }}true{{ end }}
{{- end }}
{{- end }}

{{/* The kept objects that are left alone, one to a line, as kubectl names them. */}}
{{- define "trivet.leftAlone" -}}
{{- $root := . }}
{{- if .Values.crds.enabled }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $name := ($root.Files.Get $path | fromYaml).metadata.name }}
{{- if include "trivet.foreign" (list $root "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name) }}
customresourcedefinition/{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- $namespace := .Release.Namespace }}
{{- range $name := list "trivet-proxy" "trivet-retirement" }}
{{- if include "trivet.foreign" (list $root "v1" "ServiceAccount" $namespace $name) }}
serviceaccount/{{ $name }}
{{- end }}
{{- range $kind := list "Role" "RoleBinding" }}
{{- if include "trivet.foreign" (list $root "rbac.authorization.k8s.io/v1" $kind $namespace $name) }}
{{ lower $kind }}/{{ $name }}
{{- end }}
{{- end }}
{{- range $kind := list "ClusterRole" "ClusterRoleBinding" }}
{{- if include "trivet.foreign" (list $root "rbac.authorization.k8s.io/v1" $kind "" $name) }}
{{ lower $kind }}/{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "trivet.foreign" (list $root "batch/v1" "CronJob" $namespace "trivet-retirement") }}
cronjob/trivet-retirement
{{- end }}
{{- if .Values.admissionPolicies.enabled }}
{{- range $kind := list "ValidatingAdmissionPolicy" "ValidatingAdmissionPolicyBinding" }}
{{- range $name := include "trivet.policies" $root | fromJsonArray }}
{{- if include "trivet.foreign" (list $root "admissionregistration.k8s.io/v1" $kind "" $name) }}
{{ lower $kind }}/{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
