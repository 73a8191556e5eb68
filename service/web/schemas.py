"""JSON schemas of the answers, for the description of the API."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A schema of this description."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    properties: dict[str, Schema], *, optional: tuple[str, ...] = (), description: str = ""
) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }
    if description:
        schema["description"] = description
    return schema


def _array(items: Schema, description: str = "", **more: Any) -> Schema:
    return {"type": "array", "items": items, **({"description": description} if description else {}), **more}


def _text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _number(description: str = "", **more: Any) -> Schema:
    return {"type": "number", **({"description": description} if description else {}), **more}


def _integer(description: str = "", **more: Any) -> Schema:
    return {"type": "integer", **({"description": description} if description else {}), **more}


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _sides(value: Schema, description: str) -> Schema:
    return _object({"left": value, "right": value}, description=description)


_POINT = _array(
    _number(), "x, y in px of the upright original, and the model's score.", minItems=3, maxItems=3
)
_POSITION = _array(
    _nullable(_number()), "x, y, z in metres from mid-hip: image right, down, away.", minItems=3, maxItems=3
)
_STATUS = ["OK", "DEGRADED", "UNAVAILABLE"]
_SIDE_VALUE = _object(
    {
        "degrees": _nullable(_number("Degrees.")),
        "std_error": _nullable(_number("Standard error, degrees.")),
        "status": _text(enum=_STATUS),
        "reasons": _array(_text()),
        "smoothed_degrees": _number(),
    },
    optional=("smoothed_degrees",),
)

SCHEMAS: dict[str, Schema] = {
    "Problem": _object(
        {
            "type": _text("Always about:blank: `reason` says which problem it is."),
            "title": _text("The phrase of the status."),
            "status": _integer("HTTP status."),
            "detail": _text("What to change, for people."),
            "reason": _text("UPPER_SNAKE, stable, for machines.", examples=["IMAGE_UNDECODABLE"]),
            "code": _text("Canonical code of gRPC.", examples=["INVALID_ARGUMENT"]),
            "errors": _array(_object({"field": _text(), "detail": _text()}), "Every wrong field at once."),
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "retry_after_s": _number("Seconds after which another try can help."),
            "request_id": _text("Also in the header x-request-id and in the service's log."),
        },
        optional=("code", "errors", "metadata", "retry_after_s"),
        description="RFC 9457 problem document.",
    ),
    "Size": _object({"width": _integer("px"), "height": _integer("px")}),
    "Person": _object(
        {
            "box": _array(_number(), "x1, y1, x2, y2 in px of the upright original.", minItems=4, maxItems=4),
            "score": _number("The model's own; not a probability."),
            "keypoints": _array(_POINT, "In the order of the skeleton."),
            "positions": _array(_POSITION, "In space, with include_positions."),
            "depth_source": _text(enum=["none", "measured", "lifted"]),
            "depth_assumption": _text(),
            "track_id": _integer("The same for the same person, in videos and streams."),
            "side": _text("Of a part such as a hand.", enum=["left", "right"]),
            "person_index": _integer("The person a part belongs to."),
            "smoothed_keypoints": _array(_POINT),
        },
        optional=(
            "positions",
            "depth_source",
            "depth_assumption",
            "track_id",
            "side",
            "person_index",
            "smoothed_keypoints",
        ),
    ),
    "Pose": _object(
        {
            "persons": _array(ref("Person"), "By falling score; empty where no person was found."),
            "image": ref("Size"),
            "model": _text(),
            "model_version": _text(),
            "skeleton": _text(),
            "timings": {
                "type": "object",
                "additionalProperties": {"type": "number"},
                "description": "Milliseconds.",
            },
            "overlay": _text("The drawn image as a data URI, with return_overlay."),
        },
        optional=("overlay",),
    ),
    "Batch": _object(
        {
            "results": _array(
                _object(
                    {
                        "name": _text("File name, where there is one."),
                        "result": ref("Pose"),
                        "error": ref("Problem"),
                    },
                    optional=("name", "result", "error"),
                ),
                "One for each image in order, each with `result` or `error`.",
            )
        }
    ),
    "Image": _object(
        {"data": _nullable(_text("Data URI.")), "width": _integer("px"), "height": _integer("px")}
    ),
    "Detection": _object(
        {
            "status": _text(enum=["ok"]),
            "image": ref("Image"),
            "measurements": _array(ref("Measurement")),
            "model": _text(),
            "model_version": _text(),
        }
    ),
    "Measurement": _object(
        {
            "name": _text(),
            "title": _text(),
            "bodyPart": _text(),
            "value": _sides(_nullable(_number()), "Degrees to 0.1; null where there is no value."),
            "std_error": _sides(_nullable(_number()), "Standard error, degrees."),
            "status": _sides({"type": ["string", "null"], "enum": [*_STATUS, None]}, "null: not asked for."),
            "reasons": _sides(_array(_text()), "Why the status is not OK, or what was assumed."),
            "image": {"oneOf": [ref("Image"), {"type": "null"}]},
        }
    ),
    "VideoStarted": _object(
        {
            "video": _object(
                {
                    "container": _text(),
                    "codec": _text(),
                    "width": _integer(),
                    "height": _integer(),
                    "rotation_deg": _integer(),
                    "fps": _nullable(_number()),
                    "duration": _nullable(_number("Seconds.")),
                    "frame_count": _nullable(_integer()),
                }
            ),
            "model": _text(),
            "model_version": _text(),
            "skeleton": _text(),
            "n_kpts": _integer(),
        }
    ),
    "FrameAngle": _object(
        {
            "name": _text(),
            "person_index": _integer(),
            "track_id": _integer(),
            "left": _SIDE_VALUE,
            "right": _SIDE_VALUE,
        },
        optional=("track_id", "left", "right"),
    ),
    "Frame": _object(
        {
            "frame_index": _integer("Zero-based, of the source."),
            "time": _number("Seconds from the start."),
            "persons": _array(ref("Person")),
            "angles": _array(ref("FrameAngle")),
        },
        optional=("angles",),
    ),
    "VideoSummary": _object(
        {
            "fps": _number(),
            "frame_width": _integer(),
            "frame_height": _integer(),
            "total_frames": _integer(),
            "n_kpts": _integer(),
            "frames_analyzed": _integer(),
            "frames_with_persons": _integer(),
            "persons_tracked": _integer(),
            "wall_time": _number("Seconds."),
            "measurements": _array(
                {"type": "object"}, "Extremes, range of motion and repetitions, by person and side."
            ),
        }
    ),
    "Video": {
        "allOf": [
            ref("VideoStarted"),
            _object({"frames": _array(ref("Frame")), "summary": ref("VideoSummary")}),
        ]
    },
    "VideoLine": {
        "type": "object",
        "description": "One line or event: `started`, then `frame`s with `progress` (and `annotated_chunk`, "
        "base64, with annotated_video=mp4) between them, last `summary` (and `quota`) or `error`. Members as "
        "in `Video`.",
        "properties": {
            "type": _text(
                enum=["started", "frame", "progress", "annotated_chunk", "summary", "quota", "error"]
            )
        },
        "required": ["type"],
    },
    "InferEvent": {
        "description": "`progress` after each frame, then one `result`, or an `error`.",
        "oneOf": [
            _object(
                {
                    "type": {"const": "progress"},
                    "frame": _integer("Frames done."),
                    "total": _nullable(_integer()),
                    "pct": _nullable(_number()),
                    "fps": _number("Frames a second of wall time."),
                    "elapsed": _number("Seconds."),
                    "eta": _nullable(_number("Seconds.")),
                }
            ),
            _object(
                {
                    "type": {"const": "result"},
                    "fps": _number("Of the video."),
                    "frame_width": _integer(),
                    "frame_height": _integer(),
                    "total_frames": _integer(),
                    "n_kpts": _integer("133"),
                    "frames": _array(
                        _array(_number()),
                        "n_kpts × 6 numbers a frame: x, y (px), score of each keypoint, then x, y, z (m) of "
                        "each; all 0 without a person.",
                    ),
                }
            ),
            _object({"type": {"const": "error"}, "code": _text(), "message": _text()}),
        ],
    },
    "Skeleton": _object(
        {
            "name": _text(),
            "title": _text(),
            "keypoints": _array(
                _object(
                    {
                        "name": _text(),
                        "color": _text("#RRGGBB; empty: the colour of its side."),
                        "sigma": _number("OKS sigma."),
                        "optional": {"type": "boolean"},
                        "sources": _array(
                            _object({"name": _text(), "weight": _number()}, optional=("weight",))
                        ),
                    },
                    optional=("color", "sigma", "optional", "sources"),
                )
            ),
            "edges": _array(
                _object({"start": _text(), "end": _text(), "color": _text()}, optional=("color",))
            ),
            "flip_pairs": _array(_object({"left": _text(), "right": _text()})),
            "etag": _text("Set by the service; also the header etag."),
            "shipped": {"type": "boolean", "description": "Set by the service."},
            "create_time": _text("Set by the service.", format="date-time"),
            "update_time": _text("Set by the service.", format="date-time"),
        },
        optional=("title", "edges", "flip_pairs", "etag", "shipped", "create_time", "update_time"),
    ),
    "SkeletonPage": _object({"skeletons": _array(ref("Skeleton")), "next_page_token": _text()}),
    "Rendered": _object({"overlay": _text("Data URI."), "width": _integer(), "height": _integer()}),
    "Exported": _object(
        {"files": _array(_object({"name": _text(), "media_type": _text(), "content": _text()}))}
    ),
    "Models": _object(
        {"models": _array({"type": "object"}, "As `Model` of the gRPC contract."), "next_page_token": _text()}
    ),
    "Info": _object(
        {
            "version": _text(),
            "commit": _text(),
            "default_model": _text(),
            "triton_version": _text(),
            "models_ready": _array(_text()),
            "limits": {"type": "object"},
            "http_limits": {"type": "object"},
            "measurements": _array(
                _object(
                    {
                        "name": _text(),
                        "title": _text(),
                        "bodyPart": _text(),
                        "extension": {"type": "boolean"},
                    }
                )
            ),
        }
    ),
    "Account": _object(
        {
            "tenant": _text("`default` where the service asks for no keys."),
            "plan": _text("Empty where the service asks for no keys."),
            "limits": {"type": "object", "description": "The lower of the service's and the plan's."},
            "quota": _object(
                {
                    "limit": _nullable(_integer("Calls of the month in total; null: no limit.")),
                    "used": _nullable(_integer("Calls used; null: not counted.")),
                    "remaining": _nullable(_integer("Calls left; null: no limit.")),
                    "reset_time": _text("When the next month begins, UTC.", format="date-time"),
                }
            ),
        }
    ),
    "Health": _object({"status": _text(enum=["ok", "unavailable"])}),
}
