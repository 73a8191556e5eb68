{{/* Envoy's configuration. The descriptor is beside it, in the same ConfigMap. */}}
{{- define "posegate.envoyConfig" -}}
{{- $e := .Values.envoy -}}
{{- $tls := .Values.gateway.tls -}}
# Nobody administers this Envoy over the network; /ready and the statistics have a listener of their own.
admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 9901}
static_resources:
  listeners:
    - name: callers
      address:
        socket_address: {{ include "posegate.envoyAddress" . }}, port_value: 8080}
      # An image has to fit as a whole: the transcoder reads all of a request before it sends any.
      per_connection_buffer_limit_bytes: {{ int64 $e.maxRequestBytes }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: callers
                codec_type: AUTO
                use_remote_address: true
                # Ours or the caller's: it is in every answer and in the gateway's log.
                generate_request_id: true
                preserve_external_request_id: true
                always_set_request_id_in_response: true
                request_headers_timeout: 10s
                stream_idle_timeout: {{ $e.timeoutSeconds }}s
                common_http_protocol_options:
                  idle_timeout: 300s
                  headers_with_underscores_action: REJECT_REQUEST
                http2_protocol_options:
                  max_concurrent_streams: 100
                  initial_stream_window_size: 1048576
                  initial_connection_window_size: 4194304
                route_config:
                  name: gateway
                  virtual_hosts:
                    - name: gateway
                      domains: ["*"]
                      {{- if $e.allowedOrigins }}
                      typed_per_filter_config:
                        envoy.filters.http.cors:
                          "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                          allow_origin_string_match:
                            {{- range $e.allowedOrigins }}
                            - exact: {{ . | quote }}
                            {{- end }}
                          allow_methods: POST, OPTIONS
                          allow_headers: authorization, content-type, grpc-timeout, x-api-key, x-grpc-web, x-request-id, x-user-agent
                          expose_headers: grpc-message, grpc-status, grpc-status-details-bin, ratelimit-limit, ratelimit-remaining, ratelimit-reset, x-request-id
                          max_age: "86400"
                      {{- end }}
                      routes:
                        # gRPC, of which gRPC-Web is one, streams. JSON is read as a whole, up to the limit.
                        - match:
                            prefix: /posegate.v1.
                            headers: [{name: content-type, string_match: {prefix: application/grpc}}]
                          typed_per_filter_config:
                            envoy.filters.http.buffer:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
                              disabled: true
                          route: &to_gateway
                            cluster: gateway
                            timeout: 0s # the deadline below decides
                            max_stream_duration:
                              max_stream_duration: {{ $e.timeoutSeconds }}s
                              grpc_timeout_header_max: {{ $e.timeoutSeconds }}s
                            # Only what was refused before any work was done.
                            retry_policy:
                              retry_on: unavailable,reset-before-request,connect-failure
                              num_retries: 2
                              per_try_timeout: 0s
                        - match: {prefix: /posegate.v1.}
                          route: *to_gateway
                        - match: {path: /grpc.health.v1.Health/Check}
                          route: *to_gateway
                http_filters:
                  - name: envoy.filters.http.cors
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors
                  - name: envoy.filters.http.grpc_web
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb
                  - name: envoy.filters.http.buffer
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: {{ int64 $e.maxRequestBytes }}
                  # POST /posegate.v1.PoseService/DetectPoses with JSON. gRPC and gRPC-Web pass untouched.
                  - name: envoy.filters.http.grpc_json_transcoder
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
                      proto_descriptor: /etc/envoy/posegate.binpb
                      services: [posegate.v1.PoseService, posegate.v1.SkeletonService, posegate.v1.AccountService]
                      auto_mapping: true
                      convert_grpc_status: true
                      request_validation_options:
                        reject_unknown_method: true
                        reject_unknown_query_parameters: true
                      max_request_body_size: {{ int64 $e.maxRequestBytes }}
                      max_response_body_size: {{ int64 $e.maxRequestBytes }}
                      print_options:
                        always_print_primitive_fields: true
                  - name: envoy.filters.http.grpc_stats
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig
                      emit_filter_state: false
                      stats_for_all_methods: true
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                      suppress_envoy_headers: true
    - name: probes
      address:
        socket_address: {{ include "posegate.envoyAddress" . }}, port_value: 8081}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: probes
                route_config:
                  virtual_hosts:
                    - name: probes
                      domains: ["*"]
                      routes:
                        - match: {path: /ready}
                          route: {cluster: self}
                        - match: {path: /stats/prometheus}
                          route: {cluster: self}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: gateway
      # Headless: every pod is an address, and each call goes to the one with the fewest under way.
      type: STRICT_DNS
      dns_lookup_family: ALL
      connect_timeout: 2s
      lb_policy: LEAST_REQUEST
      per_connection_buffer_limit_bytes: {{ int64 $e.maxRequestBytes }}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options:
              initial_stream_window_size: 1048576
              initial_connection_window_size: 16777216
              connection_keepalive: {interval: 30s, timeout: 10s}
      # A pod that drains says NOT_SERVING before it closes.
      health_checks:
        - timeout: 2s
          interval: 5s
          no_traffic_interval: 5s
          unhealthy_threshold: 2
          healthy_threshold: 1
          grpc_health_check: {service_name: posegate.v1.PoseService}
      common_lb_config:
        # With nobody healthy a refusal is the truth.
        healthy_panic_threshold: {value: 0}
      {{- if $tls.enabled }}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {{ include "posegate.fullname" . }}-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
          common_tls_context:
            alpn_protocols: [h2]
            {{- if $tls.mutual }}
            tls_certificates:
              - certificate_chain: {filename: /etc/envoy/tls/tls.crt}
                private_key: {filename: /etc/envoy/tls/tls.key}
                watched_directory: {path: /etc/envoy/tls}
            {{- end }}
            validation_context:
              trusted_ca: {filename: /etc/envoy/tls/ca.crt}
              watched_directory: {path: /etc/envoy/tls}
              match_typed_subject_alt_names:
                - san_type: DNS
                  matcher: {exact: {{ include "posegate.fullname" . }}-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}}
      {{- end }}
      load_assignment:
        cluster_name: gateway
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address:
                      address: {{ include "posegate.fullname" . }}-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
                      port_value: 50051
    - name: self
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: self
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {address: 127.0.0.1, port_value: 9901}
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: 2000
{{- end -}}

{{/* The beginning of an address; an IPv6 one takes IPv4 as well. */}}
{{- define "posegate.envoyAddress" -}}
{{- if eq .Values.gateway.bindAddress "[::]" -}}
{address: "::", ipv4_compat: true
{{- else -}}
{address: {{ .Values.gateway.bindAddress }}
{{- end -}}
{{- end -}}
