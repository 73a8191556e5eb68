"""Whose call it is."""

from __future__ import annotations

from typing import Any

import grpc


def tenant_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The tenant who calls. There are no keys yet: everyone is the same one."""
    return "default"
