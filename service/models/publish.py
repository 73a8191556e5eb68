"""From a described model to a plan that Triton can load: graph, build, comparison, manifest.

<repository>/gpu/<name>/config.pbtxt       what the model is; the builder follows it
<repository>/gpu/<name>/1/model.onnx       the graph, written here or brought along
<repository>/gpu/<name>/1/model.plan       what Triton loads; in a fleet model_sm89.plan and so on
<repository>/gpu/<name>/1/manifest.json    what every plan was made of and for

A plan is built aside, compared, and only then takes its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.core.skeleton.template import Skeleton
from service.models.accuracy import Comparison, Sample, Tolerance, compare
from service.models.average_precision import AnnotatedImages, ap_problems, compare_ap
from service.models.engines import Options, Progress, build_plan, library, profiles_for
from service.models.errors import AccuracyError, EngineError, RepositoryError
from service.models.gpu_config import (
    GpuModel,
    gpu_config_from,
    graph_problems,
    read_gpu_model,
    read_graph,
    with_plan_for,
)
from service.models.gpus import Gpu
from service.models.manifest import (
    ApLoss,
    EnginePlan,
    add_to_manifest,
    read_manifest,
    sha256_of_file,
    write_aside,
)
from service.models.runners import OpenVinoRunner, Runner

GRAPH = "model.onnx"

PlanRunner = Callable[[bytes], Runner]
"""Loads a plan's bytes where they can run."""


@dataclass(frozen=True)
class BuildRequest:
    """Request to build a plan.

    Attributes:
        options: how; `compute_capability` only to build ahead of time.
        best_batch: images that the plan is tuned for; None for half the largest batch.
        fleet: give the plan a name for its kind of GPU, and the configuration an entry that points to it.
        force: build even what is there and fits.
    """

    options: Options = field(default_factory=Options)
    best_batch: int | None = None
    fleet: bool = False
    force: bool = False


@dataclass(frozen=True)
class Gate:
    """Checks that a new plan has to pass.

    Attributes:
        run_plan: loads it.
        samples: images.
        skeleton: of the model, for the parts of the body.
        reference: the graph to compare with, an ONNX file's bytes; None for the plan's own graph, which
            OpenVINO computes in float32.
        tolerance: how far it may be off.
        annotated: images on which the plan must have the AP of its graph; None for none.
    """

    run_plan: PlanRunner
    samples: Sequence[Sample]
    skeleton: Skeleton
    reference: bytes | None = None
    tolerance: Tolerance | None = None
    annotated: AnnotatedImages | None = None


def describe(repository: Path, name: str, precision: str = "fp16") -> GpuModel:
    """The model `gpu/<name>`; one that is only there for the CPU is described for TensorRT, in `precision`.

    Raises:
        RepositoryError: there is no such model, or it cannot be served so.
    """
    folder = repository / "gpu" / name
    on_cpu = repository / "cpu" / name / "config.pbtxt"
    if not (folder / "config.pbtxt").is_file() and on_cpu.is_file():
        try:
            text = gpu_config_from(on_cpu.read_text(encoding="utf-8"), precision)
            (folder / "1").mkdir(parents=True, exist_ok=True)
            write_aside(folder / "config.pbtxt", text.encode())
        except OSError as exc:
            raise RepositoryError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    return read_gpu_model(folder)


def put_graph(model: GpuModel, graph: bytes, where: str) -> None:
    """Put an ONNX file into the model's folder, if it is one that this model can have.

    Args:
        where: what the graph is called in messages.

    Raises:
        EngineError: it is not; the message says why.
    """
    problems = list(graph_problems(read_graph(graph, where), model))
    if problems:
        raise EngineError(f"{where} is not the graph of {model.model.name}: {'; '.join(problems)}")
    path = model.folder / "1" / GRAPH
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != graph:
            write_aside(path, graph)
    except OSError as exc:
        raise EngineError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def build_model(
    model: GpuModel,
    tensorrt: Any,
    gpu: Gpu,
    request: BuildRequest,
    gate: Gate | None,
    progress: Progress | None = None,
) -> tuple[EnginePlan, bool]:
    """Build, compare and publish the plan of a model whose graph is in its folder.

    Args:
        tensorrt: the module that builds.
        gpu: which one it is built for; its name is empty ahead of time.
        gate: None publishes the plan uncompared, and the manifest says so.

    Returns:
        What the manifest now says, and whether anything was built; False if what is there would come out.

    Raises:
        EngineError: no graph, or it cannot be built.
        AccuracyError: the plan is too far from its graph; whatever was published before stays.
    """
    folder = model.folder / "1"
    graph = _read_graph_file(folder / GRAPH, model)
    capability = gpu.compute_capability
    file = f"model_sm{capability.replace('.', '')}.plan" if request.fleet else model.plan_file(capability)
    options = request.options
    profiles = profiles_for(
        model.model.typical_hw,
        model.model.max_batch_size,
        request.best_batch,
        other_hw=model.model.other_hw,
    )
    wanted = EnginePlan(
        file=file,
        sha256="",
        size=0,
        library=library(tensorrt),
        tensorrt=str(tensorrt.__version__),
        compute_capability=capability,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        gpu=gpu.name,
        driver=gpu.driver,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        weights_sha256=_weights_sha256(graph),
        precision=model.model.precision,
        tf32=options.tf32,
        optimisation_level=options.optimisation_level,
        profiles=profiles,
        built_at="",
        build_s=0.0,
    )
    present = None if request.force else _present(folder, wanted)
    if present is not None and _passed(present, gate):
        _point_to(model, capability, file)
        return present, False
    built = build_plan(tensorrt, graph, profiles, options, progress)
    comparison: Comparison | None = None
    ap: Mapping[str, ApLoss] | None = None
    if gate is not None:
        reference = OpenVinoRunner(graph if gate.reference is None else gate.reference)
        plan = gate.run_plan(built.plan)
        comparison = compare(reference, plan, model.model, gate.skeleton, gate.samples, gate.tolerance)
        problems = list(comparison.problems)
        if gate.annotated is not None:
            ap = compare_ap(reference, plan, model.model, gate.skeleton, gate.annotated)
            problems += ap_problems(ap)
        if problems:
            raise AccuracyError(
                f"the plan of {model.model.name} was built and is not published, since it does not give what "
                f"its graph gives: {'; '.join(problems)}. Build it in fp32 (precision in "
                f"{model.folder / 'config.pbtxt'}), or without TF32"
            )
    finished = replace(
        wanted,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        size=len(built.plan),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        build_s=round(built.build_s, 1),
        accuracy=dict(comparison.parts) if comparison else None,
        ap=ap,
    )
    try:
        write_aside(folder / file, built.plan)
        add_to_manifest(folder, finished)
        if built.timing_cache:
            write_aside(folder / "timing.cache", built.timing_cache)
    except OSError as exc:
        raise EngineError(f"{folder / file} cannot be written: {exc.strerror or exc}") from exc
    _point_to(model, capability, file)
    return finished, True


def _passed(plan: EnginePlan, gate: Gate | None) -> bool:
    """Whether a published plan has passed what is asked of it now."""
    if gate is None:
        return True
    return plan.accuracy is not None and (gate.annotated is None or plan.ap is not None)


def timing_cache(model: GpuModel) -> bytes:
    """The timing cache of earlier builds of this model; empty without any."""
    try:
        return (model.folder / "1" / "timing.cache").read_bytes()
    except OSError:
        return b""


def _read_graph_file(path: Path, model: GpuModel) -> bytes:
    try:
        graph = path.read_bytes()
    except OSError as exc:
        raise EngineError(
            f"there is no {path}; name the checkpoint with --weights, or an ONNX file with --onnx"
        ) from exc
    problems = list(graph_problems(read_graph(graph, str(path)), model))
    if problems:
        raise EngineError(f"{path} is not the graph of {model.model.name}: {'; '.join(problems)}")
    return graph


def _weights_sha256(graph: bytes) -> str:
    return next((entry.value for entry in read_graph(graph, "").metadata_props if entry.key == "sha256"), "")


def _present(folder: Path, wanted: EnginePlan) -> EnginePlan | None:
    """The plan that is there, if it is whole and would come out of the same build."""
    try:
        present = read_manifest(folder).get(wanted.file)
        path = folder / wanted.file
        if present is None or not present.same_build(wanted) or not path.is_file():
            return None
        return present if sha256_of_file(path) == present.sha256 else None
    except (EngineError, OSError):
        return None


def _point_to(model: GpuModel, capability: str, file: str) -> None:
    """Have Triton load `file` on GPUs of this capability."""
    path = model.folder / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
        pointed = with_plan_for(text, capability, file)
        if pointed != text:
            write_aside(path, pointed.encode())
    except OSError as exc:
        raise EngineError(f"{path} cannot be written: {exc.strerror or exc}") from exc
