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

from service.commands.angle_plot import Curve, draw_curves
from service.commands.target import Target
from service.commands.video import CutShort, Wish, video
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


async def test_an_interrupted_run_is_gone_on_with(wish: Wish, tmp_path: Path, service: Service) -> None:
    clip = tmp_path / "clip.mp4"
    whole = fast_start()
    clip.write_bytes(whole)
    await video(clip, wish)
    complete = lines(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").unlink()
    partial = tmp_path / "out.jsonl.partial"
    text = "\n".join(json.dumps(line) for line in complete[:15])
    partial.write_text(text + '\n{"frame_index": 14, "ti', encoding="utf-8")
    service.triton.calls.clear()
    await video(clip, wish)
    again = lines(tmp_path / "out.jsonl")
    assert len(service.triton.calls) == 40 - 13
    for one in (*complete, *again):
        one.pop("timings", None)
    assert again[:-1] == complete[:-1]


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
