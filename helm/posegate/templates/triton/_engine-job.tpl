{{/* What the Job that builds engines does. */}}
{{- define "posegate.engineJobSpec" -}}
{{- $t := .Values.triton -}}{{- $e := .Values.engines -}}
backoffLimit: 2
activeDeadlineSeconds: {{ $e.timeoutSeconds }}
completions: 1
parallelism: 1
template:
  metadata:
    labels:
      {{- include "posegate.selector" (list . "engines") | nindent 6 }}
  spec:
    {{- with include "posegate.pullSecrets" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    restartPolicy: Never
    serviceAccountName: {{ include "posegate.serviceAccount" . }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    securityContext:
      {{- include "posegate.podSecurity" 1000 | nindent 6 }}
    containers:
      - name: build
        image: {{ include "posegate.image" (list . $e.image) | quote }}
        imagePullPolicy: {{ $e.image.pullPolicy }}
        args:
          {{- include "posegate.engineBuildArguments" . | nindent 10 }}
        securityContext:
          {{- include "posegate.containerSecurity" . | nindent 10 }}
        env:
          - {name: HOME, value: /tmp}
        resources:
          {{- include "posegate.gpuResources" (list $e.resources $t.gpu) | nindent 10 }}
        volumeMounts:
          - {name: models, mountPath: /models}
          - {name: tmp, mountPath: /tmp}
    # The nodes that Triton runs on: an engine fits the GPU that it was built on.
    {{- with include "posegate.gpuPlacement" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $e.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    volumes:
      - name: models
        {{- include "posegate.modelsVolume" . | nindent 8 }}
      - name: tmp
        emptyDir:
          sizeLimit: 8Gi
{{- end -}}
