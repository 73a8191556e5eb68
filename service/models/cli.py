"""`posegate models add | fetch | fill | build | verify`: bring models into the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from service.core.skeleton.template import Skeleton
from service.models.engine_commands import build, verify
from service.models.errors import FetchError, RepositoryError
from service.models.fetch import OFFICIAL, WHOLE_BODY, add_options, fetch, served_name
from service.models.one_line import errors_on_one_line
from service.skeletons import known, read

REPOSITORY = Path("model_repository")
WEIGHTS = Path(".posegate/weights")
AGPL_NOTICE = (
    "Note: these weights are under {licence} (Ultralytics). Whoever offers a network service with them must "
    "offer its users the complete source, or hold an Ultralytics Enterprise licence."
)

app = typer.Typer(name="models", help="Bring models into the repository.", no_args_is_help=True)

app.command()(build)
app.command()(verify)

Repository = Annotated[Path, typer.Option(help="The folder that holds cpu/.")]


@app.command()
def add(
    checkpoint: Annotated[Path, typer.Argument(help="A YOLOv8 or YOLO11 pose checkpoint (.pt).")],
    name: Annotated[str, typer.Option(help="What Triton calls it: a-z, 0-9 and _.")],
    skeleton: Annotated[
        str,
        typer.Option(help="The template that its keypoints follow: coco_17, or a JSON file of your own."),
    ] = "",
    family: Annotated[
        Literal["yolo_pose", "rtmw3d", "rtmw"],
        typer.Option(help="yolo_pose for a .pt; rtmw3d or rtmw (2D) for a whole-body .onnx or .zip."),
    ] = "yolo_pose",
    first_stage: Annotated[
        str, typer.Option(help="The model that finds people for a whole-body model.")
    ] = "yolo11n_pose",
    repository: Repository = REPOSITORY,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Of the ONNX file.")] = "fp32",
    cpu_precision: Annotated[
        Literal["bf16", "f32"] | None,
        typer.Option(help="What OpenVINO computes in; without it bf16, and f32 for a whole-body model."),
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX name; without it, what the checkpoint says.")] = "",
    source: Annotated[str, typer.Option(help="Where the checkpoint comes from.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a model of this name.")] = False,
) -> None:
    """Turn a checkpoint into a served model."""
    with errors_on_one_line():
        from service.models.checkpoint import read_checkpoint
        from service.models.repository import add_model, spdx_licence

        if family != "yolo_pose":
            folder = _add_whole_body(
                repository,
                checkpoint,
                name=name,
                skeleton=skeleton,
                family=family,
                first_stage=first_stage,
                precision=precision,
                cpu_precision=cpu_precision or "f32",
                licence=licence,
                source=source,
                replace=replace,
            )
            typer.echo(f"{folder}: finds keypoints of people that {first_stage} finds")
            return
        if not skeleton:
            raise RepositoryError("--skeleton is missing: name the template that the keypoints follow")
        template = _template(skeleton, repository)
        parsed = read_checkpoint(checkpoint)
        folder = add_model(
            repository,
            parsed,
            name=name,
            skeleton=template.name,
            skeleton_keypoints=len(template.keypoints),
            precision=precision,
            cpu_precision=cpu_precision or "bf16",
            licence=licence,
            source=source,
            replace=replace,
        )
        if skeleton.endswith(".json"):
            _keep_template(Path(skeleton), repository / "skeletons" / f"{template.name}.json")
        typer.echo(f"{folder}: skeleton {template.name}, sha256 {parsed.sha256}")
        _notice(licence or spdx_licence(parsed.licence))


@app.command("fetch")
def fetch_command(
    names: Annotated[list[str], typer.Argument(help=f"Of {', '.join([*OFFICIAL, *WHOLE_BODY])}.")],
    to: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = WEIGHTS,
    sha256: Annotated[str, typer.Option(help="What the file must have; for one name.")] = "",
) -> None:
    """Download official checkpoints; add them with `posegate models add`."""
    with errors_on_one_line():
        if sha256 and len(names) > 1:
            raise FetchError("--sha256 fits one name only; fetch them one by one")
        for name in names:
            with _progress(name) as show:
                path, digest = fetch(name, to, sha256=sha256 or None, progress=show)
            compared = sha256 or OFFICIAL.get(name.replace("_", "-"))
            note = "as expected" if compared else "not compared, none is known here; see --sha256"
            typer.echo(f"{path}: sha256 {digest} ({note})")
            typer.echo(f"Next: posegate models add {path} --name {served_name(name)} {add_options(name)}")
            if path.suffix == ".pt":
                _notice("AGPL-3.0")


@app.command()
def fill(
    weights: Annotated[
        Path, typer.Argument(help="The checkpoint; or the folder of MediaPipe's networks.")
    ] = WEIGHTS / "yolo11n-pose.pt",
    name: Annotated[str, typer.Option(help="A model whose config.pbtxt is there.")] = "yolo11n_pose",
    repository: Repository = REPOSITORY,
) -> None:
    """Write the graph of a model that the repository describes already, unless it is there."""
    with errors_on_one_line():
        if weights.is_dir():  # MediaPipe's networks, which are several files and are served as they are
            written = _fill_mediapipe(repository, weights, name)
            typer.echo(f"{name}: {'written' if written else 'up to date'}")
            return
        from service.models.repository import fill as fill_model

        written = fill_model(repository, weights, name)
        typer.echo(f"{name}: {'written' if written else 'up to date'}")
        if written:
            _notice("AGPL-3.0")


def _fill_mediapipe(repository: Path, weights: Path, name: str) -> bool:
    from service.models import mediapipe

    try:
        return mediapipe.fill(repository, weights, name)
    except mediapipe.MediapipeError as error:
        raise RepositoryError(str(error)) from error


def _add_whole_body(
    repository: Path,
    path: Path,
    *,
    name: str,
    skeleton: str,
    family: Literal["rtmw3d", "rtmw"],
    first_stage: str,
    precision: Literal["fp32", "fp16"],
    cpu_precision: Literal["bf16", "f32"],
    licence: str,
    source: str,
    replace: bool,
) -> Path:
    from service.models.rtmw import add_rtmw

    template = _template(skeleton or "coco_wholebody_133", repository)
    return add_rtmw(
        repository,
        path,
        name=name,
        family=family,
        first_stage=first_stage,
        skeleton=template.name,
        skeleton_keypoints=len(template.keypoints),
        precision=precision,
        cpu_precision=cpu_precision,
        licence=licence or "Apache-2.0",
        source=source,
        replace=replace,
    )


def _template(skeleton: str, repository: Path) -> Skeleton:
    """The template of that name, or in that file."""
    if skeleton.endswith(".json"):
        try:
            return read(Path(skeleton))
        except ValueError as error:
            raise RepositoryError(str(error)) from error
    templates = known(repository / "skeletons")
    if skeleton not in templates:
        raise RepositoryError(
            f"there is no skeleton {skeleton!a}; choose from {', '.join(sorted(templates))}, or a JSON file"
        )
    return templates[skeleton]


def _keep_template(source: Path, target: Path) -> None:
    """Beside the models, where the gateway looks for it (POSEGATE_SKELETONS)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(source.read_bytes())
    partial.replace(target)


def _notice(licence: str) -> None:
    if licence.upper().startswith("AGPL"):
        typer.echo(AGPL_NOTICE.format(licence=licence))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
