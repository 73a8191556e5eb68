"""What every HTTP request goes through: a request id, admission, cancellation, problems, one log line."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.connection import gone_event
from service.web.problems import MEDIA_TYPE, Problem, title

_log = structlog.get_logger()

REQUEST_ID = "x-request-id"
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")  # as the gateway takes them
_UNCOUNTED = frozenset({"/health", "/livez"})  # a busy door must not look dead to its probes

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
# For everything but pages, which set their own.
_NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class CallerGone(Exception):
    """The caller left before the answer was ready."""


@dataclass
class Places:
    """Places for calls at work: a counter with an upper end.

    Attributes:
        most: at once.
        what: for the caller to read, in the plural.
        reason: of the problem when there is none left.
    """

    most: int
    what: str
    reason: str
    taken: int = field(default=0, init=False)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place; Problem 429 when there is none."""
        if self.taken >= self.most:
            raise Problem(
                429,
                self.reason,
                f"As many {self.what} are at work as are allowed, {self.taken}: try again.",
                code="RESOURCE_EXHAUSTED",
                metadata={"limit": str(self.most)},
                retry_after_s=0.5,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class DoorMiddleware:
    """Outermost but for CORS. Whatever goes wrong inside reaches the caller as a problem document.

    Args:
        app: what is inside.
        calls: places for calls at work.
        send_idle_s: a caller who takes no part of an answer for longer is given up.
        host_allowed: whether requests with this header Host are answered.
    """

    def __init__(
        self, app: ASGIApp, calls: Places, send_idle_s: float, host_allowed: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._calls = calls
        self._send_idle_s = send_idle_s
        self._host_allowed = host_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id, self._send_idle_s)
        started = time.perf_counter()
        reason = ""
        try:
            await _unless_gone(self._guarded(scope, receive, answer), gone_event(scope))
        except CallerGone:
            answer.status, reason = 499, "CALLER_GONE"
        except Problem as problem:
            reason = problem.reason
            if answer.begun:
                raise  # too late for a status: uvicorn ends the connection, visibly too soon
            await problem_response(problem, request_id)(scope, receive, answer.send)
        finally:
            ms = round((time.perf_counter() - started) * 1e3, 2)
            facts = {"reason": reason} if reason else {}
            _log.info(
                "http",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                wall_ms=ms,
                **facts,
            )

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            if not self._host_allowed(Headers(scope=scope).get("host", "")):
                raise Problem(
                    421,
                    "HOST_NOT_ALLOWED",
                    "The header Host names a host that is not answered here: POSEGATE_WEB_ALLOWED_HOSTS lists"
                    " those that are.",
                )
            if scope["path"] in _UNCOUNTED:
                await self._app(scope, receive, answer.send)
                return
            with self._calls.one():
                await self._app(scope, receive, answer.send)
        except (Problem, CallerGone):
            raise
        except Exception as error:
            _log.error("internal_error", request_id=answer.request_id, exc_info=error)
            raise Problem(500, "INTERNAL", "internal error", code="INTERNAL") from error


class _Answer:
    """Sends an answer with the headers that every answer has, and gives up on callers who do not take it."""

    def __init__(self, send: Send, request_id: str, idle_s: float) -> None:
        self._send = send
        self._idle_s = idle_s
        self.request_id = request_id
        self.begun = False
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            headers = list(message.get("headers", []))
            headers.append((REQUEST_ID.encode(), self.request_id.encode()))
            headers.extend(_HEADERS)
            if not any(name == b"content-security-policy" for name, _ in headers):
                headers.append(_NO_PAGE)
            message = {**message, "headers": headers}
        try:
            async with asyncio.timeout(self._idle_s):
                await self._send(message)
        except TimeoutError:
            raise CallerGone from None


async def _unless_gone(work: Coroutine[Any, Any, None], gone: asyncio.Event | None) -> None:
    """Do the work; cancel it and raise CallerGone as soon as the caller leaves."""
    if gone is None:
        await work
        return
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
        if working.cancelled():
            raise CallerGone
        working.result()
    finally:
        leaving.cancel()
        if not working.done():  # this request itself is cancelled: the door stops
            working.cancel()
            await asyncio.wait({working})


def problem_response(problem: Problem, request_id: str) -> Response:
    """The problem as an answer."""
    return Response(
        problem.body(request_id),
        status_code=problem.status,
        headers=problem.all_headers(),
        media_type=MEDIA_TYPE,
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, for Starlette."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these only
    headers = dict(error.headers or {})
    reasons = {
        404: ("PATH_NOT_FOUND", f"There is nothing at {request.url.path}: see /docs.", "NOT_FOUND"),
        405: (
            "METHOD_NOT_ALLOWED",
            f"{request.url.path} takes {headers.get('Allow', 'other methods')}, not {request.method}.",
            "",
        ),
    }
    reason, detail, code = reasons.get(
        error.status_code, ("HTTP_ERROR", error.detail or title(error.status_code), "")
    )
    problem = Problem(error.status_code, reason, detail, code=code, headers=headers)
    return problem_response(problem, request.state.request_id)


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is short printable ASCII, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID.encode():
            text = value.decode("latin-1")
            if _SAFE_ID.fullmatch(text):
                return str(text)
    return uuid.uuid4().hex
