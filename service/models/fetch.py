"""Download a published pose model: Ultralytics' checkpoints, OpenMMLab's ONNX archives.

The digests are those that public projects pin for the same files, agreeing with one another (the one of
yolo11n-pose was compared with a copy of the file). Where none is known, the digest is only shown.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from service.models.errors import FetchError

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.3.0"
MAX_BYTES = 1 << 30  # the largest, YOLOv8x-pose, has 140 MB
TIMEOUT_S = 60.0
_ZIP, _ONNX = b"PK", b"\x08"  # how a .pt or .zip begins, and an .onnx: with its field `ir_version`

OFFICIAL: dict[str, str | None] = {
    "yolov8n-pose": "c6fa93dd1ee4a2c18c900a45c1d864a1c6f7aba75d84f91648a30b7fb641d212",
    "yolov8s-pose": "234314cd8baf62616791aceb9ea6ad5c19f26cf6c0d8f3a1bfce1e23b186cfb3",
    "yolov8m-pose": "dbe539ea268db2534390942cfdf206e521f376f19e5415967a57f6a2ddfa3c90",
    "yolov8l-pose": None,
    "yolov8x-pose": None,
    "yolo11n-pose": "869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
    "yolo11s-pose": None,
    "yolo11m-pose": "29b17eaf3a3117cbea906090dbedf9159f7c6a49db58ec8b99ed2dfde1cf6eb2",
    "yolo11l-pose": None,
    "yolo11x-pose": None,
}

# Whole-body models as their authors, or for RTMW3D a community export, publish them. No digest is known here.
# `dw-x-l` in a file's name says: of size l, distilled from size x.
WHOLE_BODY: dict[str, str] = {
    "rtmw3d-x": "https://huggingface.co/Soykaf/RTMW3D-x/resolve/main/onnx/"
    "rtmw3d-x_8xb64_cocktail14-384x288-b0a0eab7_20240626.onnx",
    "rtmw-l-384x288": "https://download.openmmlab.com/mmpose/v1/projects/rtmw/onnx_sdk/"
    "rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122.zip",
    "rtmw-l-256x192": "https://download.openmmlab.com/mmpose/v1/projects/rtmw/onnx_sdk/"
    "rtmw-dw-x-l_simcc-cocktail14_270e-256x192_20231122.zip",
    "rtmw-m-256x192": "https://download.openmmlab.com/mmpose/v1/projects/rtmw/onnx_sdk/"
    "rtmw-dw-l-m_simcc-cocktail14_270e-256x192_20231122.zip",
}

# RTMO as its authors publish it, trained on the seven sets of `body7`. No digest is known here.
ONE_STAGE: dict[str, str] = {
    f"rtmo-{scale}": "https://download.openmmlab.com/mmpose/v1/projects/rtmo/onnx_sdk/"
    f"rtmo-{scale}_{batch}-600e_body7-640x640-{tail}_20231211.zip"
    for scale, batch, tail in (
        ("s", "8xb32", "dac2bf74"),
        ("m", "16xb16", "39e78cc4"),
        ("l", "16xb16", "b37118ce"),
    )
}

EXPORTED = WHOLE_BODY | ONE_STAGE
"""Addresses of the models that are published as ONNX files."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all, None where the server does not say."""


def fetch(
    name: str,
    folder: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> tuple[Path, str]:
    """Download a checkpoint into `folder`, complete or not at all; one that is there and fits is kept.

    Args:
        name: one of `OFFICIAL` or `EXPORTED`; underscores do as well as hyphens.
        url: another address than the official one; https, or http on this machine.
        sha256: what the file must have; without it, the digest known for this name, if any.

    Returns:
        The file, and its SHA-256.

    Raises:
        FetchError: unknown name, network trouble, too large, or another file than expected.
    """
    name = name.replace("_", "-")  # as a served model is called
    if name not in OFFICIAL and name not in EXPORTED:
        known = ", ".join([*OFFICIAL, *EXPORTED])
        raise FetchError(f"{name!a} is not an official pose checkpoint; there are {known}")
    wanted = (sha256 or OFFICIAL.get(name) or "").lower()
    official = EXPORTED.get(name, f"{RELEASE}/{name}.pt")
    address = url or official
    _refuse_insecure(address)
    target = folder / f"{name}{Path(urllib.parse.urlsplit(official).path).suffix}"
    partial = target.with_name(target.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            with target.open("rb") as file:
                present = hashlib.file_digest(file, "sha256").hexdigest()
            if present == wanted or not wanted:
                return target, present
        begin = _ONNX if target.suffix == ".onnx" else _ZIP
        digest = _download(address, partial, begin, progress)
        if wanted and digest != wanted:
            raise FetchError(
                f"{address} has SHA-256 {digest} instead of {wanted}; it was changed on the way or replaced, "
                "and was thrown away. If you trust it, name its digest with --sha256"
            )
        partial.replace(target)
    except (urllib.error.URLError, HTTPException, OSError) as exc:
        code = f"{exc.code} " if isinstance(exc, urllib.error.HTTPError) else ""
        reason = f"{code}{getattr(exc, 'reason', None) or exc}"
        raise FetchError(
            f"{address} could not be downloaded ({reason}). Download it on another machine, copy it here, "
            f"and run: posegate models add {target.name} --name {served_name(name)} {add_options(name)}"
        ) from exc
    finally:
        partial.unlink(missing_ok=True)
    return target, digest


def served_name(name: str) -> str:
    """What Triton calls a model of this name."""
    return name.replace("-", "_")


def add_options(name: str) -> str:
    """Options of `posegate models add` for it."""
    name = name.replace("_", "-")
    return f"--family {name.partition('-')[0]}" if name in EXPORTED else "--skeleton coco_17"


def _download(address: str, partial: Path, begin: bytes, progress: Progress | None) -> str:
    digest, done = hashlib.sha256(), 0
    opener = urllib.request.build_opener(_SecureRedirects)
    with opener.open(address, timeout=TIMEOUT_S) as response, partial.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if (total or 0) > MAX_BYTES:
            raise FetchError(f"{address} has {total} bytes, more than any pose checkpoint")
        while block := response.read(1 << 18):
            if not done and not block.startswith(begin):
                raise FetchError(f"{address} is no checkpoint, perhaps a proxy's page; open it in a browser")
            done += len(block)
            if done > MAX_BYTES:
                raise FetchError(f"{address} has more than {MAX_BYTES} bytes, more than any pose checkpoint")
            digest.update(block)
            file.write(block)
            if progress is not None:
                progress(done, total)
    if not done or (total is not None and done != total):
        raise FetchError(f"{address} ended after {done} of {total} bytes; try again")
    return digest.hexdigest()


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """GitHub redirects to its storage; a redirect to plain http is refused."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _refuse_insecure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_insecure(address: str) -> None:
    parts = urllib.parse.urlsplit(address)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    if parts.scheme != "https" and not local:
        raise FetchError(f"{address} is not an https address")
