"""SkeletonService."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2_grpc
from service.core.geometry import Rgb8
from service.core.plan import allow
from service.core.skeleton.template import Keypoint, Skeleton
from service.core.skeleton.validation import nfc, shown, skeleton_problems
from service.errors import AlreadyExists, NotAllowed, QuotaExceeded
from service.media.cost import LARGE_PIXELS
from service.media.loading import Decode, Load, in_thread
from service.pipeline.concurrency import run
from service.pipeline.export import ExportFormat, export_files
from service.pipeline.limits import Limits
from service.pipeline.render import render
from service.servicers.context import Context
from service.servicers.requests.export import read_format, read_images, read_visible_score
from service.servicers.requests.images import loader
from service.servicers.requests.render import read_drawing, read_persons
from service.servicers.requests.skeleton_lookup import SkeletonLookup
from service.servicers.requests.skeletons import read_skeleton
from service.servicers.requests.validation import Violations, read_page
from service.servicers.responses.export import exported_file
from service.servicers.responses.overlays import overlay_message
from service.servicers.responses.skeletons import skeleton_message
from service.skeletons.format import skeleton_data
from service.store.skeletons import KeptSkeleton, SkeletonStore, not_found
from service.telemetry.call_context import StageTimer, current

# Well below the 4 MB that a gRPC client takes by default, with room for the last one.
_PAGE_CHARACTERS = 1_000_000
_LARGE_BYTES = 1_000_000  # of persons to export, which take a second for 10 MB


class Slot(Protocol):
    """Port: a slot for work in a worker thread, shared fairly with the images of all callers."""

    def __call__(
        self, timer: StageTimer, *, large: bool = False
    ) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Wait for one, and hold it for the time of the block; `large` work takes a thread for long."""


class SkeletonServicer(skeleton_service_pb2_grpc.SkeletonServiceServicer):
    """RPC methods of SkeletonService: stores skeletons, draws and exports persons.

    Args:
        store: custom skeletons.
        shipped: skeletons that come with the service, by name.
        skeletons: skeletons by name.
        workers: threads for CPU work.
        waiting: threads for images that another process decodes.
        slot: held for drawing and exporting, so that no caller takes all threads from the others.
        limits: of drawing and exporting.
        decode: how images are decoded.
    """

    def __init__(
        self,
        store: SkeletonStore,
        shipped: Mapping[str, Skeleton],
        skeletons: SkeletonLookup,
        workers: Executor,
        waiting: Executor,
        slot: Slot,
        limits: Limits,
        decode: Decode = in_thread,
    ) -> None:
        self._decode = decode
        self._store = store
        self._skeletons = skeletons
        self._workers = workers
        self._waiting = waiting
        self._slot = slot
        self._limits = limits
        self._shipped = {name: _shipped_message(shipped[name]) for name in sorted(shipped)}

    async def ListSkeletons(
        self, request: pb.ListSkeletonsRequest, context: Context
    ) -> pb.ListSkeletonsResponse:
        """List the shipped skeletons, then the tenant's own, both by name, a page at a time."""
        violations = Violations()
        _, length = read_page(violations, request.page_size, "")
        start = _read_token(violations, request.page_token)
        violations.raise_any()
        page: list[pb.Skeleton] = []
        if not start.custom:
            names = [name for name in self._shipped if name > start.after]
            page = [self._shipped[name] for name in names[:length]]
            start = _Place(custom=len(names) <= length, after=page[-1].name if len(names) > length else "")
        more = True
        if start.custom and len(page) < length:
            kept, more = await self._store.page(
                current().tenant,
                after=start.after,
                length=length - len(page),
                max_size=_PAGE_CHARACTERS,
            )
            page += await asyncio.to_thread(lambda: [_kept_message(one) for one in kept])
            start = _Place(custom=True, after=page[-1].name if kept else start.after)
        return pb.ListSkeletonsResponse(skeletons=page, next_page_token=_token(start) if more else "")

    async def GetSkeleton(self, request: pb.GetSkeletonRequest, context: Context) -> pb.GetSkeletonResponse:
        """Give one skeleton."""
        name = _read_name(request.name)
        if name in self._shipped:
            return pb.GetSkeletonResponse(skeleton=self._shipped[name])
        kept = await self._store.get(current().tenant, name)
        if kept is None:
            raise not_found(name)
        return pb.GetSkeletonResponse(skeleton=await asyncio.to_thread(_kept_message, kept))

    async def CreateSkeleton(
        self, request: pb.CreateSkeletonRequest, context: Context
    ) -> pb.CreateSkeletonResponse:
        """Store a new skeleton."""
        skeleton = await _read(request.skeleton, present=request.HasField("skeleton"))
        if skeleton.name in self._shipped:
            raise AlreadyExists(
                f"{shown(skeleton.name)} comes with the service: choose another name.",
                reason="SKELETON_EXISTS",
                metadata={"skeleton": skeleton.name},
            )
        plan = current().plan
        allow(plan, "max_skeletons", 1)
        try:
            kept = await self._store.create(
                current().tenant, skeleton, at_most=plan.max_skeletons if plan is not None else None
            )
        except QuotaExceeded as error:
            allow(plan, "max_skeletons", int(error.metadata["actual"]))
            raise
        return pb.CreateSkeletonResponse(skeleton=await asyncio.to_thread(_kept_message, kept))

    async def UpdateSkeleton(
        self, request: pb.UpdateSkeletonRequest, context: Context
    ) -> pb.UpdateSkeletonResponse:
        """Replace a custom skeleton as a whole."""
        skeleton = await _read(request.skeleton, present=request.HasField("skeleton"))
        self._check_custom(skeleton.name)
        kept = await self._store.update(current().tenant, skeleton, etag=request.skeleton.etag)
        return pb.UpdateSkeletonResponse(skeleton=await asyncio.to_thread(_kept_message, kept))

    async def DeleteSkeleton(
        self, request: pb.DeleteSkeletonRequest, context: Context
    ) -> pb.DeleteSkeletonResponse:
        """Delete a custom skeleton."""
        name = _read_name(request.name)
        self._check_custom(name)
        await self._store.delete(current().tenant, name, etag=request.etag)
        return pb.DeleteSkeletonResponse()

    async def RenderPoses(self, request: pb.RenderPosesRequest, context: Context) -> pb.RenderPosesResponse:
        """Draw given persons on an image or a canvas."""
        violations, limits, call = Violations(), self._limits, current()
        drawing = read_drawing(violations, request, limits)
        skeleton = await self._skeletons.named(violations, call.tenant, request.skeleton)
        persons = await run(self._workers, read_persons, violations, request, skeleton, limits)
        assert drawing.overlay is not None  # noqa: S101 - there is a default, and a wrong one was raised
        if drawing.canvas is not None:
            load, threads = drawing.canvas.load, self._workers
            large = math.prod(drawing.canvas.size_wh) >= LARGE_PIXELS
        else:
            loading = await loader(request.image, limits, self._decode)
            load, threads = _whole(loading), self._waiting if loading.waits else self._workers
            large = loading.large
        with call.stage_timer() as timer:
            async with self._slot(timer, large=large):
                overlay = await run(
                    threads,
                    render,
                    load,
                    persons.poses,
                    persons.numbers,
                    skeleton,
                    drawing.overlay,
                    timer,
                )
        return pb.RenderPosesResponse(overlay=overlay_message(overlay))

    async def ExportPoses(self, request: pb.ExportPosesRequest, context: Context) -> pb.ExportPosesResponse:
        """Write given persons as files."""
        violations = Violations()
        format_, visible_score = read_format(violations, request), read_visible_score(violations, request)
        skeleton = await self._skeletons.named(violations, current().tenant, request.skeleton)
        async with self._slot(StageTimer(), large=request.ByteSize() >= _LARGE_BYTES):
            return await run(
                self._workers, self._export, violations, request, skeleton, format_, visible_score
            )

    def _export(
        self,
        violations: Violations,
        request: pb.ExportPosesRequest,
        skeleton: Skeleton,
        format_: ExportFormat,
        visible_score: float,
    ) -> pb.ExportPosesResponse:
        """For a worker thread."""
        images = read_images(violations, request, skeleton, format_)
        max_bytes = self._limits.max_message_bytes
        files = export_files(images, skeleton, format_, visible_score=visible_score, max_bytes=max_bytes)
        return pb.ExportPosesResponse(files=[exported_file(file) for file in files])

    def _check_custom(self, name: str) -> None:
        if name in self._shipped:
            raise NotAllowed(
                f"{shown(name)} comes with the service and cannot be changed: make one of another name.",
                reason="SKELETON_SHIPPED",
                metadata={"skeleton": name},
            )


@dataclass(frozen=True)
class _Place:
    """Where a page begins: beyond `after`, among the shipped or among the custom ones.

    A name and not a number, so that what is made or removed meanwhile shifts nothing.
    """

    custom: bool = False
    after: str = ""


def _token(place: _Place) -> str:
    text = bytes([place.custom]) + place.after.encode()
    return base64.urlsafe_b64encode(zlib.crc32(text).to_bytes(4, "big") + text).decode("ascii")


def _read_token(violations: Violations, token: str) -> _Place:
    if not token:
        return _Place()
    try:
        data = base64.b64decode(token, altchars="-_", validate=True)
        custom, after = data[4], data[5:].decode()
    except (binascii.Error, ValueError, IndexError):
        custom, after = 2, ""
    place = _Place(custom=custom == 1, after=after)
    if token != _token(place):
        violations.add("page_token", "must be a next_page_token of the page before, or empty")
    return place


def _read_name(name: str) -> str:
    violations = Violations()
    for problem in skeleton_problems(
        Skeleton(name, "", (Keypoint("point"),))
    ):  # of which only the name can be
        violations.add(problem.field, problem.description)
    violations.raise_any()
    return nfc(name)


def _whole(load: Load) -> Callable[[], Rgb8]:
    """Function that gives the upright image (H, W, 3) at its own size; to be called in a worker thread."""
    return lambda: load(None).pixels


async def _read(message: pb.Skeleton, *, present: bool) -> Skeleton:
    violations = Violations()
    if not present:
        violations.add("skeleton", "must be set")
    violations.raise_any()
    return await asyncio.to_thread(read_skeleton, message, "skeleton.")


def _shipped_message(skeleton: Skeleton) -> pb.Skeleton:
    message = skeleton_message(skeleton)
    message.shipped = True
    message.etag = hashlib.sha256(json.dumps(skeleton_data(skeleton)).encode()).hexdigest()[:32]
    return message


def _kept_message(kept: KeptSkeleton) -> pb.Skeleton:
    message = skeleton_message(kept.skeleton)
    message.etag = kept.etag
    message.create_time.FromDatetime(kept.create_time)
    message.update_time.FromDatetime(kept.update_time)
    return message
