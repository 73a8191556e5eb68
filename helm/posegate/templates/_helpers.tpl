{{- define "posegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for the longest suffix, "-engines-" and twelve digits, in a name of 63 characters. */}}
{{- define "posegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- else if contains (include "posegate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "posegate.name" .) | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "posegate.tritonName" -}}{{ include "posegate.fullname" . }}-triton{{- end -}}
{{- define "posegate.envoyName" -}}{{ include "posegate.fullname" . }}-envoy{{- end -}}
{{- define "posegate.webName" -}}{{ include "posegate.fullname" . }}-web{{- end -}}

{{/* What a selector may hold: it can never change. Argument: (list $ "gateway") */}}
{{- define "posegate.selector" -}}
app.kubernetes.io/name: {{ include "posegate.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "posegate.labels" -}}
{{- $root := index . 0 -}}
{{ include "posegate.selector" . }}
app.kubernetes.io/part-of: posegate
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with $root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Argument: (list $ .Values.gateway.image) */}}
{{- define "posegate.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The container hook that keeps a pod answering while its address leaves the endpoints. No shell is needed
     from Kubernetes 1.30 on. Argument: (list $ seconds) */}}
{{- define "posegate.preStop" -}}
{{- $root := index . 0 -}}
{{- if semverCompare ">=1.30.0-0" $root.Capabilities.KubeVersion.Version -}}
sleep:
  seconds: {{ index . 1 }}
{{- else -}}
exec:
  command: [sleep, {{ index . 1 | quote }}]
{{- end -}}
{{- end -}}

{{- define "posegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "posegate.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What an operator may say of every workload. Argument: the workload's values. */}}
{{- define "posegate.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "posegate.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Spread over nodes and zones; each rollout is spread for itself. Argument: (list $ "gateway") */}}
{{- define "posegate.spread" -}}
topologySpreadConstraints:
{{- $arguments := . }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "posegate.selector" $arguments | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Where the gateway finds Triton; a headless Service, so that round_robin sees every pod. */}}
{{- define "posegate.tritonUrl" -}}
{{- if .Values.triton.enabled -}}
dns:///{{ include "posegate.tritonName" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:8001
{{- else -}}
{{ .Values.gateway.tritonUrl }}
{{- end -}}
{{- end -}}

{{/* What an engine depends on: with other engines Triton starts anew. */}}
{{- define "posegate.engineKey" -}}
{{- $engines := .Values.engines -}}
{{- $inputs := dict
      "models" $engines.models
      "tensorrt" $engines.tensorrt
      "gpu" .Values.triton.gpu.product
      "arguments" $engines.arguments -}}
{{- $inputs | toJson | sha256sum | trunc 12 -}}
{{- end -}}

{{/* The Job's name holds a digest of all that is in it, as nothing in a Job can be changed: another model, TensorRT or
     GPU is another Job, and so is another toleration. */}}
{{- define "posegate.engineJobName" -}}
{{ include "posegate.fullname" . }}-engines-{{ print (include "posegate.engineKey" .) (include "posegate.engineJobSpec" .) | sha256sum | trunc 12 }}
{{- end -}}

{{/* Bytes of a memory quantity such as 512Mi. */}}
{{- define "posegate.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- mulf (float64 $number) (float64 (get $units $unit | default 1)) | int64 -}}
{{- end -}}

{{/* Bytes of memory of the gateway: less than the container's limit, which ends it; half of it beside a Triton. */}}
{{- define "posegate.gatewayMemory" -}}
{{- $g := .Values.gateway -}}
{{- mulf (ternary 0.5 0.9 $g.bundledTriton) (include "posegate.bytes" $g.resources.limits.memory | float64) | int64 -}}
{{- end -}}

{{/* Bytes of all uploaded videos at once: less than the volume, because a pod that fills it is evicted. */}}
{{- define "posegate.spoolBytes" -}}
{{- mulf 0.95 (include "posegate.bytes" .Values.gateway.spoolSize | float64) | int64 -}}
{{- end -}}

{{/* The nodes that have the GPU, and the permission to be on them. */}}
{{- define "posegate.gpuPlacement" -}}
{{- $gpu := .Values.triton.gpu -}}
{{- $selector := dict -}}
{{- if and $gpu.product (gt (int $gpu.count) 0) -}}
{{- $selector = dict "nvidia.com/gpu.product" $gpu.product -}}
{{- end -}}
{{- $tolerations := .Values.triton.tolerations -}}
{{- if gt (int $gpu.count) 0 -}}
{{- $tolerations = concat (list (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule")) $tolerations -}}
{{- end -}}
{{- with merge dict $selector .Values.triton.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.triton.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Argument: (dict "requests" ... "limits" ...) and the GPU values; GPUs are limits only. */}}
{{- define "posegate.gpuResources" -}}
{{- $resources := deepCopy (index . 0) -}}{{- $gpu := index . 1 -}}
{{- if gt (int $gpu.count) 0 -}}
{{- $_ := set $resources "limits" (merge (dict $gpu.resource (int $gpu.count)) ($resources.limits | default dict)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Volume that holds the model repository. */}}
{{- define "posegate.modelsVolume" -}}
{{- $models := .Values.models -}}
{{- if eq $models.source "image" -}}
image:
  reference: {{ $models.image.reference | quote }}
  pullPolicy: {{ $models.image.pullPolicy }}
{{- else -}}
persistentVolumeClaim:
  claimName: {{ $models.claim.existing | default (printf "%s-models" (include "posegate.tritonName" .)) }}
{{- end -}}
{{- end -}}

{{- define "posegate.repository" -}}/models/{{ .Values.models.folder }}{{- end -}}

{{/* Arguments of the engines image, whose entry point is `posegate`. */}}
{{- define "posegate.engineBuildArguments" -}}
- models
- build
{{- range .Values.engines.models }}
- {{ .name }}
{{- end }}
- --repository=/models
{{- range .Values.engines.arguments }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What runs in Triton's own image before Triton: the check needs nothing but its Python. */}}
{{- define "posegate.engineVerifyScript" -}}
{{- $e := .Values.engines -}}
{{- $repository := include "posegate.repository" . -}}
{{- if and (eq $e.build "job") (eq $e.verify "enforce") -}}
end=$(( $(date +%s) + {{ $e.waitSeconds }} ))
until python3 -m service.models.verify {{ $repository }}
{{- range $e.models }} &&
  grep -q {{ .sha256 }} {{ $repository }}/{{ .name }}/1/manifest.json
{{- end }}
do
  [ "$(date +%s)" -lt "$end" ] || exit 1
  echo "waiting for the engines that the Job builds"
  sleep 15
done
{{- else -}}
exec python3 -m service.models.verify {{ $repository }}{{ if eq $e.verify "report" }} --report-only{{ end }}
{{- end -}}
{{- end -}}

{{- define "posegate.serviceAccount" -}}
{{- ternary (.Values.serviceAccount.name | default (include "posegate.fullname" .)) .Values.serviceAccount.name .Values.serviceAccount.create -}}
{{- end -}}

{{- define "posegate.toDns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* Probes, where the network asks for that. Argument: (list $ port …) */}}
{{- define "posegate.fromNodes" -}}
{{- $ports := rest . -}}
{{- with (index . 0).Values.networkPolicy.nodeCIDRs }}
- from:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{/* A number, flag or text as an environment variable; whole numbers reach templates as floats. */}}
{{- define "posegate.scalar" -}}
{{- if kindIs "float64" . -}}
{{- ternary (printf "%.0f" .) (toString .) (eq (floor .) .) -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{- define "posegate.tritonBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 30
  policies:
    - {type: Percent, value: 100, periodSeconds: 120}
    - {type: Pods, value: 1, periodSeconds: 120}
  selectPolicy: Max
scaleDown:
  stabilizationWindowSeconds: {{ .Values.triton.autoscaling.scaleDownSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 120}
{{- end -}}

{{/* Envoy's image has no `sleep`: before Kubernetes 1.30 its pods close at once, and callers retry. */}}
{{- define "posegate.envoyPreStop" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
sleep:
  seconds: {{ .Values.envoy.preStopSeconds }}
{{- end -}}
{{- end -}}

{{/* Argument: (list $ summary description); templates in the two are Prometheus's. */}}
{{- define "posegate.annotations" -}}
summary: {{ index . 1 | quote }}
description: {{ index . 2 | quote }}
{{- with (index . 0).Values.metrics.rules.runbookUrl }}
runbook_url: {{ . | quote }}
{{- end }}
{{- end -}}
