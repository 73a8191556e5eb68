"""The description of the API: OpenAPI 3.1, served at /openapi.json and shown at /docs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from service.web.measurements import NAMES
from service.web.schemas import SCHEMAS, Schema, ref

_FILE: Schema = {"type": "string", "format": "binary"}
_FLAG: Schema = {"type": "string", "enum": ["true", "false"], "default": "false"}

_COMMON: dict[str, Schema] = {
    "template": {
        "type": "string",
        "description": "Name of the skeleton to report in; empty: the model's own.",
    },
    "model": {"type": "string", "description": "Name of the model; empty: the service's default."},
    "version": {"type": "string", "description": "Version of the model; empty: the newest that is ready."},
    "min_score": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.25},
    "iou_threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.7},
    "max_persons": {"type": "integer", "minimum": 1, "default": 300},
    "min_keypoint_score": {"type": "number", "minimum": 0, "default": 0},
    "include_positions": {**_FLAG, "description": "Add positions in space where the model gives them."},
}
_POSE: dict[str, Schema] = {
    **_COMMON,
    "return_overlay": {**_FLAG, "description": "Add a drawn image."},
    "overlay_format": {"type": "string", "enum": ["png", "jpeg"], "default": "png"},
}
_ANGLES: dict[str, Schema] = {
    "side": {"type": "string", "enum": ["left", "right", "both"], "default": "both"},
    "facing": {
        "type": "string",
        "enum": ["auto", "toward", "away", "left", "right"],
        "default": "auto",
        "description": "Where the person faces: the camera, away from it, or an edge of the image.",
    },
    "mirrored": {**_FLAG, "description": "The image is a mirror image."},
    "camera_roll": {
        "type": "number",
        "minimum": -180,
        "maximum": 180,
        "default": 0,
        "description": "Degrees by which the camera was turned clockwise, seen from behind it.",
    },
}
_MEASUREMENT: Schema = {
    "type": "string",
    "description": f"One or several, separated by commas, of: {', '.join(NAMES)}.",
    "example": "knee_flexion,splits",
}
_DETECT: dict[str, Schema] = {
    "measurement": _MEASUREMENT,
    "model": _COMMON["model"],
    "version": _COMMON["version"],
    "min_score": _COMMON["min_score"],
    **_ANGLES,
}
_VIDEO: dict[str, Schema] = {
    **_COMMON,
    **_ANGLES,
    "measurement": _MEASUREMENT,
    "every_nth_frame": {"type": "integer", "minimum": 1, "description": "Not with target_fps."},
    "target_fps": {"type": "number", "exclusiveMinimum": 0, "maximum": 240},
    "start": {"type": "number", "minimum": 0, "description": "Seconds to pass over."},
    "end": {"type": "number", "minimum": 0, "description": "Second to stop at."},
    "track": {"type": "string", "enum": ["true", "false"], "default": "true"},
    "smoothing": {**_FLAG, "description": "Add smoothed keypoints and angles."},
    "annotated_video": {
        "type": "string",
        "enum": ["mp4"],
        "description": "Send the video back with what was found drawn on it, in base64 pieces between lines.",
    },
}
_URL: Schema = {
    "type": "string",
    "format": "uri",
    "description": "In place of a file, where the operator allows its host.",
}
_DESCRIPTION = (
    "People, keypoints and joint angles from images, videos and cameras. Coordinates are px of the upright "
    "original, origin top left; left and right are the person's own; scores are the model's own and not "
    "probabilities. Errors are RFC 9457 problem documents. Every answer has x-request-id. Cameras use the "
    "WebSocket /v1/stream: first a text with the options as JSON, then one image a message."
)
_ERRORS = {
    "400": "The request must change.",
    "401": "The key is missing or wrong.",
    "403": "Not allowed.",
    "404": "No such model, version or skeleton.",
    "413": "The body is too large.",
    "415": "The content-type is not accepted.",
    "429": "Too much at once, or the quota is used up; see retry-after.",
    "503": "The service cannot answer now; see retry-after.",
    "504": "The answer took too long.",
}


@cache
def document() -> dict[str, Any]:
    """The description."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    if_match = {
        "name": "if-match",
        "in": "header",
        "schema": {"type": "string"},
        "description": "Etag that was read; without it, or with *, whatever is there is changed.",
    }
    page = [_query("page_size", {"type": "integer", "minimum": 0}), _query("page_token", {"type": "string"})]
    skeleton = _json_body(ref("Skeleton"))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Posegate",
            "version": _version(),
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "tags": [{"name": one} for one in ("Images", "Angles", "Videos", "Skeletons", "Service")],
        "paths": {
            "/v1/pose": {
                "post": _operation(
                    "Images",
                    "pose",
                    "The people in an image",
                    ref("Pose"),
                    body=_image_body("image", _POSE),
                    parameters=_options(_POSE, "with a bare image as the body"),
                )
            },
            "/v1/pose/batch": {
                "post": _operation(
                    "Images",
                    "pose_batch",
                    "The people in several images, each with a result or an error of its own",
                    ref("Batch"),
                    body={
                        "required": True,
                        "content": {
                            "multipart/form-data": {
                                "schema": _form(
                                    {"images": {"type": "array", "items": _FILE}, **_POSE}, "images"
                                )
                            }
                        },
                    },
                )
            },
            "/detect": {
                "post": _operation(
                    "Angles",
                    "detect",
                    "Joint angles of the largest person in an image",
                    ref("Detection"),
                    body=_image_body("image", _DETECT, bare=False),
                )
            },
            "/v1/video/upload": {
                "post": _operation(
                    "Videos",
                    "video_upload",
                    "The people in a video, frame by frame; form fields come before the file",
                    ref("Video"),
                    body=_video_body("video", _VIDEO, bare=True),
                    parameters=_options(_VIDEO, "with a bare video as the body"),
                    more={
                        "application/x-ndjson": {"schema": ref("VideoLine")},
                        "text/event-stream": {"schema": ref("VideoLine")},
                        "video/mp4": {"schema": _FILE},
                    },
                )
            },
            "/infer/video": {
                "post": _operation(
                    "Videos",
                    "infer_video",
                    "The whole body of the most prominent person on every frame, as Server-Sent Events",
                    None,
                    body=_video_body("file", {}, bare=True),
                    more={"text/event-stream": {"schema": ref("InferEvent")}},
                )
            },
            "/v1/skeletons": {
                "get": _operation(
                    "Skeletons", "list_skeletons", "A page of skeletons", ref("SkeletonPage"), parameters=page
                ),
                "post": _operation(
                    "Skeletons",
                    "create_skeleton",
                    "A new skeleton",
                    ref("Skeleton"),
                    body=skeleton,
                    status="201",
                ),
            },
            "/v1/skeletons/{name}": {
                "get": _operation(
                    "Skeletons", "get_skeleton", "One skeleton", ref("Skeleton"), parameters=[name]
                ),
                "put": _operation(
                    "Skeletons",
                    "update_skeleton",
                    "Another skeleton in its place",
                    ref("Skeleton"),
                    body=skeleton,
                    parameters=[name, if_match],
                ),
                "delete": _operation(
                    "Skeletons",
                    "delete_skeleton",
                    "Remove a skeleton",
                    None,
                    parameters=[name, if_match],
                    status="204",
                ),
            },
            "/v1/skeletons/{name}/render": {
                "post": _operation(
                    "Skeletons",
                    "render",
                    "Draw people on an image or a canvas",
                    ref("Rendered"),
                    body=_json_body(_RENDER),
                    parameters=[name],
                    more={"image/png": {"schema": _FILE}, "image/jpeg": {"schema": _FILE}},
                )
            },
            "/v1/skeletons/{name}/export": {
                "post": _operation(
                    "Skeletons",
                    "export",
                    "Write people as files for training tools",
                    ref("Exported"),
                    body=_json_body(_EXPORT),
                    parameters=[name],
                    more={"application/zip": {"schema": _FILE}},
                )
            },
            "/v1/models": {
                "get": _operation("Service", "models", "A page of models", ref("Models"), parameters=page)
            },
            "/v1/info": {"get": _operation("Service", "info", "Build, limits, measurements", ref("Info"))},
            "/v1/account": {
                "get": _operation(
                    "Service", "account", "Tenant, plan, limits and quota of the caller's key", ref("Account")
                )
            },
            "/health": {
                "get": _operation(
                    "Service",
                    "health",
                    "200 once the default model is warm, 503 before",
                    ref("Health"),
                    errors=False,
                )
            },
            "/livez": {
                "get": _operation(
                    "Service", "livez", "Whether the HTTP door runs", ref("Health"), errors=False
                )
            },
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


_RENDER: Schema = {
    "type": "object",
    "properties": {
        "persons": {"type": "array", "items": {"type": "object"}, "description": "As the calls answer them."},
        "image": {"type": "string", "description": "base64; or `canvas`."},
        "canvas": {
            "type": "object",
            "properties": {
                "width": {"type": "integer"},
                "height": {"type": "integer"},
                "color": {"type": "string"},
            },
            "required": ["width", "height"],
        },
        "format": {"type": "string", "enum": ["png", "jpeg"]},
        "line_width": {"type": "integer", "minimum": 0, "maximum": 32},
        "boxes": {"type": "boolean"},
        "labels": {"type": "boolean"},
        "jpeg_quality": {"type": "integer", "minimum": 1, "maximum": 100},
        "min_keypoint_score": {"type": "number", "minimum": 0},
    },
}
_EXPORT: Schema = {
    "type": "object",
    "properties": {
        "format": {"type": "string", "enum": ["coco", "yolo", "csv"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "file_name": {"type": "string"},
                    "image": ref("Size"),
                    "persons": {"type": "array", "items": {"type": "object"}},
                },
                "required": ["file_name", "image"],
            },
        },
    },
    "required": ["format", "items"],
}


def _operation(
    tag: str,
    name: str,
    summary: str,
    answer: Schema | None,
    *,
    body: Schema | None = None,
    parameters: list[Schema] | None = None,
    more: dict[str, Schema] | None = None,
    status: str = "200",
    errors: bool = True,
) -> dict[str, Any]:
    content = {"application/json": {"schema": answer}} if answer else {}
    responses: dict[str, Any] = {status: {"description": summary, "content": {**content, **(more or {})}}}
    if errors:
        problem = {"application/problem+json": {"schema": ref("Problem")}}
        for number, description in _ERRORS.items():
            responses[number] = {"description": description, "content": problem}
    else:
        responses["503"] = {"description": "Not now.", "content": content}
    operation: dict[str, Any] = {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = body
    if parameters:
        operation["parameters"] = parameters
    return operation


def _query(name: str, schema: Schema, description: str = "") -> Schema:
    return {
        "name": name,
        "in": "query",
        "schema": schema,
        **({"description": description} if description else {}),
    }


def _options(fields: dict[str, Schema], when: str) -> list[Schema]:
    return [_query(name, schema, f"As in the form; {when}.") for name, schema in fields.items()]


def _form(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _json_body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _image_body(field: str, options: dict[str, Schema], *, bare: bool = True) -> Schema:
    required = ["measurement"] if "measurement" in options else []
    text = {"type": "string", "description": "base64, with data: in front or without."}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": _form({field: _FILE, **options, "image_url": _URL}, *required)},
        "application/json": {"schema": _form({field: text, **options, "image_url": _URL}, *required)},
        "application/x-www-form-urlencoded": {
            "schema": _form({field: text, **options, "image_url": _URL}, *required)
        },
    }
    if bare:
        content["image/jpeg"] = {"schema": _FILE}
    return {"required": True, "content": content}


def _video_body(field: str, options: dict[str, Schema], *, bare: bool) -> Schema:
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": _form({**options, field: _FILE}, field)},
    }
    if bare:
        content["video/mp4"] = {"schema": _FILE}
    return {"required": True, "content": content}


def _version() -> str:
    try:
        return version("posegate")
    except PackageNotFoundError:
        return "0"
