"""What the service reports of itself: call context, metrics, traces and logs.

May import: OpenTelemetry, Prometheus, structlog; `settings`, `core`, `errors`.
"""
