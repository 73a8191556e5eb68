"""`POST /detect`: joint angles of the largest person in an image."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.web import answers
from service.web.body import Held
from service.web.door import Door
from service.web.fields import Fields
from service.web.form import only_image, read_form
from service.web.gateway import caller_of
from service.web.measurements import BY_NAME
from service.web.problems import Problem

SIDES = {"left": types_pb2.SIDE_LEFT, "right": types_pb2.SIDE_RIGHT, "both": types_pb2.SIDE_BOTH}
FACINGS = {
    "auto": pb.FACING_UNSPECIFIED,
    "toward": pb.FACING_TOWARD_CAMERA,
    "away": pb.FACING_AWAY_FROM_CAMERA,
    "left": pb.FACING_IMAGE_LEFT,
    "right": pb.FACING_IMAGE_RIGHT,
}
NAMES = {"measurements": "measurement", "model_version": "version"}
"""Fields of the contract by their names in HTTP."""

_NOBODY = "NO_PERSON"


class DetectCalls:
    """Joint angles.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def detect(self, request: Request) -> Response:
        """One image, one or several measurements."""
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
                    door.gateway.pose.MeasureAngles, rpc_request, caller_of(request), pb.MeasureAnglesResponse
                )
            except Problem as problem:
                raise problem.renamed(NAMES) from problem
            return answers.json_response(
                measured(answered.message, rpc_request.measurements), headers=answered.headers
            )


def read_options(fields: Fields) -> pb.MeasureAnglesRequest:
    """The options of the call; what is wrong is noted in the fields."""
    rpc_request = pb.MeasureAnglesRequest(
        measurements=fields.measurements(),
        side=fields.choice("side", SIDES, types_pb2.SIDE_BOTH),
        model=fields.text("model"),
        model_version=fields.text("version"),
        facing=fields.choice("facing", FACINGS, pb.FACING_UNSPECIFIED),
        mirrored=fields.flag("mirrored") or False,
        camera_roll_deg=fields.number("camera_roll", -180, 180) or 0.0,
        min_score=fields.number("min_score", 0, 1),
        overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG),
    )
    distinct = {name.lower() for name in rpc_request.measurements}
    rpc_request.overlay_mode = (
        pb.ANGLE_OVERLAY_MODE_BOTH if len(distinct) > 1 else pb.ANGLE_OVERLAY_MODE_COMBINED
    )
    return rpc_request


def measured(answer: pb.MeasureAnglesResponse, asked: list[str] | Any) -> dict[str, Any]:
    """The answer, with the names of the product's fields."""
    combined = _image(answer.overlay) if answer.HasField("overlay") else None
    document: dict[str, Any] = {
        "status": "ok",
        "image": combined or {"data": None, **answers.size(answer.image_size)},
        "measurements": [],
        "model": answer.model,
        "model_version": answer.model_version,
    }
    if not answer.persons:
        names = dict.fromkeys(name.lower() for name in asked)
        document["measurements"] = [_without_person(name) for name in names]
        return document
    for one in answer.persons[0].measurements:
        sides = {side: getattr(one, side) if one.HasField(side) else None for side in ("left", "right")}
        document["measurements"].append(
            {
                "name": one.name,
                "title": one.title,
                "bodyPart": one.body_part.capitalize(),
                "value": {
                    side: None if value is None else answers.degrees(value, 1)
                    for side, value in sides.items()
                },
                "std_error": {
                    side: None if value is None else answers.std_error(value) for side, value in sides.items()
                },
                "status": {
                    side: None if value is None else answers.status(value) for side, value in sides.items()
                },
                "reasons": {
                    side: [] if value is None else list(value.reasons) for side, value in sides.items()
                },
                "image": _image(one.overlay) if one.HasField("overlay") else combined,
            }
        )
    return document


def _without_person(name: str) -> dict[str, Any]:
    known = BY_NAME.get(name)
    return {
        "name": name,
        "title": known.title if known else name,
        "bodyPart": known.body_part if known else "",
        "value": {"left": None, "right": None},
        "std_error": {"left": None, "right": None},
        "status": {"left": "UNAVAILABLE", "right": "UNAVAILABLE"},
        "reasons": {"left": [_NOBODY], "right": [_NOBODY]},
        "image": None,
    }


def _image(overlay: types_pb2.Overlay) -> dict[str, Any]:
    return {"data": answers.data_uri(overlay), **answers.size(overlay.size)}
