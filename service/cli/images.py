"""Image files sent to the gateway one by one: bounded requests in flight, answers in the order of the files,
a line for each file that failed, results as JSON Lines, overlays as files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posegate.v1 import types_pb2
from service.cli.connection import Target
from service.cli.failures import BadOption, Interrupted
from service.cli.files import is_device, partial, write_whole
from service.cli.formats import kind_of
from service.cli.options import OverlayFormat

_IN_FLIGHT = 8
_ENCODINGS = {".png": OverlayFormat.png, ".jpg": OverlayFormat.jpeg, ".jpeg": OverlayFormat.jpeg}
_SUFFIXES = {OverlayFormat.png: ".png", OverlayFormat.jpeg: ".jpg"}
_MESSAGES = {
    OverlayFormat.png: types_pb2.OVERLAY_FORMAT_PNG,
    OverlayFormat.jpeg: types_pb2.OVERLAY_FORMAT_JPEG,
}

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class ImageConfig:
    """What every command does with image files.

    Attributes:
        gateway: to call.
        timeout_s: of each call.
        results: file for JSON Lines, - for stdout; None for a summary on the terminal.
        overlay: folder for the drawn images, or a file for that of one image; None for no overlays.
        overlay_format: of the overlays; None: that of the file's name, or PNG.
    """

    gateway: Target
    timeout_s: float = 60.0
    results: Path | None = None
    overlay: Path | None = None
    overlay_format: OverlayFormat | None = None


@dataclass(frozen=True, eq=False)
class ImageAnswer(Generic[M]):
    """The answer for one image.

    Attributes:
        message: without overlays.
        overlays: encoded images; the key is "" or what tells several of one image apart.
    """

    message: M
    overlays: Mapping[str, bytes] = field(default_factory=dict)


class OverlayPaths:
    """Paths of overlays: named as the images, numbered where names collide, never the path of an image.

    Args:
        images: all that are sent.
        config: says the folder or file, and the encoding.

    Raises:
        BadOption: a file for several images, or of another encoding than asked for.
        OSError: the folder cannot be made.
    """

    def __init__(self, images: Sequence[Path], config: ImageConfig) -> None:
        self._paths: dict[Path, Path] = {}
        self._taken = {image.resolve() for image in images}
        self._format = config.overlay_format or OverlayFormat.png
        target = config.overlay
        if target is None:
            return
        if target.suffix.lower() in _ENCODINGS and not target.is_dir():
            self._format = _ENCODINGS[target.suffix.lower()]
            self._check_file(target, images, config)
            self._paths = dict.fromkeys(images, target)
            return
        target.mkdir(parents=True, exist_ok=True)
        suffix = _SUFFIXES[self._format]
        for image in images:
            self._paths[image] = self._free(target, image.stem, suffix)

    @property
    def options(self) -> types_pb2.OverlayOptions | None:
        """What a request asks for; None where there are no overlays."""
        return types_pb2.OverlayOptions(format=_MESSAGES[self._format]) if self._paths else None

    def write(self, image: Path, overlays: Mapping[str, bytes]) -> list[Path]:
        """Write the overlays of an image; the paths written.

        Raises:
            OSError: one cannot be written.
        """
        written = []
        for part, content in overlays.items():
            path = self._paths[image]
            if part:
                path = self._free(path.parent, f"{path.stem}-{part}", path.suffix)
            write_whole(path, content)
            written.append(path)
        return written

    def _free(self, folder: Path, stem: str, suffix: str) -> Path:
        resolved = folder.resolve()
        name, number = f"{stem}{suffix}", 1
        while resolved / name in self._taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._taken.add(resolved / name)
        return folder / name

    def _check_file(self, target: Path, images: Sequence[Path], config: ImageConfig) -> None:
        if len(images) > 1:
            raise BadOption(f"--overlay {target}: is one file for {len(images)} images: give a folder")
        if config.overlay_format not in (None, self._format):
            raise BadOption(f"--overlay {target}: is no name of a {config.overlay_format} file")
        if target.resolve() in self._taken:
            raise BadOption(f"--overlay {target}: is the image itself: give another file")
        if not target.absolute().parent.is_dir():
            raise BadOption(f"--overlay {target}: there is no folder {target.absolute().parent}")


async def send(
    images: Sequence[Path],
    config: ImageConfig,
    overlays: OverlayPaths,
    ask: Callable[[bytes], Awaitable[ImageAnswer[M]]],
    show: Callable[[Path, M, list[Path]], None],
) -> int:
    """Send every image.

    Args:
        images: files, in the order of the output.
        config: what to write.
        overlays: where overlays go.
        ask: the call, with the content of one file.
        show: prints one answer, with the paths of its overlays; used without `config.results`.

    Returns:
        Number of images that failed, each with a line on stderr.

    Raises:
        OSError: a result cannot be written.
    """
    console = Console(stderr=True, highlight=False, emoji=False)
    failed = 0
    async with _open(config.results) as results:
        with _progress(console, shown=len(images) > 1) as progress:
            task = progress.add_task("images", total=len(images))
            async for image, answer in _in_order(images, lambda image: _one(image, config, ask)):
                progress.advance(task)
                if isinstance(answer, str):
                    failed += 1
                    progress.console.print(f"{image}: {answer}", style="red", markup=False, soft_wrap=True)
                    _write(results, {"picture": str(image), "error": answer})
                    continue
                paths = overlays.write(image, answer.overlays)
                if results is None:
                    show(image, answer.message, paths)
                _write(results, {"picture": str(image), **as_dict(answer.message)})
    return failed


def run(sending: Coroutine[Any, Any, int], results: Path | None) -> bool:
    """Run `send` to its end; whether every image went well.

    Raises:
        Interrupted: Ctrl-C; the text says where the results up to then are.
    """
    try:
        return not asyncio.run(sending)
    except KeyboardInterrupt:
        kept = ""
        if results is not None and partial(results).is_file():
            kept = f" The images done so far are in {partial(results)};"
        raise Interrupted(f"interrupted.{kept} run the same command to start again.") from None


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON has it, names as in the contract, fields without presence always there."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def _in_order(
    images: Sequence[Path], ask: Callable[[Path], Coroutine[Any, Any, ImageAnswer[M] | str]]
) -> AsyncIterator[tuple[Path, ImageAnswer[M] | str]]:
    """Answers in the order of the images, at most `_IN_FLIGHT` requests under way."""
    waiting: list[tuple[Path, asyncio.Task[ImageAnswer[M] | str]]] = []
    remaining = iter(images)
    try:
        while True:
            while len(waiting) < _IN_FLIGHT and (image := next(remaining, None)) is not None:
                waiting.append((image, asyncio.create_task(ask(image))))
            if not waiting:
                return
            image, task = waiting.pop(0)
            yield image, await task
    finally:
        for _, task in waiting:
            task.cancel()


async def _one(
    image: Path, config: ImageConfig, ask: Callable[[bytes], Awaitable[ImageAnswer[M]]]
) -> ImageAnswer[M] | str:
    try:
        if await asyncio.to_thread(kind_of, image) == "video":
            return "is a video: use `posegate video`"
        content = await asyncio.to_thread(image.read_bytes)
    except OSError as error:
        return error.strerror or str(error)
    try:
        return await ask(content)
    except grpc.aio.AioRpcError as error:
        return config.gateway.explain(error)


@asynccontextmanager
async def _open(path: Path | None) -> AsyncIterator[TextIO | None]:
    """A file that gets its name only once it is complete; `-` is stdout."""
    if path is None:
        yield None
    elif str(path) == "-":
        yield sys.stdout
    else:
        growing = path if is_device(path) else partial(path)
        with growing.open("w", encoding="utf-8") as file:
            yield file
        if growing != path:
            growing.replace(path)


def _write(file: TextIO | None, line: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _progress(console: Console, *, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
    )
