"""SkeletonService."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

import grpc

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2_grpc
from service.errors import Unimplemented

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in its stubs only


class SkeletonServicer(skeleton_service_pb2_grpc.SkeletonServiceServicer):
    """Custom skeletons, rendering and export: not built yet, and every call says so."""

    async def ListSkeletons(self, request: pb.ListSkeletonsRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("ListSkeletons")

    async def GetSkeleton(self, request: pb.GetSkeletonRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("GetSkeleton")

    async def CreateSkeleton(self, request: pb.CreateSkeletonRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("CreateSkeleton")

    async def UpdateSkeleton(self, request: pb.UpdateSkeletonRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("UpdateSkeleton")

    async def DeleteSkeleton(self, request: pb.DeleteSkeletonRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("DeleteSkeleton")

    async def RenderPoses(self, request: pb.RenderPosesRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("RenderPoses")

    async def ExportPoses(self, request: pb.ExportPosesRequest, context: Context) -> NoReturn:
        """Not built yet."""
        _not_built("ExportPoses")


def _not_built(rpc: str) -> NoReturn:
    raise Unimplemented(f"{rpc} is not built yet.")
