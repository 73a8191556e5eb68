"""`posegate models build`: TensorRT plans, on the GPU that runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.models.commands.options import REPOSITORY, WEIGHTS, Repository
from service.models.errors import EngineError
from service.models.one_line import errors_on_one_line

UNKNOWN = "unknown"  # the sha256 of weights without a published one


def build(
    names: Annotated[list[str], typer.Argument(help="Models of the repository, such as yolov8m_pose.")],
    weights: Annotated[
        Path | None, typer.Option(help="The checkpoint, or a folder that holds it by its name.")
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="The graph, instead of a checkpoint; for one model.")
    ] = None,
    repository: Repository = REPOSITORY,
    samples: Annotated[
        Path | None, typer.Option(help="Images to compare the plan on; else those that ship.")
    ] = None,
    annotated: Annotated[
        Path | None, typer.Option(help="Folder of annotated images, on which the plan must keep its AP.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Their annotations, in COCO's layout, as for posegate evaluate.")
    ] = None,
    comparison: Annotated[
        bool, typer.Option(help="Publish a plan only if it gives what its graph gives.")
    ] = True,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Keep one plan for each kind of GPU (cc_model_filenames).")
    ] = False,
    best_batch: Annotated[
        int | None, typer.Option(help="Batch size to tune for; else half of the largest.")
    ] = None,
    hardware_compatibility: Annotated[
        Literal["none", "same_compute_capability", "ampere_plus"],
        typer.Option(help="Other GPUs that may load the plan; costs speed."),
    ] = "none",
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="A newer TensorRT may load it. Triton: --backend-config=tensorrt,version-compatible=true.",
        ),
    ] = False,
    tf32: Annotated[bool, typer.Option(help="Let fp32 layers round their inputs to TF32.")] = True,
    level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fast, 5 builds fast plans.")] = 3,
    workspace_mib: Annotated[int, typer.Option(min=0, help="Memory for a layer; 0 for all there is.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Build even what is there and fits.")] = False,
    library: Annotated[
        str, typer.Option(help="The module that builds; tensorrt_rtx_bindings needs no GPU.")
    ] = "tensorrt",
    compute_capability: Annotated[
        str, typer.Option("--for", help="Build ahead of time for a GPU such as 8.9; TensorRT-RTX only.")
    ] = "",
) -> None:
    """Build the TensorRT plans of models, on the GPU that will run them."""
    with errors_on_one_line():
        if onnx is not None and len(names) > 1:
            raise EngineError("--onnx fits one model only; build them one by one")
        on = _annotated_images(annotated, annotations, comparison)
        from service.models import publish
        from service.models.engines import Options, load_tensorrt
        from service.models.engines import library as kind_of
        from service.models.gpus import Gpu, visible_gpus

        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        tensorrt = load_tensorrt(library)
        gpu = Gpu("", compute_capability, "") if compute_capability else visible_gpus()[0]
        if compute_capability and comparison:
            raise EngineError("a plan for another GPU cannot be compared here: add --no-comparison")
        for name in names:
            model = publish.describe(repository, name)
            reference = _provide_graph(model, onnx, weights)
            gate = _gate(model, tensorrt, samples, reference, on) if comparison else None
            options = Options(
                compute_capability=compute_capability,
                hardware_compatibility=hardware_compatibility,
                version_compatible=version_compatible,
                tf32=tf32,
                optimisation_level=level,
                workspace_bytes=workspace_mib << 20,
                timing_cache=publish.timing_cache(model),
            )
            request = publish.BuildRequest(options, best_batch=best_batch, fleet=fleet, force=force)
            with _progress(name) as show:
                plan, built = publish.build_model(model, tensorrt, gpu, request, gate, show)
            where = model.folder / "1" / plan.file
            outcome = f"{plan.size / 1e6:.1f} MB, built in {plan.build_s} s" if built else "up to date"
            card = f"{gpu.name} ({gpu.compute_capability})" if gpu.name else gpu.compute_capability
            typer.echo(f"{where}: {outcome}; {plan.precision} for {card}, TensorRT {plan.tensorrt}")
            for part, accuracy in (plan.accuracy or {}).items():
                typer.echo(
                    f"  {part:6} {accuracy.points:5d} keypoints, off by {accuracy.median:.3%} (median), "
                    f"{accuracy.p95:.3%} (95th percentile)"
                )
            for part, ap in (plan.ap or {}).items():
                typer.echo(f"  {part:6} AP {100 * ap.plan:.1f}, of the graph {100 * ap.reference:.1f}")
        if kind_of(tensorrt) == "tensorrt_rtx":
            typer.echo("Note: Triton loads plans of TensorRT only, not of TensorRT-RTX.", err=True)


def _annotated_images(folder: Path | None, annotations: Path | None, comparison: bool) -> Any:
    """Images for the gate on AP; None without."""
    if folder is None and annotations is None:
        return None
    if folder is None or annotations is None:
        raise EngineError("--annotated, the folder of images, and --annotations, the file, go together")
    if not comparison:
        raise EngineError("--no-comparison compares no AP either: leave one of the two out")
    from service.models.average_precision import read_annotated

    return read_annotated(folder, annotations)


def _provide_graph(model: Any, onnx: Path | None, weights: Path | None) -> bytes | None:
    """Write the graph into the model's folder; the fp32 graph to compare with, None without a checkpoint."""
    from service.models.publish import GRAPH, put_graph

    if onnx is not None:
        try:
            put_graph(model, onnx.read_bytes(), str(onnx))
        except OSError as exc:
            raise EngineError(f"{onnx} cannot be read: {exc.strerror or exc}") from exc
        return None
    path = WEIGHTS if weights is None else weights
    path = path / model.model.weights if weights is None or path.is_dir() else path
    if weights is None and not path.is_file():
        if (model.folder / "1" / GRAPH).is_file():
            return None
        raise EngineError(
            f"there is no {path}; get it with posegate models fetch, or name it with --weights, "
            "or name a graph with --onnx"
        )
    graph, reference = _write_graph(model.model, path)
    put_graph(model, graph, str(path))
    return reference


def _write_graph(model: Any, weights: Path) -> tuple[bytes, bytes]:
    """The graph of a checkpoint in the model's precision, and in fp32."""
    from service.models import rtmo
    from service.models.checkpoint import read_checkpoint, sha256_of
    from service.models.rtmw import family_of, rewrite
    from service.models.yolo_graph import build_graph

    try:
        digest = sha256_of(weights)
    except OSError as exc:
        raise EngineError(f"{weights} cannot be read: {exc.strerror or exc}") from exc
    if model.sha256 not in (digest, UNKNOWN):
        raise EngineError(
            f"{weights} has the SHA-256 {digest}, the configuration of {model.name} names {model.sha256}; "
            "name the right file with --weights"
        )
    write: Callable[[Any], Any]
    if model.family == "yolo_pose" and weights.suffix in (".onnx", ".zip"):

        def write(precision: Any) -> Any:
            return rtmo.rewrite(weights, precision).graph

    elif model.family == "yolo_pose":
        write = partial(build_graph, read_checkpoint(weights))
    else:
        write = partial(rewrite, weights, family_of(weights))
    reference = write("fp32").SerializeToString()
    return (reference if model.precision == "fp32" else write(model.precision).SerializeToString()), reference


def _gate(model: Any, tensorrt: Any, samples: Path | None, reference: bytes | None, annotated: Any) -> Any:
    """Comparison of the plan with its graph, on this machine's GPU."""
    from service.models.accuracy import load_samples, shipped_samples
    from service.models.cuda import Cuda
    from service.models.publish import Gate
    from service.models.runners import TensorRtRunner
    from service.skeletons import shipped

    skeleton = shipped().get(model.model.skeleton)
    if skeleton is None:
        raise EngineError(f"there is no skeleton {model.model.skeleton!a} to tell the parts of the body by")
    return Gate(
        run_plan=lambda plan: TensorRtRunner(tensorrt, plan, Cuda()),
        samples=shipped_samples() if samples is None else load_samples(samples),
        skeleton=skeleton,
        reference=reference,
        annotated=annotated,
    )


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each phase of the build on stderr; without a terminal a line for each."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(f"{name}: {phase}", total=total)
                if not console.is_terminal:
                    typer.echo(f"{name}: {phase} ({total} steps)", err=True)
            bar.update(tasks[phase], completed=done, total=total)

        yield show
