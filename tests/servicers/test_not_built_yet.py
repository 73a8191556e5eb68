"""What the contract promises for later answers UNIMPLEMENTED, in a plain sentence."""

import re
from typing import Any

import grpc
import pytest

from posegate.v1 import skeleton_service_pb2 as sk
from tests.running import Service, failure


@pytest.mark.parametrize(
    ("stub", "method", "request_"),
    [
        ("skeletons", "ListSkeletons", sk.ListSkeletonsRequest()),
        ("skeletons", "GetSkeleton", sk.GetSkeletonRequest()),
        ("skeletons", "CreateSkeleton", sk.CreateSkeletonRequest()),
        ("skeletons", "UpdateSkeleton", sk.UpdateSkeletonRequest()),
        ("skeletons", "DeleteSkeleton", sk.DeleteSkeletonRequest()),
        ("skeletons", "RenderPoses", sk.RenderPosesRequest()),
        ("skeletons", "ExportPoses", sk.ExportPosesRequest()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_it_says_so_in_a_sentence(service: Service, stub: str, method: str, request_: Any) -> None:
    failed = await failure(getattr(getattr(service, stub), method)(request_, timeout=10))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED
    assert (failed.reason, failed.domain) == ("UNIMPLEMENTED", "posegate")
    assert re.fullmatch(rf"{method} is not built yet[.:].*", failed.message)
    assert failed.message.endswith(".")
    assert failed.initial["x-request-id"] == failed.request_id
