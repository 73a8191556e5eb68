"""Type of the context that grpc hands to an RPC method."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # as text: generic in its stubs only
