"""Errors in the form in which callers may see them; the one place where unexpected ones are hidden."""

from __future__ import annotations

import structlog

from service.errors import PosegateError
from service.telemetry.call_context import current

_log = structlog.get_logger()


def caller_error(error: Exception) -> PosegateError:
    """The error itself if it belongs to the domain. Any other is logged with its traceback and replaced by a
    generic INTERNAL error that carries only the request id."""
    if isinstance(error, PosegateError):
        return error
    _log.error("internal_error", exc_info=error)
    return PosegateError("internal error", reason="INTERNAL", metadata={"request_id": current().request_id})
