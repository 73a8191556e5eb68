"""What is known of the call at hand."""

from __future__ import annotations

import structlog


def request_id() -> str:
    """Its id, as the log has it; empty outside a call."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))
