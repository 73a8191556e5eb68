"""2,000 mutated bodies before the real servicers: the caller's fault is always the caller's (2xx or 4xx)."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter

from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import running
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import multipart, running_door

BODIES = 2_000
PICTURE = jpeg((64, 64))
TEXT = base64.b64encode(PICTURE)
FORMS = {
    "/v1/pose": multipart(
        ("image", "a.jpg", PICTURE), ("template", None, b"coco_17"), ("min_score", None, b"0.3")
    ),
    "/v1/pose/batch": multipart(("images", "a.jpg", PICTURE), ("images", "b.jpg", PICTURE)),
    "/detect": multipart(
        ("measurement", None, b"splits,knee_side"), ("side", None, b"left"), ("image", None, TEXT)
    ),
    "/v1/video/upload": multipart(("every_nth_frame", None, b"2"), ("video", "a.mp4", b"\x00" * 300)),
    "/infer/video": multipart(("file", "a.mp4", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 300)),
}
TOKENS = (
    b"\r\n", b"--frontier", b"--frontier--", b'name="', b"filename*=utf-8''%ff", b"content-disposition: ",
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"', b";", b":", b"=", b"%", b"image", b"9" * 30, b"nan", b"-1",
)  # fmt: skip


def mutated(dice: random.Random, body: bytes) -> bytes:
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(body) + 1)
        until = min(len(body), at + dice.choice((1, 2, 8, 64, 500)))
        kind = dice.randrange(6)
        if kind == 0:
            body = body[:at] + dice.choice(TOKENS) + body[at:]
        elif kind == 1:
            body = body[:at] + body[until:]
        elif kind == 2:
            body = body[:at] + dice.randbytes(until - at) + body[until:]
        elif kind == 3:
            body = body[:at]
        elif kind == 4:
            body = body[:until] + body[at:until] + body[until:]
        else:
            body = body[:at] + dice.choice(TOKENS) + body[until:]
    return body


async def test_mutated_forms_and_json_get_2xx_or_4xx() -> None:
    dice = random.Random(14)  # noqa: S311 - the same bodies every time
    statuses: Counter[int] = Counter()
    async with (
        running(max_calls=64) as service,
        running_door(service.address, body_idle_s=5, whole_body_model="yolo11n_pose") as door,
    ):
        service.triton.answer = rows(FIGURE)

        async def one(path: str, content_type: str, body: bytes) -> None:
            answer = await door.client.post(path, content=body, headers={"content-type": content_type})
            statuses[answer.status_code] += 1
            assert 200 <= answer.status_code < 500, (path, content_type, body, answer.text)
            if answer.status_code >= 400:
                problem = answer.json()
                assert problem["detail"]
                assert problem["reason"]

        for _ in range(BODIES // 8):
            calls = []
            for _ in range(8):
                path = dice.choice(list(FORMS))
                content_type, body = FORMS[path]
                if dice.random() < 0.15 and "video" not in path:
                    content_type = "application/json"
                    name = "images" if path.endswith("batch") else "image"
                    body = json.dumps({name: TEXT.decode(), "measurement": "splits"}).encode()
                if dice.random() < 0.1:
                    text = mutated(dice, content_type.encode()).decode("latin-1")
                    content_type = "".join(one for one in text if one.isascii() and one.isprintable()).strip()
                calls.append(one(path, content_type, mutated(dice, body)))
            await asyncio.gather(*calls)
        assert sum(statuses.values()) == BODIES
        assert statuses[200] > 50, statuses
        assert statuses[400] > 50, statuses
        assert not door.server.server_state.tasks
