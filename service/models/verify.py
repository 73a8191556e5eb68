"""Whether the TensorRT plans of a repository fit the GPU and the TensorRT that will load them.

    python3 -m service.models.verify /models/gpu

runs before Triton starts, in Triton's own image: only the standard library is used. Every problem is a line
that says what to do; the exit code is 1 if there is any, 0 with --report-only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.models.errors import EngineError
from service.models.gpus import Gpu, tensorrt_version, visible_gpus
from service.models.manifest import EnginePlan, read_manifest, sha256_of_file

VERSION = "1"  # the only version that our repositories hold
_DEFAULT_PLAN = "model.plan"
_MAGIC = re.compile(rb"[a-z]trt")  # "ftrt" (1953657958 in Triton's message); version-compatible plans differ
_METADATA_LIMIT = 1 << 20
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Finding:
    """Finding on one model: `error`, `warning`, or `ok` when it can be served."""

    model: str
    level: str
    text: str

    def __str__(self) -> str:
        level = "" if self.level == "ok" else f"{self.level}: "
        return f"{level}{self.model}: {self.text}"


def verify(repository: Path, gpus: Sequence[Gpu], tensorrt: str) -> list[Finding]:
    """Check every TensorRT model of a repository.

    Args:
        repository: the folder that Triton is given, with one folder for each model.
        gpus: those that Triton will see.
        tensorrt: version of the TensorRT that Triton will load, such as `10.13.3.9`.

    Raises:
        EngineError: the folder holds no TensorRT model.
    """
    paths = sorted(repository.glob("*/config.pbtxt"))
    models = [path.parent for path in paths if _is_tensorrt(_config(path))]
    if not models:
        raise EngineError(f"{repository} holds no TensorRT model; name the folder that Triton serves")
    return [finding for model in models for finding in verify_model(model, gpus, tensorrt)]


def verify_model(model: Path, gpus: Sequence[Gpu], tensorrt: str) -> Iterator[Finding]:
    """Check one model folder: for every kind of GPU the plan that Triton would load for it."""
    folder = model / VERSION
    config = _config(model / "config.pbtxt")
    try:
        plans = read_manifest(folder)
    except EngineError as exc:
        yield Finding(model.name, "error", str(exc))
        return
    kinds = {(gpu.compute_capability, gpu.name): gpu for gpu in gpus}
    for gpu in kinds.values():
        file = plan_file(config, gpu.compute_capability)
        problem = _problem(folder, file, plans, gpu, tensorrt, model.name)
        if problem:
            yield Finding(model.name, "error", problem)
            continue
        yield from _warnings(folder, plans[file], gpu, model.name)
        where = f"{gpu.name} ({gpu.compute_capability})"
        yield Finding(model.name, "ok", f"{file} fits {where} and TensorRT {tensorrt}")


def plan_file(config: str, compute_capability: str) -> str:
    """Which file Triton loads on such a GPU: by `cc_model_filenames`, else the default."""
    text = _without_comments(config)
    by_capability = dict(re.findall(r'key\s*:\s*"(\d+\.\d+)"\s*[,;]?\s*value\s*:\s*"([^"]+)"', text))
    default = re.search(r'default_model_filename\s*:\s*"([^"]+)"', text)
    return str(by_capability.get(compute_capability) or (default[1] if default else _DEFAULT_PLAN))


def foreign_prefix(path: Path) -> str | None:
    """Why the bytes of a plan cannot be TensorRT's own, None if they look right; raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        if _MAGIC.fullmatch(head):
            return None
        length = int.from_bytes(head, "little")
        text = file.read(length) if len(head) == 4 and 2 <= length <= min(size, _METADATA_LIMIT) else b""
        magic = file.read(4) if text else b""
    if text.startswith(b"{"):
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            rest = "" if _MAGIC.fullmatch(magic) else ", and nothing that TensorRT knows follows"
            return (
                f"has {4 + length} bytes of JSON before the plan{rest}: it is an .engine that Ultralytics "
                "exported, which Triton cannot load"
            )
    return "does not begin like a TensorRT plan" + (": it is empty" if size == 0 else "")


def _problem(
    folder: Path, file: str, plans: dict[str, EnginePlan], gpu: Gpu, tensorrt: str, model: str
) -> str | None:
    """Reason why Triton cannot serve this plan here, and what to do; None without one."""
    path, plan = folder / file, plans.get(file)
    again = f"build it on this GPU: posegate models build {model}"
    try:
        if not path.is_file():
            built = sorted({f"{entry.compute_capability}" for entry in plans.values()})
            others = f" There are plans for {', '.join(built)}; add --fleet to keep them." if built else ""
            return f"{path} is not there; {again}.{others}"
        foreign = foreign_prefix(path)
        if foreign is not None:
            return f"{path} {foreign}; {again}"
        if plan is None:
            return f"{path} is not in the manifest, so its source and target are unknown; {again}"
        size = path.stat().st_size
        if size != plan.size:
            return f"{path} has {size} of {plan.size} bytes: it was not written to its end; {again}"
        if sha256_of_file(path) != plan.sha256:
            return f"{path} is not the plan that its manifest describes (another SHA-256); {again}"
    except OSError as exc:
        return f"{path} cannot be read: {exc.strerror or exc}"
    if plan.library != "tensorrt":
        return f"{path} was built by TensorRT-RTX, whose plans Triton does not load; {again}"
    if not _version_fits(plan, tensorrt):
        return (
            f"{path} was built by TensorRT {plan.tensorrt}, here is {tensorrt}; {again}, in the image that "
            "Triton runs in (or use the image that has the other TensorRT)"
        )
    if not _gpu_fits(plan, gpu):
        built_for = f"{plan.compute_capability} ({plan.gpu or 'ahead of time'})"
        return (
            f"{path} was built for compute capability {built_for}, here is {gpu.name} with "
            f"{gpu.compute_capability}; {again} --fleet, or schedule Triton onto the GPU it was built for"
        )
    return None


def _warnings(folder: Path, plan: EnginePlan, gpu: Gpu, model: str) -> Iterator[Finding]:
    """Warnings about a plan that can be served."""
    graph = folder / "model.onnx"
    if graph.is_file() and sha256_of_file(graph) != plan.onnx_sha256:
        text = f"{plan.file} was built from another graph than {graph}; build it again"
        yield Finding(model, "warning", text)
    if plan.gpu and plan.gpu != gpu.name:
        text = f"{plan.file} was tuned on {plan.gpu}, here is {gpu.name}: it may be slow; build it here"
        yield Finding(model, "warning", text)
    if plan.accuracy is None:
        text = f"{plan.file} was never compared with its graph; build it without --no-comparison"
        yield Finding(model, "warning", text)


def _version_fits(plan: EnginePlan, running: str) -> bool:
    built, here = _numbers(plan.tensorrt), _numbers(running)
    if plan.version_compatible:
        return here >= built
    known = min(len(built), len(here))
    return built[:known] == here[:known]


def _gpu_fits(plan: EnginePlan, gpu: Gpu) -> bool:
    if plan.compute_capability == gpu.compute_capability:
        return True
    here = _numbers(gpu.compute_capability)
    return plan.hardware_compatibility == "ampere_plus" and here >= _AMPERE


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _is_tensorrt(config: str) -> bool:
    kind = re.compile(r'platform\s*:\s*"tensorrt_plan"|backend\s*:\s*"tensorrt"')
    return kind.search(_without_comments(config)) is not None


def _without_comments(config: str) -> str:
    """The text without `# …`; a # within a string stays."""
    return re.sub(r'("(?:[^"\\\n]|\\.)*")|#[^\n]*', lambda match: match[1] or "", config)


def main(
    arguments: Sequence[str] | None = None,
    gpus: Callable[[], Sequence[Gpu]] = visible_gpus,
    tensorrt: Callable[[], str] = tensorrt_version,
) -> int:
    """Entry of `python3 -m service.models.verify`; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("repository", type=Path, help="the folder that Triton serves")
    parser.add_argument(
        "--report-only", action="store_true", help="always exit with 0: Triton serves the models that fit"
    )
    given = parser.parse_args(arguments)
    try:
        findings = verify(given.repository, gpus(), tensorrt())
    except EngineError as error:
        findings = [Finding(str(given.repository), "error", str(error))]
    for finding in findings:
        print(finding, file=sys.stdout if finding.level == "ok" else sys.stderr)
    failed = any(finding.level == "error" for finding in findings)
    return 1 if failed and not given.report_only else 0


if __name__ == "__main__":
    sys.exit(main())
