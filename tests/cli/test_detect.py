"""`posegate detect`, against a real service in this process."""

import asyncio
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.cli.connection import Target
from service.cli.detect import DetectConfig, detect
from service.cli.failures import BadOption
from service.cli.options import OverlayFormat
from service.core.geometry import Rgb8
from service.errors import NotFound
from tests.fakes import candidate, rows
from tests.media.clips import fast_start
from tests.pictures import encoded, jpeg, plain
from tests.running import Service, running
from tests.servicers.two_persons import TwoPersons

TWO = rows(candidate((100, 50, 200, 350), 0.9), candidate((400, 60, 480, 300), 0.6))


@pytest.fixture
def config(service: Service) -> DetectConfig:
    return DetectConfig(gateway=Target(service.address), timeout_s=60)


def pictures(folder: Path, *names: str) -> list[Path]:
    """Good pictures, but for those whose name says otherwise."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if "bad" in path.name:
            path.write_bytes(b"no picture")
        elif "missing" not in path.name:
            path.write_bytes(jpeg((640, 480)))
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


async def test_no_pictures_are_no_failure(config: DetectConfig, tmp_path: Path) -> None:
    results = tmp_path / "out.jsonl"
    assert await detect([], replace(config, results=results)) == 0
    assert results.read_text() == ""


async def test_without_a_file_it_prints_what_it_found(
    config: DetectConfig, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.triton.script = [TWO]
    (picture,) = pictures(tmp_path, "a.jpg")
    assert await detect([picture], config) == 0
    told = capsys.readouterr()
    first, *people = told.out.splitlines()
    assert first.startswith(f"{picture}: 2 people in 640×480 px, yolo11n_pose:1, ")
    # Numbered as in the answer and on the overlay.
    assert people[0] == "  0. score 0.90  box 100,50 to 200,350  17 of 17 keypoints with score ≥ 0.5"
    assert people[1].startswith("  1. score 0.60")
    assert told.err == ""


@pytest.mark.parametrize(("count", "text"), [(0, "0 people"), (1, "1 person"), (2, "2 people")])
async def test_it_counts_in_plain_english(
    config: DetectConfig,
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    count: int,
    text: str,
) -> None:
    service.triton.answer = rows(*TWO[:count])
    await detect(pictures(tmp_path, "a.jpg"), config)
    assert f": {text} in " in capsys.readouterr().out


async def test_results_are_json_lines_in_the_order_of_the_pictures(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    at_once: list[int] = [0]

    async def slowest_first(*args: Any, **options: Any) -> Any:
        shade = int(args[1]["images"][0, 0, 0, 0])
        at_once.append(at_once[-1] + 1)
        await asyncio.sleep((250 - shade) / 5000)
        at_once.append(at_once[-1] - 1)
        return await infer(*args, **options)

    def person_at_shade(image: Rgb8) -> Any:
        return rows(candidate((float(image[0, 0, 0]), 0, 300, 300), 0.9))

    infer = service.triton.infer
    service.triton.infer = slowest_first  # type: ignore[method-assign]
    service.triton.answer = person_at_shade
    paths = pictures(tmp_path, *(f"{number}.png" for number in range(20)))
    for number, path in enumerate(paths):
        path.write_bytes(encoded(plain((640, 480), (number * 10, 0, 0)), "PNG"))
    results = tmp_path / "out.jsonl"
    assert await detect(paths, replace(config, results=results)) == 0
    lines = lines_of(results)
    assert [line["picture"] for line in lines] == [str(path) for path in paths]
    assert [line["persons"][0]["box"]["x1"] for line in lines] == [number * 10 for number in range(20)]
    assert 1 < max(at_once) <= 8


async def test_a_line_holds_everything_but_the_overlay(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    service.triton.answer = TWO
    results = tmp_path / "out.jsonl"
    await detect(pictures(tmp_path, "a.jpg"), replace(config, results=results, overlay=tmp_path / "drawn"))
    (line,) = lines_of(results)
    assert line["image_size"] == {"width": 640, "height": 480}
    assert (line["model"], line["model_version"], line["skeleton"]) == ("yolo11n_pose", "1", "coco_17")
    assert len(line["persons"][0]["keypoints"]) == 17
    assert line["persons"][0]["keypoints"][0] == {"x": 100.0, "y": 50.0, "score": 0.9}
    assert line["persons"][0]["score"] == 0.9  # not 0.8999999761581421
    assert "overlay" not in line
    assert line["timings"]["total_ms"] > 0


async def test_the_file_has_its_name_only_once_it_is_complete(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    service.triton.gate.clear()
    results = tmp_path / "out.jsonl"
    task = asyncio.create_task(detect(pictures(tmp_path, "a.jpg"), replace(config, results=results)))
    await service.triton.entered.wait()
    assert not results.exists()
    assert (tmp_path / "out.jsonl.partial").exists()
    service.triton.gate.set()
    await task
    assert results.exists()
    assert not (tmp_path / "out.jsonl.partial").exists()


async def test_an_interrupted_run_leaves_an_older_result_as_it_was(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    results = tmp_path / "out.jsonl"
    results.write_text("older\n")
    service.triton.gate.clear()
    task = asyncio.create_task(detect(pictures(tmp_path, "a.jpg", "b.jpg"), replace(config, results=results)))
    await service.triton.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert results.read_text() == "older\n"
    service.triton.gate.set()


async def test_a_dash_means_the_terminal(
    config: DetectConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await detect(pictures(tmp_path, "a.jpg", "b.jpg"), replace(config, results=Path("-")))
    assert [json.loads(line)["persons"] for line in capsys.readouterr().out.splitlines()] == [[], []]


async def test_pictures_that_fail_are_counted_with_one_line_each_and_the_others_go_on(
    config: DetectConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a_folder_with_a_name_that_goes_on_and_on/" * 3
    paths = pictures(tmp_path, "a.jpg", f"{long}bad.jpg", "missing.jpg", ":cat:bad[red].jpg", "b.jpg")
    paths.insert(2, tmp_path)
    results = tmp_path / "out.jsonl"
    assert await detect(paths, replace(config, results=results)) == 4
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert errors[0].startswith(f"{paths[1]}: INVALID_ARGUMENT: The bytes are not an image")
    assert errors[1] == f"{tmp_path}: Is a directory"
    assert errors[2] == f"{paths[3]}: No such file or directory"
    assert errors[3].startswith(f"{paths[4]}: INVALID_ARGUMENT")
    lines = lines_of(results)
    assert ["error" in line for line in lines] == [False, True, True, True, True, False]
    assert lines[3] == {"picture": str(paths[3]), "error": "No such file or directory"}


async def test_a_refused_connection_is_a_line_for_each_image(
    config: DetectConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = replace(config, gateway=Target("127.0.0.1:1"), timeout_s=0.5)
    assert await detect(pictures(tmp_path, "a.jpg", "b.jpg"), nowhere) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(": UNAVAILABLE: " in error or ": DEADLINE_EXCEEDED: " in error for error in errors)


async def test_its_options_reach_the_service(config: DetectConfig, service: Service, tmp_path: Path) -> None:
    service.triton.answer = TWO
    results = tmp_path / "out.jsonl"
    await detect(pictures(tmp_path, "a.jpg"), replace(config, results=results, min_score=0.7))
    assert len(lines_of(results)[0]["persons"]) == 1
    await detect(pictures(tmp_path, "a.jpg"), replace(config, results=results, model="nobody"))
    assert "NOT_FOUND: There is no model 'nobody'" in lines_of(results)[0]["error"]


@pytest.mark.parametrize(
    ("overlay_format", "suffix", "kind"), [("png", ".png", "PNG"), ("jpeg", ".jpg", "JPEG")]
)
async def test_overlays_are_files_in_the_folder_named_like_the_pictures(
    config: DetectConfig, tmp_path: Path, overlay_format: str, suffix: str, kind: str
) -> None:
    folder = tmp_path / "new" / "folder"
    paths = pictures(tmp_path, "a.jpg", "x/a.png", "x/a-2.jpg", "b.jpg", "bad.jpg")
    await detect(paths, replace(config, overlay=folder, overlay_format=OverlayFormat(overlay_format)))
    assert sorted(path.name for path in folder.iterdir()) == [
        f"a-2-2{suffix}", f"a-2{suffix}", f"a{suffix}", f"b{suffix}",
    ]  # fmt: skip
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == (kind, (640, 480))


@pytest.mark.parametrize("overlay_format", ["png", "jpeg"])
async def test_an_overlay_never_takes_the_place_of_a_picture(
    config: DetectConfig, tmp_path: Path, overlay_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, "a.png", "a.jpg", "b.png", "b.jpg")
    before = contents(tmp_path)
    paths = [Path("a.png"), Path("a.jpg"), tmp_path / "b.png", Path("b.jpg")]
    await detect(paths, replace(config, overlay=Path(), overlay_format=OverlayFormat(overlay_format)))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 4


async def test_a_folder_that_cannot_be_made_is_an_error_at_once(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        await detect(pictures(tmp_path, "a.jpg"), replace(config, overlay=tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        await detect(pictures(tmp_path, "a.jpg"), replace(config, results=tmp_path / "no" / "out.jsonl"))
    assert service.triton.calls == []


async def test_an_error_of_the_service_is_told_in_its_words(
    config: DetectConfig, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.triton.answer = NotFound("Nothing\nhere.")
    assert await detect(pictures(tmp_path, "a.jpg"), config) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("NOT_FOUND: Nothing here.")


async def test_results_into_a_pipe_do_not_take_its_place(config: DetectConfig, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reading = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reading.start()
    assert await detect(pictures(tmp_path, "a.jpg"), replace(config, results=pipe)) == 0
    reading.join(10)
    assert json.loads(read[0])["picture"].endswith("a.jpg")
    assert pipe.is_fifo()


async def test_two_hands_are_one_person(
    config: DetectConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(TwoPersons(), default_model="body") as whole:
        hands = replace(config, gateway=Target(whole.address), model="whole", skeleton="mediapipe_hand_21")
        assert await detect(pictures(tmp_path, "a.jpg"), hands) == 0
    first, *people = capsys.readouterr().out.splitlines()
    assert ": 2 people (3 × mediapipe_hand_21) in 640×480 px, whole:" in first
    assert people[0].startswith("  0. person 0 left  score ")
    assert people[1].startswith("  1. person 0 right  score ")
    assert people[2].startswith("  2. person 1 right  score ")


async def test_a_video_is_refused_with_the_command_for_it(
    config: DetectConfig, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.jpg"
    clip.write_bytes(fast_start())
    assert await detect([clip], config) == 1
    assert capsys.readouterr().err == f"{clip}: is a video: use `posegate video`\n"
    assert service.triton.calls == []


async def test_a_version_that_is_not_there_is_refused(
    config: DetectConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = pictures(tmp_path, "a.jpg")
    assert await detect(images, replace(config, model="yolo11n_pose", model_version="1")) == 0
    assert await detect(images, replace(config, model="yolo11n_pose", model_version="9")) == 1
    assert "has no version '9'" in capsys.readouterr().err


async def test_one_overlay_can_be_a_file_but_several_need_a_folder(
    config: DetectConfig, tmp_path: Path
) -> None:
    images = pictures(tmp_path, "in/a.jpg", "in/b.jpg")
    assert await detect(images[:1], replace(config, overlay=tmp_path / "o.jpeg")) == 0
    assert (tmp_path / "o.jpeg").read_bytes()[:2] == b"\xff\xd8"
    with pytest.raises(BadOption, match="is one file for 2 images: give a folder"):
        await detect(images, replace(config, overlay=tmp_path / "o.jpeg"))


async def test_an_interrupted_run_says_where_the_results_are(
    config: DetectConfig, service: Service, tmp_path: Path
) -> None:
    results = tmp_path / "out.jsonl"
    service.triton.gate.clear()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "detect", str(pictures(tmp_path, "a.jpg")[0]),
        "--json", str(results), "--address", service.address,
        cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.wait_for(service.triton.entered.wait(), 300)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 300)
    service.triton.gate.set()
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == (
        f"posegate: interrupted. The images done so far are in {results}.partial;"
        " run the same command to start again."
    )
