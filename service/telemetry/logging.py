"""Log lines: an event with fields, JSON or for a terminal, on stderr. Never image data or keys."""

from __future__ import annotations

import logging
import sys

import structlog

from service.settings import Settings
from service.telemetry.line_writer import Lines, LineWriter

CALLS = "calls"
"""Name of the logger whose lines are written soon: one for every call."""


def configure(settings: Settings) -> None:
    """Set up structlog for the process."""
    # Without local variables in stacks: they hold requests, and so images of people and keys.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if settings.log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "json":
        stacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(stacks))
    writer = LineWriter(sys.stderr)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level.upper()]
        ),
        logger_factory=lambda *name: Lines(writer.write_soon if name == (CALLS,) else writer.write),
        cache_logger_on_first_use=True,
    )
