"""The names of the metrics that rules, dashboard and autoscalers read: the one place that lists them."""

from __future__ import annotations

# What the gateway exports on its metrics port, with labels.
GATEWAY: dict[str, tuple[str, ...]] = {
    "posegate_requests_total": ("rpc", "code", "reason"),
    "posegate_request_seconds": ("rpc",),  # histogram
    "posegate_stage_seconds": ("stage",),  # histogram
    "posegate_in_flight": (),
    "posegate_admitted_total": (),
    "posegate_shed_total": ("reason",),
    "posegate_request_bytes_total": (),
    "posegate_persons": (),  # histogram
    "posegate_streams": (),
    "posegate_frames_total": (),
    "posegate_triton_up": (),
    "posegate_model_ready": ("model",),
    "posegate_build_info": ("version",),
    "posegate_certificate_expiry_timestamp_seconds": (),
}

# What Triton exports, as its documentation names it.
TRITON = (
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_utilization",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "nv_inference_queue_duration_us",
    "nv_inference_request_failure",
    "nv_inference_request_success",
)

OTHERS = ("container_memory_working_set_bytes", "kube_job_failed")


def series() -> set[str]:
    """Every name that an expression may use."""
    histograms = ("posegate_request_seconds", "posegate_stage_seconds", "posegate_persons")
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    return {*GATEWAY, *TRITON, *OTHERS, *parts} - set(histograms)
