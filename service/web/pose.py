"""`POST /v1/pose` and `POST /v1/pose/batch`: the people in images."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import Violation
from service.web import answers
from service.web.body import Held
from service.web.door import Door
from service.web.fields import Fields
from service.web.form import Form, image_of, only_image, read_form
from service.web.gateway import caller_of
from service.web.problems import Problem, from_status, invalid

NAMES = {"skeleton": "template", "model_version": "version", "overlay.format": "overlay_format"}
"""Fields of the contract by their names in HTTP."""

OVERLAY_FORMATS = {"png": types_pb2.OVERLAY_FORMAT_PNG, "jpeg": types_pb2.OVERLAY_FORMAT_JPEG}


class PoseCalls:
    """The people in images.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def detect(self, request: Request) -> Response:
        """One image."""
        door = self._door
        with Held(door.in_flight) as held:
            form = await read_form(request, ("image",), door.body_limits, held)
            fields = Fields(form.values)
            rpc_request = read_options(fields)
            url = fields.text("image_url")
            fields.check()
            content, uri = only_image(form, "image", {"image_url": url})
            if content is None:
                rpc_request.image.uri = uri
            else:
                rpc_request.image.content = content
            del form, content
            try:
                answered = await door.gateway.call(
                    door.gateway.pose.DetectPoses, rpc_request, caller_of(request), pb.DetectPosesResponse
                )
            except Problem as problem:
                raise problem.renamed(NAMES) from problem
            return answers.json_response(answers.detected(answered.message), headers=answered.headers)

    async def batch(self, request: Request) -> Response:
        """Several images with the same options, each with a result or an error of its own."""
        door = self._door
        with Held(door.in_flight) as held:
            form = await read_form(request, ("images", "image"), door.body_limits, held)
            fields = Fields(form.values)
            rpc_request = read_options(fields)
            fields.check()
            if not form.uploads:
                raise invalid(
                    "No image came: send one or more `images`.", [Violation("images", "is missing")]
                )
            outcomes: list[dict[str, Any]] = [{} for _ in form.uploads]
            batch, places = _requests(form, rpc_request, outcomes, request.state.request_id)
            headers: dict[str, str] = {}
            if places:
                try:
                    answered = await door.gateway.call(
                        door.gateway.pose.BatchDetectPoses,
                        batch,
                        caller_of(request),
                        pb.BatchDetectPosesResponse,
                    )
                except Problem as problem:
                    raise problem.renamed({"requests": "images", **NAMES}) from problem
                headers = answered.headers
                for place, outcome in zip(places, answered.message.responses, strict=True):
                    outcomes[place].update(_outcome(outcome, request.state.request_id))
            return answers.json_response({"results": outcomes}, headers=headers)


def read_options(fields: Fields) -> pb.DetectPosesRequest:
    """The options that both calls have; what is wrong is noted in the fields."""
    rpc_request = pb.DetectPosesRequest(
        skeleton=fields.text("template"),
        model=fields.text("model"),
        model_version=fields.text("version"),
        min_score=fields.number("min_score", 0, 1),
        iou_threshold=fields.number("iou_threshold", 0, 1),
        max_persons=fields.integer("max_persons", 1),
        min_keypoint_score=fields.number("min_keypoint_score", 0),
        include_positions=fields.flag("include_positions") or False,
    )
    overlay_format = fields.choice("overlay_format", OVERLAY_FORMATS, types_pb2.OVERLAY_FORMAT_PNG)
    if fields.flag("return_overlay"):
        rpc_request.overlay.format = overlay_format
    elif fields.given("overlay_format"):
        fields.add("overlay_format", "is of no effect without return_overlay=true")
    return rpc_request


def _requests(
    form: Form, rpc_request: pb.DetectPosesRequest, outcomes: list[dict[str, Any]], request_id: str
) -> tuple[pb.BatchDetectPosesRequest, list[int]]:
    """The batch, and the place of each of its requests; broken base64 fails alone, here."""
    batch, places = pb.BatchDetectPosesRequest(), []
    for place, upload in enumerate(form.uploads):
        if upload.file_name:
            outcomes[place]["name"] = upload.file_name
        try:
            content = image_of(upload, f"images[{place}]")
        except Problem as problem:
            outcomes[place]["error"] = problem.document(request_id)
            continue
        one = batch.requests.add()
        one.CopyFrom(rpc_request)
        one.image.content = content
        places.append(place)
    form.uploads.clear()
    return batch, places


def _outcome(outcome: pb.BatchDetectPosesResult, request_id: str) -> dict[str, Any]:
    if outcome.WhichOneof("outcome") == "error":
        return {"error": from_status(outcome.error).renamed(NAMES).document(request_id)}
    return {"result": answers.detected(outcome.response)}
