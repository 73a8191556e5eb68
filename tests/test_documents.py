"""The documents: links lead somewhere, and what is said of RPCs and settings is complete."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import posegate.v1
from scripts.examples import documents
from scripts.marked_sections import ROOT
from service.pipeline.limits import Limits
from service.settings import MIB, Settings

DOCUMENTS = documents()
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """The fragments that GitHub makes of a document's headings."""
    headings = _HEADING.findall(_CODE.sub("", path.read_text(encoding="utf-8")))
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        for heading in headings
    }


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links that lead to no file, or to no heading of one."""
    broken = []
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    text = "[a](nowhere.md) [b](README.md#no-such-heading) [c](https://example.org/x) [d](README.md#limits)"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md", "README.md#no-such-heading"]


def test_the_readme_is_short_and_names_every_rpc_of_the_contract() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    modules = [info.name for info in pkgutil.iter_modules(posegate.v1.__path__)]
    files = [name for name in modules if name.endswith("_service_pb2")]
    assert {"pose_service_pb2", "skeleton_service_pb2"} <= set(files)
    for file in files:
        for service in import_module(f"posegate.v1.{file}").DESCRIPTOR.services_by_name.values():
            assert f"`{service.full_name}`" in text
            for method in service.methods:
                assert len(re.findall(rf"^\| `{method.name}` \| \S", text, re.MULTILINE)) == 1, method.name


def test_the_readme_has_its_parts_in_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = (
        "![",
        "## Two commands",
        "## Contents",
        "## The RPCs",
        "## The first call",
        "## Limits",
        "## Licences",
        "## Where",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_licence_of_the_default_model_is_said_where_a_model_is_chosen() -> None:
    for name in (
        "README.md",
        "model_repository/README.md",
        "helm/posegate/README.md",
        "helm/posegate/values-cpu.yaml",
    ):
        assert "AGPL-3.0" in (ROOT / name).read_text(encoding="utf-8"), name


def test_images_in_documents_are_small() -> None:
    for path in (ROOT / "tests" / "data" / "overlays").iterdir():
        assert path.stat().st_size < 200_000, path.name
    assert (ROOT / "tests" / "data" / "two_standing.jpg").stat().st_size < 200_000


PACKAGES = sorted(path.parent for path in (ROOT / "service").rglob("__init__.py"))


@pytest.mark.parametrize(
    "package", [p for p in PACKAGES if p.parent.name in ("service", "core")], ids=name_of
)
def test_every_package_says_what_it_is_for_and_what_it_may_import(package: Path) -> None:
    told = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    readme = package / "README.md"
    told += readme.read_text(encoding="utf-8") if readme.is_file() else ""
    assert "import" in told, f"{package.name}: say in the docstring or README.md what it may import"


def test_the_map_names_every_package_of_the_service() -> None:
    told = ast.get_docstring(ast.parse((ROOT / "service" / "__init__.py").read_text(encoding="utf-8"))) or ""
    for package in PACKAGES:
        if package.parent.name == "service":
            assert f"    {package.name}/ " in f"    {told}", package.name


_VARIABLE = re.compile(r"(?<![A-Z0-9_])POSEGATE_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_])")


@cache
def variables_of_the_code() -> set[str]:
    """Every environment variable that a source file or a script names."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {f"POSEGATE_{name.upper()}" for name in Settings.model_fields}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in ("", ".py", ".sh", ".mjs", ".go") and path.is_file():
            names |= set(_VARIABLE.findall(path.read_text(encoding="utf-8", errors="replace")))
    return names


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_environment_variable_in_a_document_is_one_of_the_code(path: Path) -> None:
    named = set(_VARIABLE.findall(path.read_text(encoding="utf-8")))
    web = {name for name in named if name.startswith("POSEGATE_WEB_")}  # its own settings, checked there
    assert named - web - {"POSEGATE_ANGLES__NAME"} - variables_of_the_code() == set()


def test_the_limits_in_the_readme_are_the_defaults() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, table = text.partition("## Limits")
    rows = dict(re.findall(r"^\| ([a-z][^|]*?) \| ([^|]*?) \|", table.partition("## ")[0], re.MULTILINE))
    default = defaults()
    megabytes, megapixels = default["max_image_bytes"] / 1e6, default["max_image_pixels"] / 1e6
    assert rows["image"].startswith(f"{megabytes:.0f} MB, {megapixels:.0f} megapixels;")
    assert rows["batch"] == f"{default['max_batch_size']} images"
    assert rows["persons in one answer"] == f"{default['max_persons']}"
    assert rows["video"] == (
        f"{default['max_video_bytes'] / 1e9:.0f} GB, {default['max_video_seconds'] / 3600:.0f} hour, "
        f"{default['max_video_frames']:,} frames, {default['max_video_pixels'] / 1e6:.0f} megapixels a frame"
    )
    assert rows["message, either way"] == f"{default['max_message_bytes'] // MIB} MiB"
    in_flight = default["max_in_flight_bytes"] // MIB
    assert rows["calls at work"] == f"{default['max_in_flight']}, with {in_flight} MiB of requests"
    assert rows["videos and streams at work"] == f"{default['max_streams']}"
    assert rows["custom skeletons of a tenant"] == f"{default['max_skeletons']}"


def defaults() -> dict[str, Any]:
    """Of all settings, those that follow from the memory on a machine with enough of it."""
    limits = Limits.of(Settings(max_memory=4 << 30))
    return {
        **{name: field.default for name, field in Settings.model_fields.items()},
        "max_memory": 4 << 30,
        "max_in_flight_bytes": limits.max_in_flight_bytes,
        "max_video_memory_bytes": limits.max_video_memory_bytes,
    }


def test_the_defaults_in_the_table_of_bounds_are_those_of_the_settings() -> None:
    text = (ROOT / "service" / "README.md").read_text(encoding="utf-8")
    _, _, table = text.partition("## What bounds concurrency and memory")
    rows = re.findall(r"^\| [^|]+ \| `POSEGATE_(\w+)` \| ([^|]+) \|", table.partition("## ")[0], re.MULTILINE)
    assert len(rows) > 8
    for name, told in rows:
        default = defaults()[name.lower()]
        units = {"": 1, " MiB": MIB, " GiB": 1024 * MIB, " GB": 10**9}
        if name != "WORKERS":
            assert told in {
                f"{default // size}{unit}" for unit, size in units.items() if default % size == 0
            }, name
