{{/* Values that contradict each other, each with what to change. All of them are told at once. */}}
{{- define "posegate.guards" -}}
{{- $v := .Values -}}{{- $g := .Values.gateway -}}{{- $t := .Values.triton -}}{{- $m := .Values.models -}}{{- $e := .Values.engines -}}
{{- $wrong := list -}}

{{- /* where Triton is */ -}}
{{- if and $g.bundledTriton $t.enabled -}}
{{- $wrong = append $wrong "gateway.bundledTriton and triton.enabled are both true: the gateway talks to one Triton; set one of them to false" -}}
{{- end -}}
{{- if and $g.tritonUrl (or $g.bundledTriton $t.enabled) -}}
{{- $wrong = append $wrong (printf "gateway.tritonUrl is %q, but the chart runs a Triton itself: empty it, or set triton.enabled and gateway.bundledTriton to false" $g.tritonUrl) -}}
{{- end -}}
{{- if not (or $g.bundledTriton $t.enabled $g.tritonUrl) -}}
{{- $wrong = append $wrong "there is no Triton: set triton.enabled, gateway.bundledTriton or gateway.tritonUrl" -}}
{{- end -}}

{{- /* stopping */ -}}
{{- $bundled := ternary 15 0 $g.bundledTriton -}}
{{- $delay := $g.settings.DRAIN_DELAY_S | default 0.5 | float64 | ceil | int -}}
{{- $needed := add $g.preStopSeconds $delay $g.drainGraceSeconds $bundled 4 -}}
{{- if lt (int $g.terminationGracePeriodSeconds) (int $needed) -}}
{{- $wrong = append $wrong (printf "gateway.terminationGracePeriodSeconds is %v, less than preStopSeconds %v + DRAIN_DELAY_S %v + drainGraceSeconds %v%s + 4 to close: at least %v" $g.terminationGracePeriodSeconds $g.preStopSeconds $delay $g.drainGraceSeconds (ternary " + 15 for the bundled Triton" "" $g.bundledTriton) $needed) -}}
{{- end -}}
{{- $needed = add $t.preStopSeconds $t.exitTimeoutSeconds 5 -}}
{{- if and $t.enabled (lt (int $t.terminationGracePeriodSeconds) (int $needed)) -}}
{{- $wrong = append $wrong (printf "triton.terminationGracePeriodSeconds is %v, less than preStopSeconds %v + exitTimeoutSeconds %v + 5 to unload: at least %v" $t.terminationGracePeriodSeconds $t.preStopSeconds $t.exitTimeoutSeconds $needed) -}}
{{- end -}}
{{- $needed = add $v.envoy.preStopSeconds $v.envoy.timeoutSeconds 5 -}}
{{- if and $v.envoy.enabled (lt (int $v.envoy.terminationGracePeriodSeconds) (int $needed)) -}}
{{- $wrong = append $wrong (printf "envoy.terminationGracePeriodSeconds is %v, less than preStopSeconds %v + timeoutSeconds %v + 5: at least %v" $v.envoy.terminationGracePeriodSeconds $v.envoy.preStopSeconds $v.envoy.timeoutSeconds $needed) -}}
{{- end -}}

{{- if and $v.web.enabled $v.web.ingress.enabled (not $v.web.ingress.host) -}}
{{- $wrong = append $wrong "web.ingress.enabled needs web.ingress.host: the name that callers use" -}}
{{- end -}}

{{- /* scaling */ -}}
{{- if and $g.autoscaling.enabled (gt (int $g.autoscaling.minReplicas) (int $g.autoscaling.maxReplicas)) -}}
{{- $wrong = append $wrong (printf "gateway.autoscaling: minReplicas %v is above maxReplicas %v" $g.autoscaling.minReplicas $g.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if and $g.autoscaling.enabled (not (dig "requests" "cpu" "" $g.resources)) -}}
{{- $wrong = append $wrong "gateway.autoscaling needs gateway.resources.requests.cpu: the target is a share of it" -}}
{{- end -}}
{{- $tritonPods := int $t.replicas -}}
{{- if ne $t.autoscaling.kind "none" -}}
{{- $tritonPods = int $t.autoscaling.maxReplicas -}}
{{- if gt (int $t.autoscaling.minReplicas) (int $t.autoscaling.maxReplicas) -}}
{{- $wrong = append $wrong (printf "triton.autoscaling: minReplicas %v is above maxReplicas %v" $t.autoscaling.minReplicas $t.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if not $t.enabled -}}
{{- $wrong = append $wrong (printf "triton.autoscaling.kind is %s, but triton.enabled is false" $t.autoscaling.kind) -}}
{{- end -}}
{{- if and (eq $t.autoscaling.kind "keda") (not $t.autoscaling.prometheusAddress) -}}
{{- $wrong = append $wrong "triton.autoscaling.kind is keda: triton.autoscaling.prometheusAddress must say where Prometheus is" -}}
{{- end -}}
{{- if and (eq $t.autoscaling.kind "keda") (or (lt (int $t.autoscaling.fallbackReplicas) (int $t.autoscaling.minReplicas)) (gt (int $t.autoscaling.fallbackReplicas) (int $t.autoscaling.maxReplicas))) -}}
{{- $wrong = append $wrong (printf "triton.autoscaling.fallbackReplicas %v is not between minReplicas %v and maxReplicas %v" $t.autoscaling.fallbackReplicas $t.autoscaling.minReplicas $t.autoscaling.maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- if and $t.enabled (eq (int $t.maxSurge) 0) (eq (int $t.maxUnavailable) 0) -}}
{{- $wrong = append $wrong "triton.maxSurge and triton.maxUnavailable are both 0: no rollout could ever begin" -}}
{{- end -}}

{{- /* memory and disk */ -}}
{{- $limit := dig "limits" "memory" "" $g.resources -}}
{{- $inFlight := $g.settings.MAX_IN_FLIGHT_BYTES | default 536870912 | int64 -}}
{{- $videos := $g.settings.MAX_VIDEO_MEMORY_BYTES | default 1073741824 | int64 -}}
{{- $filled := add (mul 2 $inFlight) $videos 536870912 -}}
{{- if $limit -}}
{{- if lt (int64 (include "posegate.bytes" $limit)) (int64 $filled) -}}
{{- $wrong = append $wrong (printf "gateway.resources.limits.memory %s is less than %d: twice MAX_IN_FLIGHT_BYTES (%d) + MAX_VIDEO_MEMORY_BYTES (%d) of gateway.settings, with which requests alone could fill it, + 512 MiB for the gateway itself" $limit $filled $inFlight $videos) -}}
{{- end -}}
{{- end -}}
{{- $webLimit := dig "limits" "memory" "" $v.web.resources -}}
{{- $webInFlight := $v.web.settings.MAX_IN_FLIGHT_BYTES | default 536870912 | int64 -}}
{{- $webFilled := add (mul 2 $webInFlight) 536870912 -}}
{{- if and $v.web.enabled $webLimit -}}
{{- if lt (int64 (include "posegate.bytes" $webLimit)) (int64 $webFilled) -}}
{{- $wrong = append $wrong (printf "web.resources.limits.memory %s is less than %d: twice MAX_IN_FLIGHT_BYTES (%d) of web.settings, with which bodies alone could fill it, + 512 MiB for the door itself" $webLimit $webFilled $webInFlight) -}}
{{- end -}}
{{- end -}}
{{- $video := $g.settings.MAX_VIDEO_BYTES | default 2000000000 | int64 -}}
{{- $spool := include "posegate.spoolBytes" . | int64 -}}
{{- if lt $spool $video -}}
{{- $wrong = append $wrong (printf "gateway.spoolSize %s leaves %d bytes for videos, less than one of gateway.settings.MAX_VIDEO_BYTES (%d)" $g.spoolSize $spool $video) -}}
{{- end -}}

{{- /* TLS */ -}}
{{- if and $g.tls.enabled (not $g.tls.secretName) -}}
{{- $wrong = append $wrong "gateway.tls.enabled needs gateway.tls.secretName" -}}
{{- end -}}
{{- if and $g.tls.mutual (not $g.tls.enabled) -}}
{{- $wrong = append $wrong "gateway.tls.mutual needs gateway.tls.enabled" -}}
{{- end -}}
{{- if and $v.envoy.enabled $g.tls.enabled (not $v.envoy.upstreamTlsSecretName) -}}
{{- $wrong = append $wrong "envoy.enabled with gateway.tls.enabled needs envoy.upstreamTlsSecretName: ca.crt to trust the gateway, tls.crt and tls.key where TLS is mutual" -}}
{{- end -}}

{{- /* API keys */ -}}
{{- $keys := eq $g.auth.mode "keys" -}}
{{- if and $keys (not $g.database.secretName) -}}
{{- $wrong = append $wrong "gateway.auth.mode is keys, but there is no gateway.database.secretName: each pod would have tenants and keys of its own, and lose them when it ends" -}}
{{- end -}}
{{- if and $keys (eq $g.auth.encryption "tls") (not $g.tls.enabled) -}}
{{- $wrong = append $wrong "gateway.auth.mode is keys, and keys would travel in clear text: set gateway.tls.enabled, or gateway.auth.encryption to mesh where a service mesh encrypts" -}}
{{- end -}}
{{- if and (not $keys) (or $g.auth.plans $g.auth.testSecretName) -}}
{{- $wrong = append $wrong "gateway.auth.plans and gateway.auth.testSecretName are of no effect while gateway.auth.mode is off" -}}
{{- end -}}

{{- /* models and engines */ -}}
{{- if $t.enabled -}}
{{- if and (eq $m.source "image") (not $m.image.reference) -}}
{{- $wrong = append $wrong "models.source is image: models.image.reference must name one" -}}
{{- end -}}
{{- if and (eq $m.source "image") (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $wrong = append $wrong (printf "models.source is image: Kubernetes %s has no image volumes, 1.31 is the first; use claim or objectStore" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $m.source "objectStore") (not $m.objectStore.url) -}}
{{- $wrong = append $wrong "models.source is objectStore: models.objectStore.url must name it" -}}
{{- end -}}
{{- if and (ne $e.build "none") (ne $m.source "claim") -}}
{{- $wrong = append $wrong (printf "engines.build is %s, but models.source %s cannot be written to: use claim, or engines.build none" $e.build $m.source) -}}
{{- end -}}
{{- if and (ne $e.build "none") (eq (int $t.gpu.count) 0) -}}
{{- $wrong = append $wrong (printf "engines.build is %s, but triton.gpu.count is 0: engines need the GPU that they are built for" $e.build) -}}
{{- end -}}
{{- if and (ne $e.build "none") (not $t.gpu.product) -}}
{{- $wrong = append $wrong (printf "engines.build is %s: triton.gpu.product must say for which GPU" $e.build) -}}
{{- end -}}
{{- if and (ne $e.build "none") (not $e.models) -}}
{{- $wrong = append $wrong (printf "engines.build is %s, but engines.models names none" $e.build) -}}
{{- end -}}
{{- if and (ne $e.build "none") (ne $m.folder "gpu") -}}
{{- $wrong = append $wrong (printf "engines.build is %s, but models.folder is %q: the builder writes to gpu; use that, or engines.build none" $e.build $m.folder) -}}
{{- end -}}
{{- if and (eq $e.build "job") (ne $e.verify "enforce") -}}
{{- $wrong = append $wrong (printf "engines.build is job, but engines.verify is %s: only enforce waits for the engines that the Job builds; Triton would start without them" $e.verify) -}}
{{- end -}}
{{- if ne $e.build "none" -}}
{{- range $e.models -}}
{{- if not .sha256 -}}
{{- $wrong = append $wrong (printf "engines.models: %s has no sha256: an engine is known by its ONNX file (sha256sum FILE)" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $m.source "claim" -}}
{{- $shared := or (has "ReadWriteMany" $m.claim.accessModes) (has "ReadOnlyMany" $m.claim.accessModes) -}}
{{- if and (not $shared) (gt $tritonPods 1) -}}
{{- $wrong = append $wrong (printf "models.claim.accessModes is %s, but up to %d Triton pods want the volume: ReadWriteMany, or one pod" ($m.claim.accessModes | join ", ") $tritonPods) -}}
{{- end -}}
{{- if and (eq $e.build "job") (not (has "ReadWriteMany" $m.claim.accessModes)) -}}
{{- $wrong = append $wrong (printf "engines.build is job, but models.claim.accessModes is %s: the Job and Triton want the volume at once; use ReadWriteMany, or engines.build init" ($m.claim.accessModes | join ", ")) -}}
{{- end -}}
{{- if and (eq $e.build "init") (not (or (has "ReadWriteMany" $m.claim.accessModes) (has "ReadWriteOnce" $m.claim.accessModes))) -}}
{{- $wrong = append $wrong (printf "engines.build is init, but models.claim.accessModes %s cannot be written to" ($m.claim.accessModes | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- else if ne $e.build "none" -}}
{{- $wrong = append $wrong (printf "engines.build is %s, but triton.enabled is false: set engines.build to none" $e.build) -}}
{{- end -}}

{{- /* account */ -}}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
{{- $wrong = append $wrong "serviceAccount.create is false: serviceAccount.name must name one of yours" -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThese values contradict each other:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}
