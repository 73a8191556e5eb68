"""Domain errors: everything that the gateway refuses or fails at. No gRPC code appears here;
`servicers.responses.error_status` maps the tree to status codes.

PosegateError
├── InvalidRequest            the caller must change something; lists every violation at once
│   ├── ImageUndecodable      the bytes are not an image that can be decoded
│   ├── ImageTooLarge         more bytes or pixels than allowed
│   ├── ImageTooCostly        decoding takes more time or memory than allowed
│   ├── VideoUndecodable      the bytes are not a video that can be decoded
│   ├── VideoTooLarge         more bytes or pixels than allowed
│   ├── VideoTooCostly        decoding takes more time or memory than allowed
│   └── VideoTooLong          more seconds or frames than allowed
├── DataLoss                  a video is damaged; what came before the damage was answered
├── NotFound                  no such model, version or skeleton
├── Unauthenticated           no API key, or not a valid one
├── NotAllowed                the operator does not allow it
│   └── PlanDoesNotAllow      the tenant's plan does not allow it
├── AlreadyExists             the name is taken
├── Conflict                  it was changed meanwhile; read it again first
├── QuotaExceeded             as many as the caller may have; no retry helps
│   └── MonthlyQuotaExceeded  the calls of the month are used up
├── RateLimited               more at the moment than the plan allows; worth another try later
├── AnswerTooLarge            does not fit into one message
├── SkeletonNotSupplied       the model does not give the points that the skeleton needs
├── Overloaded                too much at once; worth another try later
├── Unavailable               Triton, a model or the database is unavailable; worth another try later
├── DeadlineExceeded          the deadline of the call has passed
└── Unimplemented             needs a part that this installation lacks, such as an H.264 encoder

What is worth another try later says in `retry_after_s` when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

REASONS = frozenset(
    {
        "ALREADY_EXISTS",
        "ANSWER_TOO_LARGE",
        "API_KEY_INVALID",
        "API_KEY_MISSING",
        "CONFIG_LATE",
        "CONFLICT",
        "DATABASE_BUSY",
        "DATABASE_FULL",
        "DATABASE_READ_ONLY",
        "DATABASE_TOO_NEW",
        "DATABASE_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "DRAINING",
        "EXPORT_TOO_LARGE",
        "IMAGE_TOO_COSTLY",
        "IMAGE_TOO_LARGE",
        "IMAGE_UNDECODABLE",
        "INTERNAL",
        "INVALID_REQUEST",
        "MEMORY_FULL",
        "MESSAGE_TOO_LARGE",
        "MESSAGE_UNREADABLE",
        "MODEL_NOT_FOUND",
        "MODEL_NOT_READY",
        "MODEL_VERSION_NOT_FOUND",
        "NOT_ALLOWED",
        "NOT_FOUND",
        "NO_ENCODER",
        "OVERLOADED",
        "PLAN_DOES_NOT_ALLOW",
        "PLAN_UNKNOWN",
        "QUEUE_FULL",
        "QUOTA_EXCEEDED",
        "RATE_LIMITED",
        "REQUEST_TOO_SLOW",
        "SKELETON_CHANGED",
        "SKELETON_EXISTS",
        "SKELETON_INVALID",
        "SKELETON_NOT_FOUND",
        "SKELETON_NOT_SUPPLIED",
        "SKELETON_SHIPPED",
        "SPOOL_FULL",
        "STREAM_IDLE",
        "TOO_MANY_BYTES_IN_FLIGHT",
        "TOO_MANY_IN_FLIGHT",
        "TOO_MANY_OVERLAYS",
        "TOO_MANY_SKELETONS",
        "TOO_MANY_STREAMS",
        "TOO_MUCH_VIDEO_MEMORY",
        "TRITON_UNAVAILABLE",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN_MEASUREMENT",
        "UPLOAD_IDLE",
        "UPLOAD_TOO_SLOW",
        "URI_ADDRESS_NOT_ALLOWED",
        "URI_HOST_NOT_ALLOWED",
        "URI_INVALID",
        "URI_NOT_FETCHED",
        "URI_OFF",
        "VIDEO_DAMAGED",
        "VIDEO_TOO_COSTLY",
        "VIDEO_TOO_LARGE",
        "VIDEO_TOO_LONG",
        "VIDEO_UNDECODABLE",
    }
)
"""Every reason that an error of the service can have."""

# A status travels in gRPC metadata of 8 KiB at most, and the texts in it may quote the caller.
_MESSAGE_BYTES, _DETAIL_BYTES = 800, 450


@dataclass(frozen=True)
class Violation:
    """One field that is wrong, and what to change: `field` is a path as in the request message."""

    field: str
    description: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", _shortened(self.description, _DETAIL_BYTES))


class PosegateError(Exception):
    """An error that the caller may read.

    Attributes:
        message: one sentence that says what to change; no path, no stack; cut where it is too long.
        reason: UPPER_SNAKE, stable, for machines.
        metadata: every variable of the message, for machines; values cut where they are too long.
        retry_after_s: seconds until another try can succeed; None when none can.
    """

    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = _shortened(message, _MESSAGE_BYTES)
        self.reason = reason or type(self).reason
        self.metadata = {name: _shortened(value, _DETAIL_BYTES) for name, value in (metadata or {}).items()}
        self.retry_after_s = retry_after_s


class InvalidRequest(PosegateError):
    """The caller must change the request. `violations` names every wrong field at once."""

    reason = "INVALID_REQUEST"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class ImageUndecodable(InvalidRequest):
    """Empty, truncated, not an image, an unsupported format or zero size."""

    reason = "IMAGE_UNDECODABLE"


class ImageTooLarge(InvalidRequest):
    """More bytes or pixels than allowed; limit and actual value are in the metadata."""

    reason = "IMAGE_TOO_LARGE"


class ImageTooCostly(InvalidRequest):
    """Decoding takes more time or memory than the size of the image warrants."""

    reason = "IMAGE_TOO_COSTLY"


class VideoUndecodable(InvalidRequest):
    """Empty, not a video, without frames, or of a format that is not accepted."""

    reason = "VIDEO_UNDECODABLE"


class VideoTooLarge(InvalidRequest):
    """More bytes or pixels than allowed; limit and actual value are in the metadata."""

    reason = "VIDEO_TOO_LARGE"


class VideoTooCostly(InvalidRequest):
    """Decoding takes more time or memory than the size of the frames warrants."""

    reason = "VIDEO_TOO_COSTLY"


class VideoTooLong(InvalidRequest):
    """More seconds or frames than allowed; limit and actual value are in the metadata."""

    reason = "VIDEO_TOO_LONG"


class DataLoss(PosegateError):
    """A video is cut short, cannot be read on, or is damaged under `strict`; earlier frames were answered."""

    reason = "VIDEO_DAMAGED"


class Unauthenticated(PosegateError):
    """No API key, or not a valid one."""

    reason = "API_KEY_INVALID"


class NotFound(PosegateError):
    """No such model, version or skeleton."""

    reason = "NOT_FOUND"


class NotAllowed(PosegateError):
    """The operator does not allow it."""

    reason = "NOT_ALLOWED"


_OF_PLAN = {
    "max_batch_size": ("image in a batch", "images in a batch", "send fewer at once"),
    "max_skeletons": ("custom skeleton", "custom skeletons", "delete one first"),
    "max_video_seconds": (
        "second of one video or stream",
        "seconds of one video or stream",
        "cut it, set `start` and `end` of a video",
    ),
    "own_models": ("model of one's own", "models of one's own", ""),
    "calls_at_once": ("call at once", "calls at once", ""),
    "streams_at_once": ("video or stream at once", "videos or streams at once", ""),
}
"""Limits of a plan: one, many, and what to do about more than are allowed, where that is not only none."""


def counted(number: float, one: str, many: str) -> str:
    """A number of things in words, such as "1 call" and "2 calls"."""
    return f"{number:.15g} {one if number == 1 else many}"


class PlanDoesNotAllow(NotAllowed):
    """The tenant's plan does not allow it; plan, limit and actual value are in the metadata."""

    reason = "PLAN_DOES_NOT_ALLOW"

    @classmethod
    def of(cls, plan: str, limit_name: str, *, limit: float, actual: float) -> PlanDoesNotAllow:
        """One limit of a plan, by its name in the file of plans, and what was asked for."""
        one, many, advice = _OF_PLAN[limit_name]
        return cls(
            f"The plan '{plan}' allows {counted(limit, one, many)}, not {actual:g}: "
            f"{advice}, or ask for another plan."
            if limit
            else f"The plan '{plan}' allows no {many}: ask for another plan.",
            metadata={
                "plan": plan,
                "limit": f"{limit:g}",
                "actual": f"{actual:g}",
                "limit_name": limit_name,
            },
        )


class AlreadyExists(PosegateError):
    """The name is taken."""

    reason = "ALREADY_EXISTS"


class Conflict(PosegateError):
    """It is no longer what the caller read: read it again, then change it."""

    reason = "CONFLICT"


class QuotaExceeded(PosegateError):
    """The caller has as many as allowed; another try does not help."""

    reason = "QUOTA_EXCEEDED"


class MonthlyQuotaExceeded(QuotaExceeded):
    """The calls of the month are used up.

    Attributes:
        subject: owner of the quota, as tenant:NAME.
        reset_time: when the next month begins, UTC; None where that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str = "",
        reset_time: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.subject = subject
        self.reset_time = reset_time


class RateLimited(PosegateError):
    """More at the moment than the tenant's plan allows; it helps to wait."""

    reason = "RATE_LIMITED"


class AnswerTooLarge(PosegateError):
    """The answer does not fit into one message; another try does not help."""

    reason = "ANSWER_TOO_LARGE"


class SkeletonNotSupplied(PosegateError):
    """The model does not give the points that the skeleton needs."""

    reason = "SKELETON_NOT_SUPPLIED"


class Overloaded(PosegateError):
    """Too much at once."""

    reason = "OVERLOADED"


class Unavailable(PosegateError):
    """Triton, the model or the database is unavailable."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(PosegateError):
    """The deadline of the call has passed; work stops."""

    reason = "DEADLINE_EXCEEDED"


class Unimplemented(PosegateError):
    """This service does not offer what the contract allows for, such as encoding video."""

    reason = "UNIMPLEMENTED"


def _shortened(text: str, most_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= most_bytes:
        return text
    return encoded[: most_bytes - 3].decode(errors="ignore") + "…"


DESCRIPTIONS: Mapping[type[PosegateError], Mapping[str, str]] = {
    PosegateError: {
        "INTERNAL": "an unexpected error; the log holds it under the request id",
    },
    InvalidRequest: {
        "EXPORT_TOO_LARGE": "the files of an export do not fit into one message: export fewer images",
        "IMAGE_TOO_COSTLY": "decoding takes more time or memory than allowed: save it as baseline JPEG",
        "IMAGE_TOO_LARGE": "the image has more bytes or pixels than allowed",
        "IMAGE_UNDECODABLE": "empty, truncated, not an image, or of a format that is not accepted",
        "INVALID_REQUEST": "fields are wrong; `BadRequest` names all of them",
        "MESSAGE_TOO_LARGE": "the request has more bytes than its RPC takes: send less at once",
        "MESSAGE_UNREADABLE": "the bytes are not the message that the RPC takes",
        "SKELETON_INVALID": "a custom skeleton breaks a rule or a limit; `BadRequest` names every problem",
        "TOO_MANY_OVERLAYS": "one overlay for each person and measurement would be too many",
        "UNKNOWN_MEASUREMENT": "a name is not that of a measurement; the message lists the known ones",
        "URI_INVALID": "`image.uri` is not an https URI without user name and password",
        "URI_NOT_FETCHED": "the host of `image.uri` did not return an image in time",
        "VIDEO_TOO_COSTLY": "decoding takes more time or memory than allowed: encode it anew",
        "VIDEO_TOO_LARGE": "the video has more bytes, or more pixels a frame, than allowed",
        "VIDEO_TOO_LONG": "the video has more seconds or frames than allowed",
        "VIDEO_UNDECODABLE": "empty, not a video, without frames, or of a format that is not accepted",
    },
    DataLoss: {
        "VIDEO_DAMAGED": "the video is cut short or cannot be read on; the frames before were answered",
    },
    NotFound: {
        "MODEL_NOT_FOUND": "no such model; the message lists those that are served",
        "MODEL_VERSION_NOT_FOUND": "the model has no such version; the message lists those it has",
        "NOT_FOUND": "something else that the request names does not exist",
        "SKELETON_NOT_FOUND": "no such skeleton, shipped or of this tenant",
    },
    Unauthenticated: {
        "API_KEY_INVALID": "the API key is mistyped, unknown, expired or revoked",
        "API_KEY_MISSING": "no API key was sent",
    },
    PlanDoesNotAllow: {
        "PLAN_DOES_NOT_ALLOW": "more than the tenant's plan allows; `limit` and `actual` are in the metadata",
    },
    NotAllowed: {
        "NOT_ALLOWED": "the operator does not allow it",
        "SKELETON_SHIPPED": "a shipped skeleton cannot be changed or deleted",
        "URI_ADDRESS_NOT_ALLOWED": "the host of `image.uri` has an address that is not public",
        "URI_HOST_NOT_ALLOWED": "the host of `image.uri` is not among `POSEGATE_URI_HOSTS`",
        "URI_OFF": "no host is allowed: `image.uri` is off, send the bytes",
    },
    AlreadyExists: {
        "ALREADY_EXISTS": "something else of that name exists",
        "SKELETON_EXISTS": "the name of the skeleton is taken, by a shipped one or one of this tenant",
    },
    Conflict: {
        "CONFLICT": "something else was changed meanwhile: read it again",
        "SKELETON_CHANGED": "the `etag` is no longer the current one: read the skeleton again",
    },
    QuotaExceeded: {
        "QUOTA_EXCEEDED": "the calls of the month are used up; `reset_time` is in the metadata",
        "TOO_MANY_SKELETONS": "the tenant has `POSEGATE_MAX_SKELETONS` skeletons: delete one first",
    },
    RateLimited: {
        "RATE_LIMITED": "more calls a second than the tenant's plan allows",
    },
    AnswerTooLarge: {
        "ANSWER_TOO_LARGE": "above `POSEGATE_MAX_MESSAGE_BYTES`: ask for JPEG overlays or less at once",
    },
    SkeletonNotSupplied: {
        "SKELETON_NOT_SUPPLIED": "the model does not give the keypoints that the skeleton requires",
    },
    Overloaded: {
        "MEMORY_FULL": "the service holds nearly `POSEGATE_MAX_MEMORY` bytes",
        "OVERLOADED": "too much at once",
        "QUEUE_FULL": "the model's queue in Triton is full",
        "SPOOL_FULL": "no disk space is left for uploaded videos",
        "TOO_MANY_BYTES_IN_FLIGHT": "the requests at work have `POSEGATE_MAX_IN_FLIGHT_BYTES` already",
        "TOO_MANY_IN_FLIGHT": "as many requests are at work as `POSEGATE_MAX_IN_FLIGHT` or the plan allows",
        "TOO_MANY_STREAMS": "as many videos and streams as `POSEGATE_MAX_STREAMS` or the plan allows",
        "TOO_MUCH_VIDEO_MEMORY": "the decoders at work hold `POSEGATE_MAX_VIDEO_MEMORY_BYTES`",
    },
    Unavailable: {
        "DATABASE_BUSY": "the database did not answer within its time",
        "DATABASE_FULL": "the database has no space left",
        "DATABASE_READ_ONLY": "the database takes no changes at present",
        "DATABASE_TOO_NEW": "a newer version of the service has changed the tables",
        "DATABASE_UNAVAILABLE": "the database cannot be reached",
        "DRAINING": "this gateway is stopping: another one takes the call",
        "PLAN_UNKNOWN": "the tenant's plan is not in `POSEGATE_PLANS`: the operator has to set another one",
        "MODEL_NOT_READY": "the model, or the detector that it needs, is not loaded or not ready",
        "TRITON_UNAVAILABLE": "Triton cannot be reached",
        "UNAVAILABLE": "another part of the service cannot be reached",
    },
    DeadlineExceeded: {
        "CONFIG_LATE": "no config came within `POSEGATE_STREAM_IDLE_S`",
        "DEADLINE_EXCEEDED": "the caller's deadline passed, or `POSEGATE_REQUEST_TIMEOUT_S` without one",
        "REQUEST_TOO_SLOW": "the request took longer than `POSEGATE_MAX_REQUEST_S` to arrive",
        "STREAM_IDLE": "no image came within `POSEGATE_STREAM_QUIET_S`",
        "UPLOAD_IDLE": "no bytes of the video came within `POSEGATE_STREAM_IDLE_S`",
        "UPLOAD_TOO_SLOW": "the upload took longer than `POSEGATE_MAX_UPLOAD_S`",
    },
    Unimplemented: {
        "NO_ENCODER": "this build of the service has no H.264 encoder: leave `annotated_video` unset",
        "UNIMPLEMENTED": "this service does not offer the RPC",
    },
}
"""When each reason occurs, by the error that carries it; source of the table in service/README.md."""
