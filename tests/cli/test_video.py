from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.cli.connection import Target
from service.cli.plots import Curve, draw_curves
from service.cli.video import BadWish, CutShort, Wish, video
from service.core.geometry import Rgb8
from service.core.poses import Floats
from tests.fakes import candidate, rows
from tests.media.clips import fast_start
from tests.running import Service, running

WHO = candidate((200, 100, 440, 500), 0.9)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(recordings={"spool": tmp_path}) as one:
        one.triton.answer = rows(WHO, candidate((10, 100, 90, 500), 0.8))
        yield one


@pytest.fixture
def wish(service: Service, tmp_path: Path) -> Wish:
    return Wish(
        gateway=Target(service.address),
        model="",
        skeleton="",
        measurements=("elbow_side",),
        every_nth=None,
        target_fps=None,
        start_s=0.0,
        end_s=None,
        smooth=False,
        out=tmp_path / "out.jsonl",
        annotated=None,
        plot=tmp_path / "plot.png",
    )


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_frames_plot_and_table_are_made(
    wish: Wish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await video(clip, replace(wish, annotated=tmp_path / "out.mp4"))
    found = lines(tmp_path / "out.jsonl")
    assert [line["frame_index"] for line in found[1:-1]] == list(range(40))
    assert "summary" in found[-1]
    assert "40 of 40 frames" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    assert (tmp_path / "out.mp4").stat().st_size > 500
    assert not any(name.endswith(".partial") for name in os.listdir(tmp_path))  # noqa: PTH208


def numbered(number: int) -> Rgb8:
    """A frame whose brightness tells its number, up to 240."""
    return np.full((64, 96, 3), number + 8, np.uint8)


def crowd(image: Rgb8) -> Floats:
    """People who move, bend their arms and go away for a second, by the brightness of the frame."""
    step = float(image[200:400, 200:440].mean()) - 8
    x = 60 + step
    bend = 40 * np.sin(step / 8)
    points = [(x + 40, 120 + 10 * k, 0.9) for k in range(17)]
    points[5], points[7], points[9] = (x + 20, 180, 0.9), (x + 20, 240, 0.9), (x + 20 + bend, 290, 0.9)
    people = [candidate((x, 100, x + 90, 420), 0.9, points)]
    if not 100 <= step < 130:
        people.append(candidate((400, 100, 480, 420), 0.8))
    if step >= 150:
        people.append(candidate((540, 100, 620, 420), 0.7))
    return rows(*people)


def comparable(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for line in found:
        line.pop("timings", None)
        line.get("summary", {}).pop("wall_time", None)
    return found


def leaves(node: Any, path: str = "") -> dict[str, float]:
    """Every number of a summary by its path; times in seconds."""
    if isinstance(node, dict):
        return {key: value for name in node for key, value in leaves(node[name], f"{path}.{name}").items()}
    if isinstance(node, list):
        return {key: value for i, one in enumerate(node) for key, value in leaves(one, f"{path}.{i}").items()}
    try:
        return {path: float(str(node).removesuffix("s"))}
    except ValueError:
        return {f"{path}={node}": 0.0}


def smoothed(found: list[dict[str, Any]]) -> list[float]:
    """Takes the smoothed values out: filters that had to settle anew are off by a hair."""
    values = []
    for line in found:
        for person in line.get("persons", []):
            values += [one[axis] for one in person.pop("smoothed_keypoints", []) for axis in "xy"]
        for angle in line.get("angles", []):
            for side in ("left", "right"):
                values.append(angle.get(side, {}).pop("smoothed_degrees", 0.0))
    return values


@pytest.mark.parametrize("sampling", [{}, {"every_nth": 4}, {"target_fps": 7.0}, {"start_s": 1.03}])
@pytest.mark.parametrize("share", [0.1, 0.55, 0.62, 0.9])
async def test_an_interrupted_run_is_gone_on_with_as_if_it_had_not_been(
    wish: Wish, tmp_path: Path, service: Service, sampling: dict[str, Any], share: float
) -> None:
    service.triton.answer = crowd
    clip = tmp_path / "clip.mp4"
    # 60 a second in ticks of 1/90000 s: times that no decimal fraction holds exactly.
    clip.write_bytes(fast_start(count=230, images=numbered, times=[number / 29.97 for number in range(230)]))
    wish = replace(wish, smooth=True, **sampling)
    await video(clip, wish)
    complete = lines(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").unlink()
    kept = max(2, round(share * len(complete)))
    text = "".join(json.dumps(line) + "\n" for line in complete[:kept])
    (tmp_path / "out.jsonl.partial").write_text(text + '{"frame_index": 14, "ti', encoding="utf-8")
    calls = len(service.triton.calls)
    await video(clip, wish)
    again = lines(tmp_path / "out.jsonl")
    if share > 0.5:
        assert len(service.triton.calls) - calls < calls
    comparable(complete)
    comparable(again)
    assert smoothed(again) == pytest.approx(smoothed(complete), abs=0.2)
    assert again[:-1] == complete[:-1]
    assert leaves(again[-1]) == pytest.approx(leaves(complete[-1]), abs=0.01)
    assert {one["track_id"] for line in again[1:-1] for one in line["persons"]} == {1, 2, 3}


async def test_what_was_kept_is_never_written_anew(
    wish: Wish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await video(clip, wish)
    (tmp_path / "out.jsonl").rename(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(b"".join(content[:15]))
    monkeypatch.setattr("service.cli.video._write", full)
    with pytest.raises(OSError, match="full"):
        await video(clip, wish)
    assert partial.read_bytes() == b"".join(content[:15])


def full(*_arguments: object) -> None:
    raise OSError(28, "full")


@pytest.mark.parametrize("changed", [{"measurements": ()}, {"annotated": True}])
async def test_a_run_that_cannot_be_gone_on_with_says_so(
    wish: Wish, tmp_path: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await video(clip, wish)
    (tmp_path / "out.jsonl").rename(tmp_path / "out.jsonl.partial")
    if "annotated" in changed:
        changed = {"annotated": tmp_path / "out.mp4"}
    await video(clip, replace(wish, **changed))
    assert "starting anew" in capsys.readouterr().err.replace("\n", " ")
    assert len(lines(tmp_path / "out.jsonl")) == 42


async def test_another_config_starts_anew(wish: Wish, tmp_path: Path, service: Service) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    (tmp_path / "out.jsonl.partial").write_text('{"clip": "other.mp4"}\n', encoding="utf-8")
    await video(clip, wish)
    assert len(lines(tmp_path / "out.jsonl")) == 42


async def test_a_video_that_is_cut_short_leaves_what_there_is(wish: Wish, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    content = fast_start(count=200)
    clip.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(CutShort, match="DATA_LOSS"):
        await video(clip, wish)
    assert not (tmp_path / "out.jsonl").exists()
    assert len(lines(tmp_path / "out.jsonl.partial")) > 20


@pytest.mark.parametrize("count", [0, 1, 8])
def test_the_plot_has_a_panel_for_each_curve(count: int) -> None:
    samples = [(number / 10, 50 + 40 * np.sin(number / 5), number % 7 == 0) for number in range(60)]
    curves = [Curve(f"Knee {number}", list(samples), [(0.0, None, False)]) for number in range(count)]
    image = cv2.imdecode(np.frombuffer(draw_curves("clip.mp4", curves), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (64 + 44 + 260 * max(count, 1), 1200, 3)
    assert (image < 128).any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"every_nth": 2, "target_fps": 5.0}, "--target-fps"),
        ({"start_s": float("nan")}, "--start nan"),
        ({"start_s": 1e30}, "--start 1e"),
        ({"end_s": -1.0}, "--end -1"),
        ({"annotated": "out.jsonl"}, "different files"),
        ({"plot": "none/plot.png"}, "there is no folder"),
        ({"annotated": "clip.mp4"}, "different files"),
        ({"plot": "."}, "is a folder"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_the_upload(
    wish: Wish, tmp_path: Path, service: Service, changes: dict[str, Any], named: str
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    changes = {key: tmp_path / value if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(BadWish, match=named):
        await video(clip, replace(wish, **changes))
    assert service.triton.calls == []
    assert names(tmp_path) == ["clip.mp4"]


async def test_a_folder_is_no_clip(wish: Wish, tmp_path: Path) -> None:
    with pytest.raises(BadWish, match="is a folder"):
        await video(tmp_path, wish)


async def test_a_start_behind_the_end_is_told(
    wish: Wish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await video(clip, replace(wish, start_s=50.0))
    assert "--start is behind the end" in capsys.readouterr().out
