from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import pytest

from service.models import fetch as fetching
from service.models.errors import FetchError
from service.models.fetch import OFFICIAL, RELEASE, fetch

BODY = b"PK\x03\x04" + bytes(range(256)) * 4000
DIGEST = hashlib.sha256(BODY).hexdigest()
GRAPH = onnx.ModelProto(ir_version=8, producer_name="x" * 1000).SerializeToString()
UNKNOWN = next(name for name, digest in OFFICIAL.items() if digest is None)


class Handler(BaseHTTPRequestHandler):
    """A release server with every way to go wrong; the path says which."""

    def do_GET(self) -> None:  # the name that http.server calls
        match self.path.strip("/"):
            case "moved":
                self.send_response(302)
                self.send_header("Location", "/good")
            case "moved-to-http":
                self.send_response(302)
                self.send_header("Location", "http://example.com/good")
            case "graph":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(GRAPH)
                return
            case "none":
                self.send_response(404)
            case "page":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"<html>please log in</html>")
                return
            case "empty":
                self.send_response(200)
                self.send_header("Content-Length", "0")
            case "huge":
                self.send_response(200)
                self.send_header("Content-Length", str(1 << 40))
            case "short":
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY) + 1))
                self.end_headers()
                self.wfile.write(BODY)
                return
            case "unmeasured":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(BODY)
                return
            case _:
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY)
                return
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["good", "moved", "unmeasured"])
def test_a_checkpoint_is_downloaded_and_its_digest_told(server: str, path: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    folder = tmp_path / "weights"
    target, digest = fetch(UNKNOWN, folder, url=f"{server}/{path}", progress=lambda *args: seen.append(args))
    assert target == folder / f"{UNKNOWN}.pt"
    assert target.read_bytes() == BODY
    assert digest == DIGEST
    assert [p.name for p in folder.iterdir()] == [target.name]
    assert seen[-1] == (len(BODY), None if path == "unmeasured" else len(BODY))


def test_a_graph_is_downloaded_as_one_and_a_checkpoint_is_not_taken_for_one(
    server: str, tmp_path: Path
) -> None:
    target, digest = fetch("rtmw3d-x", tmp_path, url=f"{server}/graph")
    assert (target.name, digest) == ("rtmw3d-x.onnx", hashlib.sha256(GRAPH).hexdigest())
    target.unlink()
    for name, path in (("rtmw3d-x", "good"), (UNKNOWN, "graph"), ("rtmw3d-x", "page")):
        with pytest.raises(FetchError, match="is no checkpoint"):
            fetch(name, tmp_path, url=f"{server}/{path}")
    with pytest.raises(
        FetchError, match=r"models add rtmw-l-384x288\.zip --name rtmw_l_384x288 --family rtmw$"
    ):
        fetch("rtmw-l-384x288", tmp_path, url="http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none", "404.*another machine.*posegate models add"),
        ("page", "proxy"),
        ("empty", "ended after 0"),
        ("huge", "more than any"),
        ("short", "ended after"),
        ("moved-to-http", "not an https address"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(
    server: str, path: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match=said):
        fetch(UNKNOWN, tmp_path, url=f"{server}/{path}")
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_expected_is_thrown_away(server: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"{DIGEST} instead of 869e83fc"):
        fetch("yolo11n-pose", tmp_path, url=f"{server}/good")
    assert list(tmp_path.iterdir()) == []
    target, _ = fetch("yolo11n-pose", tmp_path, url=f"{server}/good", sha256=DIGEST.upper())
    assert target.read_bytes() == BODY


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / f"{UNKNOWN}.pt").write_bytes(BODY)
    assert fetch(UNKNOWN, tmp_path, url="http://127.0.0.1:1/")[1] == DIGEST
    assert fetch(UNKNOWN, tmp_path, url="http://127.0.0.1:1/", sha256=DIGEST)[1] == DIGEST
    with pytest.raises(FetchError, match="could not be downloaded"):
        fetch(UNKNOWN, tmp_path, url="http://127.0.0.1:1/", sha256="0" * 64)
    assert (tmp_path / f"{UNKNOWN}.pt").read_bytes() == BODY


def test_a_body_without_end_stops_at_the_limit(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    with pytest.raises(FetchError, match="more than"):
        fetch(UNKNOWN, tmp_path, url=f"{server}/unmeasured")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://example.com/x.pt", "file:///etc/passwd", "ftp://127.0.0.1/x", "x.pt"]
)
def test_only_https_is_used(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="https"):
        fetch(UNKNOWN, tmp_path, url=url)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="yolo11n-pose"):
        fetch("../yolo11n", tmp_path)


def test_every_official_model_of_both_families_is_known() -> None:
    assert set(OFFICIAL) == {f"{family}{scale}-pose" for family in ("yolov8", "yolo11") for scale in "nsmlx"}
    assert RELEASE.startswith("https://github.com/ultralytics/assets/releases/download/")
