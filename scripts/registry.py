"""Runs pip against the package registry, and explains its failures.

Only the standard library is used: this runs before anything else can.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


class SetupError(Exception):
    """A problem that the user of the set-up can solve; the text says how."""


_NO_NETWORK = re.compile(
    r"Failed to establish a new connection|Max retries exceeded|Name or service not known|ProxyError"
    r"|Temporary failure in name resolution|Connection (?:refused|reset|aborted)|ReadTimeoutError"
    r"|ConnectTimeoutError|Network is unreachable|SSLError|CERTIFICATE_VERIFY_FAILED|from versions: none"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_OTHER_HASH = re.compile(r"THESE PACKAGES DO NOT MATCH THE HASHES")
_LAST_LINES = 15


def run_pip(
    python: Path,
    arguments: Sequence[str],
    *,
    doing: str,
    on_line: Callable[[str], None] = lambda _: None,
    keep_open: Sequence[int] = (),
) -> None:
    """Run pip of `python` to its end.

    Args:
        doing: what for, as in "download X", for the message of an error.
        on_line: called with every line that pip prints.
        keep_open: file descriptors that pip inherits, such as that of a lock, which pip then holds too.

    Raises:
        SetupError: pip failed.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    lines = []
    with subprocess.Popen(  # noqa: S603 - fixed arguments
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=keep_open,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(lines[-1])
    if process.returncode != 0:
        raise SetupError(explain(doing, lines, registry(python)))


def explain(doing: str, lines: Sequence[str], index: str) -> str:
    """Why pip failed and what to do about it, from what it printed."""
    output = "\n".join(lines)
    if _DISK_FULL.search(output):
        return f"cannot {doing}: the disk is full; make room and run scripts/setup again"
    if _OTHER_HASH.search(output):
        last = "\n".join(lines[-_LAST_LINES:])
        return f"cannot {doing}: {index} gave a file that is not the pinned one:\n{last}"
    if _NO_NETWORK.search(output):
        why = next((line for line in lines if _NO_NETWORK.search(line)), "")
        return (
            f"cannot {doing}: the package registry {index} was not reached, or lacks it; check the network, "
            f"HTTPS_PROXY and PIP_INDEX_URL, and run scripts/setup again\n{why}"
        )
    return f"cannot {doing}; pip says:\n" + "\n".join(lines[-_LAST_LINES:])


def registry(python: Path) -> str:
    """Address of the package registry that pip uses."""
    if index := os.environ.get("PIP_INDEX_URL"):
        return _without_password(index)
    for key in ("install.index-url", "global.index-url"):
        configured = subprocess.run(  # noqa: S603 - fixed arguments
            [str(python), "-m", "pip", "config", "get", key], capture_output=True, text=True, check=False
        )
        if configured.returncode == 0 and configured.stdout.strip():
            return _without_password(configured.stdout.strip())
    return "https://pypi.org/simple"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
