"""`posegate skeletons list|show|create|update|delete`."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.cli.connection import Target
from service.cli.skeletons import BadFile, create, delete, list_skeletons, show, update
from service.skeletons import shipped
from tests.running import Service

MINE: dict[str, Any] = {
    "name": "with [b]neck[/b] :dog:",
    "title": "Schultern und Hals",
    "keypoints": [
        "left_shoulder",
        {"name": "right_shoulder", "sigma": 0.079, "color": "#FF0010"},
        {"name": "neck", "optional": True, "sources": ["left_shoulder", "right_shoulder"]},
    ],
    "edges": [["left_shoulder", "neck"], {"start": "neck", "end": "right_shoulder", "color": "#00FF00"}],
    "flip_pairs": [["left_shoulder", "right_shoulder"]],
}


def written(folder: Path, content: object) -> Path:
    file = folder / "mine.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


async def test_a_file_becomes_a_skeleton_that_is_listed_and_deleted(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await create(Target(service.address), written(tmp_path, MINE))
    assert capsys.readouterr().out.startswith("with [b]neck[/b] :dog:: 3 keypoints, etag ")
    await list_skeletons(Target(service.address))
    told = capsys.readouterr().out
    assert "[b]neck[/b]" in told
    assert ":dog:" in told
    assert "custom" in told
    await delete(Target(service.address), MINE["name"], "")
    await list_skeletons(Target(service.address))
    assert "custom" not in capsys.readouterr().out


async def test_what_is_shown_can_be_created_again(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await create(Target(service.address), written(tmp_path, MINE))
    capsys.readouterr()
    await show(Target(service.address), MINE["name"])
    first = json.loads(capsys.readouterr().out)
    assert first["keypoints"][1] == MINE["keypoints"][1]
    await create(Target(service.address), written(tmp_path, {**first, "name": "again"}))
    capsys.readouterr()
    await show(Target(service.address), "again")
    assert json.loads(capsys.readouterr().out) == {**first, "name": "again"}


async def test_every_page_is_listed(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        await create(
            Target(service.address), written(tmp_path, {"name": f"s{number:02}", "keypoints": ["nose"]})
        )
    capsys.readouterr()
    await list_skeletons(Target(service.address))
    told = capsys.readouterr().out
    assert sum("custom" in line for line in told.splitlines()) == 60
    assert sum("shipped" in line for line in told.splitlines()) == len(shipped())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "the file must be an object"),
        ({"name": "", "keypoints": ["a", "a"], "edges": [["a", "b"]]}, "edges[0].end"),
        ({"name": "x", "keypoints": ["a", "b"], "edges": [{"start": "a", "end": "b", "drawing_only": True}]},
         "drawing_only"),
        ('{"name": "x", "keypoints": [{"name": "a", "sigma": NaN}]}', "keypoints[0].sigma"),
    ],
    ids=["empty", "cut off", "deep", "a list", "three problems", "for shipped ones only", "NaN"],
)  # fmt: skip
async def test_a_file_without_a_skeleton_is_refused_before_any_call(
    content: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadFile) as caught:
        await create(Target("127.0.0.1:1"), written(tmp_path, content))
    assert said in str(caught.value)
    assert "mine.json" in str(caught.value)


async def test_every_problem_of_a_file_has_its_line(tmp_path: Path) -> None:
    wrong = {"name": "", "keypoints": ["a", "a"], "edges": [["a", "b"]]}
    with pytest.raises(BadFile) as caught:
        await create(Target("127.0.0.1:1"), written(tmp_path, wrong))
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("content", [b"\xff\xfe{}", None], ids=["not UTF-8", "missing"])
async def test_a_file_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadFile, match=r"mine\.json"):
        await create(Target("127.0.0.1:1"), file)


async def test_the_services_refusals_are_for_the_command_line_to_tell(
    service: Service, tmp_path: Path
) -> None:
    taken = written(tmp_path, {**MINE, "name": "coco_17"})
    for call, code in (
        (show(Target(service.address), "nobody"), grpc.StatusCode.NOT_FOUND),
        (delete(Target(service.address), "coco_17", ""), grpc.StatusCode.PERMISSION_DENIED),
        (create(Target(service.address), taken), grpc.StatusCode.ALREADY_EXISTS),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert failed.value.code() is code


async def test_a_skeleton_is_replaced_only_as_it_was_read(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await create(Target(service.address), written(tmp_path, MINE))
    etag = capsys.readouterr().out.split()[-1]
    changed = written(tmp_path, {**MINE, "title": "Another"})
    await update(Target(service.address), changed, etag)
    assert "3 keypoints" in capsys.readouterr().out
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await update(Target(service.address), changed, etag)
    assert refused.value.code() is grpc.StatusCode.ABORTED
    await update(Target(service.address), changed, "")
    capsys.readouterr()
    await show(Target(service.address), MINE["name"])
    assert json.loads(capsys.readouterr().out)["title"] == "Another"
