"""`posegate models add`: a checkpoint to a served model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from service.core.skeleton.template import Skeleton
from service.models.commands.options import REPOSITORY, Repository, print_notice
from service.models.errors import RepositoryError
from service.models.one_line import errors_on_one_line
from service.skeletons import known, read


def add(
    checkpoint: Annotated[
        Path, typer.Argument(help="A YOLOv8 or YOLO11 pose checkpoint, or a public file of RTMO or RTMW.")
    ],
    name: Annotated[str, typer.Option(help="Name of the served model: a-z, 0-9 and _.")],
    skeleton: Annotated[
        str,
        typer.Option(help="The template that its keypoints follow: coco_17, or a JSON file of your own."),
    ] = "",
    family: Annotated[
        Literal["yolo_pose", "rtmo", "rtmw3d", "rtmw"],
        typer.Option(
            help="yolo_pose for a .pt; for an .onnx or .zip rtmo, or of a whole body rtmw3d or rtmw (2D)."
        ),
    ] = "yolo_pose",
    first_stage: Annotated[
        str, typer.Option(help="The model that finds people for a whole-body model.")
    ] = "yolo11n_pose",
    repository: Repository = REPOSITORY,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Of the ONNX file.")] = "fp32",
    cpu_precision: Annotated[
        Literal["bf16", "f32"] | None,
        typer.Option(help="What OpenVINO computes in; without it bf16 for a .pt, and f32 for the others."),
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX name; without it, what the checkpoint says.")] = "",
    source: Annotated[str, typer.Option(help="Where the checkpoint comes from.")] = "",
    tenant: Annotated[str, typer.Option(help="The only tenant that may use it; without it, everyone.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a model of this name.")] = False,
) -> None:
    """Turn a checkpoint into a served model."""
    with errors_on_one_line():
        from service.models.checkpoint import read_checkpoint, sha256_of
        from service.models.repository import add_model, spdx_licence

        if family == "rtmo":
            folder = _add_rtmo(
                repository,
                checkpoint,
                name=name,
                skeleton=skeleton,
                precision=precision,
                cpu_precision=cpu_precision or "f32",
                licence=licence,
                source=source,
                tenant=tenant,
                replace=replace,
            )
            typer.echo(f"{folder}: sha256 {sha256_of(checkpoint)}")
            _print_next(name)
            return
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
                tenant=tenant,
                replace=replace,
            )
            typer.echo(f"{folder}: finds keypoints of people that {first_stage} finds")
            _print_next(name)
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
            tenant=tenant,
            replace=replace,
        )
        if skeleton.endswith(".json"):
            _keep_template(Path(skeleton), repository / "skeletons" / f"{template.name}.json")
        typer.echo(f"{folder}: skeleton {template.name}, sha256 {parsed.sha256}")
        print_notice(licence or spdx_licence(parsed.licence))
        _print_next(name)


def _print_next(name: str) -> None:
    """Triton reads the repository when it starts (`--model-control-mode=none`, as `posegate up` and the chart
    run it), or when it is asked to."""
    typer.echo(
        "Next: a Triton that is running does not serve it yet. Start `posegate up` or your Triton again, or, "
        f"with --model-control-mode=explicit, POST /v2/repository/models/{name}/load"
    )


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
    tenant: str,
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
        tenant=tenant,
        replace=replace,
    )


def _add_rtmo(
    repository: Path,
    path: Path,
    *,
    name: str,
    skeleton: str,
    precision: Literal["fp32", "fp16"],
    cpu_precision: Literal["bf16", "f32"],
    licence: str,
    source: str,
    tenant: str,
    replace: bool,
) -> Path:
    from service.models.rtmo import add_rtmo

    template = _template(skeleton or "coco_17", repository)
    folder = add_rtmo(
        repository,
        path,
        name=name,
        skeleton=template.name,
        skeleton_keypoints=len(template.keypoints),
        precision=precision,
        cpu_precision=cpu_precision,
        licence=licence or "Apache-2.0",
        source=source,
        tenant=tenant,
        replace=replace,
    )
    if skeleton.endswith(".json"):
        _keep_template(Path(skeleton), repository / "skeletons" / f"{template.name}.json")
    return folder


def _template(skeleton: str, repository: Path) -> Skeleton:
    """The template of that name, or in that JSON file."""
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
    """Copy a template beside the models, where the gateway reads it (POSEGATE_SKELETONS)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(source.read_bytes())
    partial.replace(target)
