"""`/v1/skeletons`: templates of named keypoints, drawing and exporting with them."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import Violation
from service.web import answers
from service.web.accept import preferred
from service.web.body import Held, whole
from service.web.door import Door
from service.web.fields import Fields
from service.web.form import Upload, image_of, parsed_object, query_values, unsupported
from service.web.gateway import caller_of
from service.web.pose import OVERLAY_FORMATS
from service.web.problems import Problem, invalid

_FORMATS = {
    "coco": pb.EXPORT_FORMAT_COCO_JSON,
    "yolo": pb.EXPORT_FORMAT_YOLO_TXT,
    "csv": pb.EXPORT_FORMAT_CSV,
}
_NAMES = {"skeleton.": ""}
_SET_BY_SERVICE = ("etag", "shipped", "create_time", "update_time")


class SkeletonCalls:
    """Skeletons.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def list(self, request: Request) -> Response:
        """A page of them."""
        fields = Fields(query_values(request.query_params))
        rpc_request = pb.ListSkeletonsRequest(
            page_size=fields.integer("page_size", 0) or 0, page_token=fields.text("page_token")
        )
        fields.check()
        gateway = self._door.gateway
        answered = await gateway.call(
            gateway.skeletons.ListSkeletons, rpc_request, caller_of(request), pb.ListSkeletonsResponse
        )
        page = {
            "skeletons": [_document(one) for one in answered.message.skeletons],
            "next_page_token": answered.message.next_page_token,
        }
        return answers.json_response(page, headers=answered.headers)

    async def get(self, request: Request) -> Response:
        """One of them."""
        gateway = self._door.gateway
        rpc_request = pb.GetSkeletonRequest(name=_name(request))
        answered = await gateway.call(
            gateway.skeletons.GetSkeleton, rpc_request, caller_of(request), pb.GetSkeletonResponse
        )
        return _answer(answered.message.skeleton, answered.headers)

    async def create(self, request: Request) -> Response:
        """A new one."""
        skeleton = await self._read(request)
        gateway = self._door.gateway
        rpc_request = pb.CreateSkeletonRequest(skeleton=skeleton)
        try:
            answered = await gateway.call(
                gateway.skeletons.CreateSkeleton, rpc_request, caller_of(request), pb.CreateSkeletonResponse
            )
        except Problem as problem:
            raise problem.renamed(_NAMES) from problem
        made = answered.message.skeleton
        location = f"/v1/skeletons/{quote(made.name, safe='')}"
        return _answer(made, {**answered.headers, "location": location}, status=201)

    async def update(self, request: Request) -> Response:
        """Another one in its place."""
        name = _name(request)
        skeleton = await self._read(request)
        if skeleton.name not in ("", name):
            raise invalid(
                f"The body names the skeleton {skeleton.name[:100]!r}, the address {name[:100]!r}.",
                [Violation("name", "differs from the name in the address")],
            )
        skeleton.name = name
        skeleton.etag = _if_match(request)
        gateway = self._door.gateway
        rpc_request = pb.UpdateSkeletonRequest(skeleton=skeleton)
        try:
            answered = await gateway.call(
                gateway.skeletons.UpdateSkeleton, rpc_request, caller_of(request), pb.UpdateSkeletonResponse
            )
        except Problem as problem:
            raise problem.renamed(_NAMES) from problem
        return _answer(answered.message.skeleton, answered.headers)

    async def delete(self, request: Request) -> Response:
        """One less."""
        gateway = self._door.gateway
        rpc_request = pb.DeleteSkeletonRequest(name=_name(request), etag=_if_match(request))
        answered = await gateway.call(
            gateway.skeletons.DeleteSkeleton, rpc_request, caller_of(request), pb.DeleteSkeletonResponse
        )
        return Response(status_code=204, headers=answered.headers)

    async def render(self, request: Request) -> Response:
        """People drawn on an image or a canvas."""
        kind = preferred(request.headers.get("accept", ""), ("application/json", "image/png", "image/jpeg"))
        with Held(self._door.in_flight) as held:
            body = await parsed_object(await self._json_body(request, held))
            rpc_request = _rendering(body, _name(request), kind)
            gateway = self._door.gateway
            try:
                answered = await gateway.call(
                    gateway.skeletons.RenderPoses, rpc_request, caller_of(request), pb.RenderPosesResponse
                )
            except Problem as problem:
                raise problem.renamed({"overlay.": "", "canvas.size.": "canvas."}) from problem
            overlay = answered.message.overlay
            if kind == "application/json":
                image = {"overlay": answers.data_uri(overlay), **answers.size(overlay.size)}
                return answers.json_response(image, headers=answered.headers)
            return Response(overlay.content, media_type=overlay.media_type, headers=answered.headers)

    async def export(self, request: Request) -> Response:
        """People as files for training tools."""
        kind = preferred(request.headers.get("accept", ""), ("application/json", "application/zip"))
        with Held(self._door.in_flight) as held:
            body = await parsed_object(await self._json_body(request, held))
            rpc_request = _exporting(body, _name(request))
            gateway = self._door.gateway
            answered = await gateway.call(
                gateway.skeletons.ExportPoses, rpc_request, caller_of(request), pb.ExportPosesResponse
            )
            files = answered.message.files
            if kind == "application/zip":
                zipped = await asyncio.to_thread(_zipped, files)
                return Response(zipped, media_type="application/zip", headers=answered.headers)
            documents = [
                {"name": one.name, "media_type": one.media_type, "content": one.content.decode()}
                for one in files
            ]
            return answers.json_response({"files": documents}, headers=answered.headers)

    async def _json_body(self, request: Request, held: Held) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise unsupported(kind, "application/json")
        return await whole(request, self._door.body_limits, held)

    async def _read(self, request: Request) -> pb.Skeleton:
        with Held(self._door.in_flight) as held:
            body = await parsed_object(await self._json_body(request, held))
        for name in _SET_BY_SERVICE:
            body.pop(name, None)
        skeleton = pb.Skeleton()
        try:
            ParseDict(body, skeleton)
        except (ParseError, UnicodeEncodeError) as error:
            told = " ".join(str(error).split())[:400]
            raise invalid(
                f"The body is not a skeleton: {told}", [Violation("body", told)], reason="SKELETON_INVALID"
            ) from error
        return skeleton


def _document(skeleton: pb.Skeleton) -> dict[str, Any]:
    document = MessageToDict(
        skeleton, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for point in document["keypoints"]:
        if not point["sources"]:
            del point["sources"]
    return document


def _answer(skeleton: pb.Skeleton, headers: Mapping[str, str], status: int = 200) -> Response:
    etag = {"etag": f'"{skeleton.etag}"'} if skeleton.etag.isascii() else {}
    return answers.json_response(_document(skeleton), status=status, headers={**headers, **etag})


def _name(request: Request) -> str:
    name = str(request.path_params["name"])
    try:
        name.encode()
    except UnicodeEncodeError:
        raise invalid("The name in the address is not UTF-8.", [Violation("name", "is not UTF-8")]) from None
    return name


def _if_match(request: Request) -> str:
    """The etag of If-Match; empty for *, which any version fits."""
    text = request.headers.get("if-match", "").strip()
    if text in ("", "*"):
        return ""
    if "," in text:
        raise invalid("If-Match may name one etag only.", [Violation("if-match", "names several etags")])
    return text.removeprefix("W/").strip('"')


def _rendering(body: dict[str, object], name: str, kind: str) -> pb.RenderPosesRequest:
    persons, image, canvas = body.pop("persons", []), body.pop("image", None), body.pop("canvas", None)
    fields = Fields({key: [_plain(value)] for key, value in body.items()})
    rpc_request = pb.RenderPosesRequest(skeleton=name)
    rpc_request.overlay.format = fields.choice(
        "format", OVERLAY_FORMATS, types_pb2.OVERLAY_FORMAT_UNSPECIFIED
    )
    if kind != "application/json":
        if fields.given("format"):
            fields.add("format", f"does not go with accept: {kind}: leave it out, or accept application/json")
        rpc_request.overlay.format = OVERLAY_FORMATS[kind.removeprefix("image/")]
    for option in ("line_width", "jpeg_quality"):
        value = fields.integer(option, 0)
        if value is not None:
            setattr(rpc_request.overlay, option, value)
    for option in ("boxes", "labels"):
        flag = fields.flag(option)
        if flag is not None:
            setattr(rpc_request.overlay, option, flag)
    least = fields.number("min_keypoint_score", 0)
    if least is not None:
        rpc_request.overlay.min_keypoint_score = least
    rpc_request.persons.extend(_persons(fields, persons, "persons"))
    if (image is None) == (canvas is None):
        fields.add("image", "or canvas must be there, and not both")
    elif isinstance(image, str):
        rpc_request.image.content = image_of(Upload("image", "", image.encode(errors="replace")), "image")
    elif isinstance(canvas, dict):
        rpc_request.canvas.size.CopyFrom(_size(fields, canvas, "canvas"))
        rpc_request.canvas.color = _plain(canvas.get("color", ""))
    else:
        fields.add("image", "must be base64 text, or canvas an object with width and height")
    fields.known("persons", "image", "canvas")
    fields.check()
    return rpc_request


def _exporting(body: dict[str, object], name: str) -> pb.ExportPosesRequest:
    items = body.pop("items", None)
    fields = Fields({key: [_plain(value)] for key, value in body.items()})
    rpc_request = pb.ExportPosesRequest(
        skeleton=name, format=fields.choice("format", _FORMATS, pb.EXPORT_FORMAT_UNSPECIFIED)
    )
    if not rpc_request.format and not fields.violations:
        fields.add("format", f"is missing: one of {', '.join(_FORMATS)}")
    if not isinstance(items, list) or not items:
        fields.add("items", "must be a list of images, each with file_name, image and persons")
        items = []
    for number, item in enumerate(items):
        path = f"items[{number}]"
        if not isinstance(item, dict):
            fields.add(path, "must be an object with file_name, image and persons")
            continue
        image = item.get("image")
        rpc_request.items.add(
            file_name=_plain(item.get("file_name", "")),
            image_size=_size(fields, image if isinstance(image, dict) else {}, f"{path}.image"),
            persons=_persons(fields, item.get("persons", []), f"{path}.persons"),
        )
    fields.known("items")
    fields.check()
    return rpc_request


def _persons(fields: Fields, persons: object, path: str) -> list[types_pb2.Person]:
    """People in the form in which the calls answer them."""
    if not isinstance(persons, list):
        fields.add(path, "must be a list of persons")
        return []
    return [_person(fields, person, f"{path}[{number}]") for number, person in enumerate(persons)]


def _person(fields: Fields, person: object, path: str) -> types_pb2.Person:
    if not isinstance(person, dict):
        fields.add(path, "must be an object with keypoints")
        return types_pb2.Person()
    message = types_pb2.Person()
    points = person.get("keypoints")
    if not isinstance(points, list) or not all(_numbers(point, 3) for point in points):
        fields.add(f"{path}.keypoints", "must be a list of [x, y, score]")
    else:
        message.keypoints.extend(types_pb2.Keypoint(x=x, y=y, score=score) for x, y, score in points)
    box = person.get("box")
    if isinstance(box, list) and _numbers(box, 4):
        x1, y1, x2, y2 = box
        message.box.CopyFrom(types_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2))
    elif box is not None:
        fields.add(f"{path}.box", "must be [x1, y1, x2, y2]")
    score, track = person.get("score"), person.get("track_id")
    if score is not None and _numbers([score], 1):
        message.score = score
    elif score is not None:
        fields.add(f"{path}.score", "must be a number")
    if isinstance(track, int) and not isinstance(track, bool) and 1 <= track < 1 << 31:
        message.track_id = track
    elif track is not None:
        fields.add(f"{path}.track_id", "must be a whole number, 1 or more")
    return message


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(
            isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e30 for one in value
        )
    )


def _size(fields: Fields, size: Mapping[str, object], path: str) -> types_pb2.ImageSize:
    sides = []
    for name in ("width", "height"):
        value = size.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
            fields.add(f"{path}.{name}", "must be a whole number, 1 or more")
            value = 0
        sides.append(value)
    return types_pb2.ImageSize(width=sides[0], height=sides[1])


def _plain(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return text.encode(errors="replace").decode()


def _zipped(files: Any) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in files:
            archive.writestr(one.name, one.content)
    return packed.getvalue()
