"""The commands of `posegate`: run the gateway, or call it. Only options and exit codes are here."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, TypeVar

import grpc
import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from service.cli.connection import Target
from service.models.cli import app as models
from service.server.tls import BadCertificate
from service.settings import Settings
from service.telemetry.logging import configure
from service.telemetry.tracing import BadTracing

AnySettings = TypeVar("AnySettings", bound=BaseSettings)

app = typer.Typer(
    name="posegate",
    help="Human pose estimation as a gRPC microservice on NVIDIA Triton.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models, name="models")
skeletons = typer.Typer(help="Skeleton templates: shipped and your own.", no_args_is_help=True)
app.add_typer(skeletons, name="skeletons")


def _target(
    address: Annotated[
        str, typer.Option(envvar="POSEGATE_ADDRESS", help="host:port of the gateway.")
    ] = "127.0.0.1:50051",
    tls: Annotated[
        bool,
        typer.Option("--tls", envvar="POSEGATE_TLS", help="Speak TLS, trusting whom this machine trusts."),
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(envvar="POSEGATE_CA", help="Speak TLS, trusting the authorities in this PEM file."),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            envvar="POSEGATE_CERT", help="PEM file of your certificate, if the gateway asks for one."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(envvar="POSEGATE_KEY", help="PEM file of your certificate's private key.")
    ] = None,
) -> Target:
    return Target(address, tls, ca, cert, key)


def _calls(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options above, and the gateway that they name as its parameter `gateway`."""
    options = inspect.signature(_target, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    @wraps(command)
    def calling(**given: object) -> None:
        gateway = _target(**{name: given.pop(name) for name in options})  # type: ignore[arg-type]
        try:
            command(gateway, **given)
        except BadCertificate as error:
            _fail(str(error))

    parameters = [*(own[name] for name in own if name != "gateway"), *options.values()]
    calling.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    return calling


class OverlayFormat(StrEnum):
    """What overlays are written as."""

    png = "png"
    jpeg = "jpeg"


class ExportFormat(StrEnum):
    """What people are written as."""

    coco = "coco"
    yolo = "yolo"
    csv = "csv"


class Facing(StrEnum):
    """Toward or away from the camera, or in profile to that edge of the picture."""

    toward = "toward"
    away = "away"
    left = "left"
    right = "right"


class BodySide(StrEnum):
    """The person's own."""

    left = "left"
    right = "right"
    both = "both"


@app.command()
def serve() -> None:
    """Run the gateway against the Triton at POSEGATE_TRITON_URL."""
    from service.server.app import CannotListen
    from service.server.app import serve as run
    from service.store.address import BadDatabaseUrl

    settings = _settings()
    try:
        asyncio.run(run(settings))
    except (BadCertificate, BadDatabaseUrl, BadTracing, CannotListen) as error:
        _fail(str(error))


@app.command()
def web() -> None:
    """Run the HTTP door in front of the gateway at POSEGATE_WEB_GATEWAY."""
    from service.web.app import BadGatewayFile
    from service.web.server import CannotListen
    from service.web.server import serve as run
    from service.web.settings import WebSettings

    _settings()
    settings = _valid(WebSettings)
    try:
        asyncio.run(run(settings))
    except (BadGatewayFile, CannotListen) as error:
        _fail(str(error))


@app.command()
def up(
    web: Annotated[
        bool, typer.Option("--web", help="Run the HTTP door too, at POSEGATE_WEB_LISTEN.")
    ] = False,
) -> None:
    """Run the bundled Triton and the gateway, and watch both."""
    from service.cli.up import up as run
    from service.cli.web import CannotStartDoor
    from service.server.app import CannotListen
    from service.store.address import BadDatabaseUrl
    from service.triton.launch import TritonProcessError

    settings = _settings()
    try:
        asyncio.run(run(settings, web=web))
    except (
        BadCertificate,
        BadDatabaseUrl,
        BadTracing,
        CannotListen,
        CannotStartDoor,
        TritonProcessError,
    ) as error:
        _fail(str(error))


@app.command()
@_calls
def detect(
    gateway: Target,
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    overlay: Annotated[
        Path | None, typer.Option(help="Folder for pictures with the people drawn on them.")
    ] = None,
    overlay_format: Annotated[
        OverlayFormat, typer.Option(help="Format of the overlays.")
    ] = OverlayFormat.png,
    space_panel: Annotated[
        bool, typer.Option("--space-panel", help="Draw the people in space beside the picture.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option("--json", help="File for results as JSON Lines; - for stdout.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model name; empty for the service's default.")] = "",
    skeleton: Annotated[str, typer.Option(help="Skeleton to report in; empty for the model's own.")] = "",
    min_score: Annotated[float | None, typer.Option(help="People must be above this score.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each picture.")] = 60.0,
) -> None:
    """Find the people in pictures. Exit code 1 if any picture failed, with one line for each."""
    from service.cli.detect import Wish
    from service.cli.detect import detect as run

    wish = Wish(
        gateway=gateway,
        model=model,
        skeleton=skeleton,
        min_score=min_score,
        overlay=overlay,
        overlay_format=overlay_format.value,
        space_panel=space_panel,
        results=results,
        timeout_s=timeout,
    )
    try:
        failed = asyncio.run(run(pictures, wish))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


@app.command()
@_calls
def export(
    gateway: Target,
    results: Annotated[Path, typer.Argument(help="JSON Lines of `posegate detect --json`; - for stdin.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the files; made if it is not there.")],
    export_format: Annotated[
        ExportFormat, typer.Option("--format", help="COCO keypoints JSON, Ultralytics YOLO pose, or CSV.")
    ] = ExportFormat.coco,
    skeleton: Annotated[str, typer.Option(help="Skeleton of the results; empty: the one they name.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds for the whole export.")] = 300.0,
) -> None:
    """Write people that were found as files for training tools."""
    from service.cli.export import BadResults, Wish
    from service.cli.export import export as run

    wish = Wish(
        gateway=gateway, format=export_format.value, folder=folder, skeleton=skeleton, timeout_s=timeout
    )
    try:
        asyncio.run(run(results, wish))
    except BadResults as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    except grpc.aio.AioRpcError as error:
        _fail(gateway.explain(error))


@app.command()
@_calls
def measure(
    gateway: Target,
    picture: Annotated[Path, typer.Argument(help="Picture file.")],
    measurement: Annotated[str, typer.Option(help="Names, comma-separated, such as knee_flexion,splits.")],
    side: Annotated[BodySide, typer.Option(help="The person's own side.")] = BodySide.both,
    everybody: Annotated[
        bool, typer.Option("--all", help="Measure everybody, not only the largest.")
    ] = False,
    person: Annotated[
        int | None, typer.Option(help="Measure this one of those found, by falling score, from 0.")
    ] = None,
    facing: Annotated[
        Facing | None, typer.Option(help="Where the person faces, if it cannot be found out.")
    ] = None,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="The picture is a mirror image.")] = False,
    camera_roll: Annotated[
        float, typer.Option(help="Degrees by which the camera was turned clockwise, seen from behind it.")
    ] = 0.0,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Angle to subtract, as knee_flexion:left=4.5; may be repeated."),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="People must be above this score.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="File for the drawn picture: .png or .jpg.")] = None,
    model: Annotated[str, typer.Option(help="Model name; empty for the service's default.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds for the call.")] = 60.0,
) -> None:
    """Measure joint angles in a picture. Exit code 1 if the call failed."""
    from service.cli.measure import BadWish, Wish
    from service.cli.measure import measure as run

    wish = Wish(
        gateway=gateway,
        measurements=measurement,
        side=side.value,
        model=model,
        everybody=everybody,
        overlay=overlay,
        timeout_s=timeout,
        person=person,
        facing=facing.value if facing is not None else "",
        mirrored=mirrored,
        camera_roll_deg=camera_roll,
        baseline=tuple(baseline or ()),
        min_score=min_score,
    )
    try:
        done = asyncio.run(run(picture, picture.read_bytes(), wish))
    except BadWish as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    if not done:
        raise typer.Exit(1)


@app.command()
@_calls
def video(
    gateway: Target,
    clip: Annotated[Path, typer.Argument(help="Video file.")],
    out: Annotated[Path | None, typer.Option(help="File for the frames as JSON Lines.")] = None,
    annotated: Annotated[
        Path | None, typer.Option(help="File for the video with what was found on it.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file for the angles over time.")] = None,
    measure_names: Annotated[
        list[str] | None,
        typer.Option("--measure", help="Measurement; may be repeated, or separated by commas."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model name; empty for the service's default.")] = "",
    skeleton: Annotated[str, typer.Option(help="Skeleton; empty for the model's own.")] = "",
    every_nth: Annotated[
        int | None, typer.Option(min=1, max=(1 << 31) - 1, help="Analyse every n-th frame.")
    ] = None,
    target_fps: Annotated[float | None, typer.Option(help="Analyse so many frames a second.")] = None,
    start: Annotated[float, typer.Option(help="Seconds to pass over.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Second to stop at.")] = None,
    smooth: Annotated[bool, typer.Option(help="Add smoothed keypoints and angles.")] = False,
) -> None:
    """Find and follow the people in a video. Run it again after an interruption: it goes on with --out."""
    from service.cli.video import BadWish, CutShort, Wish
    from service.cli.video import video as run

    wish = Wish(
        gateway=gateway,
        model=model,
        skeleton=skeleton,
        measurements=tuple(measure_names or ()),
        every_nth=every_nth,
        target_fps=target_fps,
        start_s=start,
        end_s=end,
        smooth=smooth,
        out=out,
        annotated=annotated,
        plot=plot,
    )
    try:
        asyncio.run(run(clip, wish))
    except OSError as error:  # a full disk is told without the file's name
        _fail(f"{error.filename or out or annotated or plot}: {error.strerror}")
    except (BadWish, CutShort) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
@_calls
def health(
    gateway: Target,
    service: Annotated[str, typer.Option(help="Service name; empty for the gateway as a whole.")] = "",
) -> None:
    """Ask whether the gateway can answer. Exit code 1 if it is not SERVING."""
    from service.cli.info import health as ask

    said = asyncio.run(ask(gateway, service))
    print(said)
    if said != "SERVING":
        raise typer.Exit(1)


@models.command("list")
@_calls
def list_models(gateway: Target) -> None:
    """List what the gateway serves, with licences."""
    from service.cli.info import list_models as ask

    _call(gateway, ask(gateway))


@skeletons.command("list")
@_calls
def list_skeletons(gateway: Target) -> None:
    """List the skeletons that a request can name."""
    from service.cli.skeletons import list_skeletons as ask

    _call(gateway, ask(gateway))


@skeletons.command("show")
@_calls
def show_skeleton(
    gateway: Target, name: Annotated[str, typer.Argument(help="Name of the skeleton.")]
) -> None:
    """Print a skeleton as JSON, in the form that `create` takes."""
    from service.cli.skeletons import show

    _call(gateway, show(gateway, name))


@skeletons.command("create")
@_calls
def create_skeleton(
    gateway: Target,
    file: Annotated[Path, typer.Argument(help="JSON file in the form that `show` prints.")],
) -> None:
    """Keep a skeleton of your own. Every problem of the file is told at once."""
    from service.cli.skeletons import BadFile, create

    try:
        _call(gateway, create(gateway, file))
    except BadFile as error:
        _fail(str(error))


@skeletons.command("update")
@_calls
def update_skeleton(
    gateway: Target,
    file: Annotated[Path, typer.Argument(help="JSON file in the form that `show` prints.")],
    etag: Annotated[str, typer.Option(help="Replace it only if it still is this version.")] = "",
) -> None:
    """Replace a skeleton of your own that has the file's name."""
    from service.cli.skeletons import BadFile, update

    try:
        _call(gateway, update(gateway, file, etag))
    except BadFile as error:
        _fail(str(error))


@skeletons.command("delete")
@_calls
def delete_skeleton(
    gateway: Target,
    name: Annotated[str, typer.Argument(help="Name of the skeleton.")],
    etag: Annotated[str, typer.Option(help="Remove it only if it still is this version.")] = "",
) -> None:
    """Remove a skeleton of your own."""
    from service.cli.skeletons import delete

    _call(gateway, delete(gateway, name, etag))


def _call(gateway: Target, asking: Coroutine[None, None, None]) -> None:
    try:
        asyncio.run(asking)
    except grpc.aio.AioRpcError as error:
        _fail(gateway.explain(error))


def _settings() -> Settings:
    settings = _valid(Settings)
    configure(settings)
    return settings


def _valid(kind: type[AnySettings]) -> AnySettings:
    """Settings from the environment; exit code 2, and a line for each that is wrong."""
    prefix = kind.model_config["env_prefix"]
    try:
        return kind()
    except ValidationError as error:
        for problem in error.errors():
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"{name}: {problem['msg']} (got {problem['input']!r})", file=sys.stderr)
        raise typer.Exit(2) from None


def _fail(message: str) -> None:
    print(f"posegate: {message}", file=sys.stderr)
    raise typer.Exit(1)
