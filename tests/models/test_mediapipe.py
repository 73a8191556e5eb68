"""MediaPipe's networks: out of a wheel, into the repository; all of them or none."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from scripts import runtime
from scripts.registry import SetupError
from service.models import mediapipe
from service.triton.model_config import parse_config

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / ".posegate" / "weights" / "mediapipe"
CONFIG = ROOT / "model_repository" / "cpu" / "mediapipe_wholebody" / "config.pbtxt"


def make_wheel(path: Path, **changed: bytes | None) -> Path:
    """A wheel with the real files; `changed` by stem: other content, or None for none."""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, member in mediapipe.FILES.items():
            content = changed.get(Path(name).stem, (WEIGHTS / name).read_bytes())
            if content is not None:
                wheel.writestr(member.path, content)
        wheel.writestr(mediapipe.LICENCE, "Apache License 2.0")
    return path


def make_model(repository: Path) -> Path:
    folder = repository / "cpu" / "mediapipe_wholebody"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_bytes(CONFIG.read_bytes())
    return folder / "1"


def test_unpacking_takes_the_networks_and_their_licence(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "mediapipe"
    mediapipe.unpack(make_wheel(tmp_path / "a.whl"), folder)
    assert {path.name for path in folder.iterdir()} == {*mediapipe.FILES, "LICENSE"}
    assert mediapipe.is_complete(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["mediapipe"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hand_recrop": b"other"}, r"hand_recrop\.tflite has the sha256 .*, not 67d996ce"),
        ({"face_landmark": None}, r"has no readable .*face_landmark\.tflite"),
    ],
    ids=["altered", "missing"],
)
def test_a_wheel_that_is_not_the_one_leaves_what_was_there(
    changed: dict[str, bytes | None], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    mediapipe.unpack(make_wheel(tmp_path / "good.whl"), folder)
    with pytest.raises(mediapipe.MediapipeError, match=says):
        mediapipe.unpack(make_wheel(tmp_path / "bad.whl", **changed), folder)
    assert mediapipe.is_complete(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.whl", "good.whl", "weights"]


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"this is no zip file")
    for wheel in ("a.whl", "absent.whl"):
        with pytest.raises(mediapipe.MediapipeError, match=f"{wheel} cannot be read"):
            mediapipe.unpack(tmp_path / wheel, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_the_repository_is_filled_once_and_again_after_harm(tmp_path: Path) -> None:
    version = make_model(tmp_path)
    assert mediapipe.fill(tmp_path, WEIGHTS)
    assert mediapipe.is_complete(version)
    assert not mediapipe.fill(tmp_path, WEIGHTS)
    (version / "hand_recrop.tflite").write_bytes(b"harm")
    assert mediapipe.fill(tmp_path, WEIGHTS)
    assert mediapipe.is_complete(version)
    assert [path.name for path in tmp_path.iterdir()] == ["cpu"]
    assert {path.name for path in version.parent.iterdir()} == {"1", "config.pbtxt"}


def test_a_missing_network_fills_nothing(tmp_path: Path) -> None:
    version = make_model(tmp_path)
    with pytest.raises(mediapipe.MediapipeError, match=r"there is no .*tflite; run scripts/setup"):
        mediapipe.fill(tmp_path, tmp_path / "nowhere")
    assert not version.exists()
    with pytest.raises(mediapipe.MediapipeError, match=r"there is no .*config\.pbtxt"):
        mediapipe.fill(tmp_path, WEIGHTS, "another")


def test_the_models_configuration_names_the_same_digests() -> None:
    config = parse_config(CONFIG.read_text(encoding="utf-8"))
    files = dict(re.findall(r"([\w.]+)=([0-9a-f]{64})", config.parameters["files"].string_value))
    assert files == {name: member.sha256 for name, member in mediapipe.FILES.items()}
    assert config.parameters["sha256"].string_value == mediapipe.WHEEL_SHA256


def test_the_wheel_is_pinned_among_the_assets() -> None:
    assert runtime.pinned("mediapipe") == (mediapipe.REQUIREMENT, mediapipe.WHEEL_SHA256)


def test_set_up_that_finds_everything_downloads_nothing(tmp_path: Path) -> None:
    runtime.prepare_mediapipe(WEIGHTS, runtime.Fetch(Path("/no/python"), tmp_path), print)


def test_a_wheel_that_was_downloaded_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "mediapipe.whl")
    monkeypatch.setattr(runtime, "pinned", lambda _: (mediapipe.REQUIREMENT, runtime.sha256_of(wheel)))
    runtime.prepare_mediapipe(tmp_path / "weights", runtime.Fetch(Path("/no/python"), tmp_path), print)
    assert mediapipe.is_complete(tmp_path / "weights")
    bad = make_wheel(tmp_path / "mediapipe.whl", hand_recrop=b"other")
    monkeypatch.setattr(runtime, "pinned", lambda _: (mediapipe.REQUIREMENT, runtime.sha256_of(bad)))
    with pytest.raises(SetupError, match="hand_recrop"):
        runtime.prepare_mediapipe(tmp_path / "other", runtime.Fetch(Path("/no/python"), tmp_path), print)
