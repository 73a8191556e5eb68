"""Every status of the contract as HTTP: problem documents, headers, nothing of gRPC's own words."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from scripts.ports import free_port
from service.web.problems import HTTP_STATUS
from tests.pictures import jpeg
from tests.web.running import FakeGateway, RunningDoor, refusal, running_door, until

PICTURE = jpeg((64, 128))
Code = grpc.StatusCode


async def call(door: RunningDoor, **headers: str) -> Any:
    return await door.client.post(
        "/v1/pose", content=PICTURE, headers={"content-type": "image/jpeg", **headers}
    )


@pytest.mark.parametrize("code", [code for code in Code if code not in (Code.OK, Code.CANCELLED)])
async def test_every_code_has_the_status_of_googles_mapping(
    fake: FakeGateway, faked: RunningDoor, code: grpc.StatusCode
) -> None:
    fake.error = refusal(code, "A_REASON", "Change this.")
    answer = await call(faked)
    assert answer.status_code == HTTP_STATUS[code.name]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["reason"]) == (code.name, "A_REASON")
    assert problem["detail"] == "Change this."
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_wrong_fields_come_all_at_once_under_their_names_in_http(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    fake.error = refusal(
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        violations=[("skeleton", "is odd"), ("min_score", "is high")],
    )
    problem = (await call(faked)).json()
    assert problem["errors"] == [
        {"field": "template", "detail": "is odd"},
        {"field": "min_score", "detail": "is high"},
    ]


async def test_without_a_key_the_answer_is_401_and_says_which_scheme(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    fake.error = refusal(Code.UNAUTHENTICATED, "API_KEY_MISSING")
    answer = await call(faked)
    assert (answer.status_code, answer.json()["reason"]) == (401, "API_KEY_MISSING")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_what_the_plan_does_not_allow_is_403_with_its_numbers(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    fake.error = refusal(Code.PERMISSION_DENIED, "PLAN_DOES_NOT_ALLOW", plan="free", limit="1")
    answer = await call(faked)
    assert answer.status_code == 403
    assert answer.json()["metadata"] == {"plan": "free", "limit": "1"}


async def test_a_rate_limit_is_429_with_the_ratelimit_headers(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.error = refusal(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_ms=1500)
    fake.trailing = (("ratelimit-limit", "10"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "42"))
    answer = await call(faked)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["retry_after_s"] == 1.5
    assert [answer.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == [
        "10",
        "0",
        "42",
    ]
    assert fake.started == 1, "the caller decides when to come again"


@pytest.mark.parametrize("trailing", [(("ratelimit-reset", "4242"),), ()])
async def test_a_month_that_is_used_up_says_when_the_next_begins(
    fake: FakeGateway, faked: RunningDoor, trailing: tuple[tuple[str, str], ...]
) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=4242)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fake.error = refusal(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", limit="10", remaining="0", reset_time=at)
    fake.trailing = (("ratelimit-limit", "10"), ("ratelimit-remaining", "0"), *trailing)
    answer = await call(faked)
    assert answer.status_code == 429
    assert 4100 < int(answer.headers["retry-after"]) <= 4242


async def test_a_quota_without_a_period_has_no_retry_after(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.error = refusal(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    fake.trailing = (("ratelimit-reset", "42"),)
    assert "retry-after" not in (await call(faked)).headers


async def test_only_loopback_names_are_answered_on_a_loopback_address(fake: FakeGateway) -> None:
    async with running_door(fake.address) as door:
        for host, status in (("localhost:1", 200), ("[::1]", 200), ("rebound.example.com", 421), ("", 421)):
            answer = await door.client.get("/livez", headers={"host": host})
            assert answer.status_code == status, host
    async with running_door(fake.address, allowed_hosts="app.example.com") as door:
        for host, status in (("App.example.com:443", 200), ("localhost", 421)):
            answer = await door.client.get("/livez", headers={"host": host})
            assert answer.status_code == status, host


async def test_a_trace_state_that_is_no_ascii_is_400(faked: RunningDoor) -> None:
    answer = await faked.client.post(
        "/v1/pose", content=PICTURE, headers=[(b"content-type", b"image/jpeg"), (b"tracestate", b"k\xe9y")]
    )
    assert (answer.status_code, answer.json()["reason"]) == (400, "HEADER_INVALID")


async def test_quota_headers_come_with_good_answers_too(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.trailing = (("ratelimit-remaining", "7"), ("something-else", "x"))
    answer = await call(faked)
    assert answer.status_code == 200
    assert answer.headers["ratelimit-remaining"] == "7"
    assert "something-else" not in answer.headers


async def test_keys_and_request_ids_pass_through(fake: FakeGateway, faked: RunningDoor) -> None:
    answer = await call(
        faked, **{"authorization": "Bearer abc", "x-api-key": "def", "x-request-id": "mine-1"}
    )
    assert fake.metadata["authorization"] == "Bearer abc"
    assert fake.metadata["x-api-key"] == "def"
    assert fake.metadata["x-request-id"] == "mine-1"
    assert answer.headers["x-request-id"] == "mine-1"


async def test_a_key_that_is_no_ascii_is_401(fake: FakeGateway, faked: RunningDoor) -> None:
    answer = await faked.client.post(
        "/v1/pose", content=PICTURE, headers=[(b"content-type", b"image/jpeg"), (b"x-api-key", b"k\xe9y")]
    )
    assert (answer.status_code, answer.json()["reason"]) == (401, "API_KEY_INVALID")
    assert not fake.requests


async def test_a_gateway_that_is_away_is_503_without_its_address() -> None:
    unused_port = free_port()
    async with running_door(f"127.0.0.1:{unused_port}") as door:
        answer = await call(door)
        assert (answer.status_code, answer.json()["reason"]) == (503, "GATEWAY_UNAVAILABLE")
        assert "retry-after" in answer.headers
        assert str(unused_port) not in answer.text
        health = await door.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert (await door.client.get("/livez")).status_code == 200


async def test_a_slow_gateway_is_504(fake: FakeGateway) -> None:
    fake.hold.clear()
    async with running_door(fake.address, request_timeout_s=0.3) as door:
        answer = await call(door)
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")


async def test_health_is_ok_with_a_warm_gateway(faked: RunningDoor) -> None:
    answer = await faked.client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_unknown_paths_and_methods_are_problems(faked: RunningDoor) -> None:
    missing = await faked.client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["reason"]) == (404, "PATH_NOT_FOUND")
    wrong = await faked.client.get("/v1/pose")
    assert (wrong.status_code, wrong.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "POST"


async def test_too_many_calls_at_once_are_429(fake: FakeGateway) -> None:
    fake.hold.clear()
    async with running_door(fake.address, max_calls=1) as door:
        first = asyncio.create_task(call(door))
        await until(lambda: fake.started == 1)
        second = await call(door)
        assert (second.status_code, second.json()["reason"]) == (429, "TOO_MANY_IN_FLIGHT")
        assert (await door.client.get("/livez")).status_code == 200, "probes are not counted"
        fake.hold.set()
        assert (await first).status_code == 200
        assert (await call(door)).status_code == 200


async def test_cors_is_closed_unless_configured(fake: FakeGateway, faked: RunningDoor) -> None:
    origin = {"origin": "https://app.example.com"}
    assert "access-control-allow-origin" not in (await call(faked, **origin)).headers
    async with running_door(fake.address, cors_origins="https://app.example.com") as door:
        allowed = await call(door, **origin)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
        other = await call(door, origin="https://evil.example.com")
        assert "access-control-allow-origin" not in other.headers
        preflight = await door.client.options(
            "/v1/pose", headers={**origin, "access-control-request-method": "POST"}
        )
        assert preflight.status_code == 200
        fake.error = refusal(Code.NOT_FOUND, "MODEL_NOT_FOUND")
        assert (await call(door, **origin)).headers[
            "access-control-allow-origin"
        ] == "https://app.example.com"


async def test_an_error_of_the_doors_own_is_500_and_tells_nothing(
    faked: RunningDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("service.web.answers.detected", broken)
    answer = await call(faked)
    assert (answer.status_code, answer.json()["detail"]) == (500, "internal error")
    assert "secret" not in answer.text
