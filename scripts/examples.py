"""Code blocks of Markdown files that show an example's file, kept equal to the file.

    <!-- example: protos/examples/python/detect.py -->
    ```python
    …
    ```

python -m scripts.examples            # rewrites the blocks
python -m scripts.examples --check    # fails where one differs from its file
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from scripts.marked_sections import ROOT

_BLOCK = re.compile(
    r"<!-- example: (?P<path>\S+) -->\n```(?P<language>\w*)\n.*?^```$", re.DOTALL | re.MULTILINE
)
_MARK = re.compile(r"<!-- example: ")


class ExampleError(Exception):
    """A mark without a code block after it, or of a file that does not exist."""


def renewed(text: str, root: Path = ROOT) -> str:
    """The text with every marked block as its file is now.

    Raises:
        ExampleError: a mark has no block, or its file is missing.
    """
    if len(_MARK.findall(text)) != len(_BLOCK.findall(text)):
        raise ExampleError("a mark of an example has no code block after it")

    def block(match: re.Match[str]) -> str:
        try:
            content = (root / match["path"]).read_text(encoding="utf-8")
        except OSError as error:
            raise ExampleError(f"example {match['path']} cannot be read") from error
        return f"<!-- example: {match['path']} -->\n```{match['language']}\n{content.rstrip()}\n```"

    return _BLOCK.sub(block, text)


def documents(root: Path = ROOT) -> list[Path]:
    """Every Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return [root / name for name in listed.stdout.splitlines() if (root / name).is_file()]


def main(arguments: list[str]) -> int:
    """Write or check the blocks; the exit code."""
    failed = 0
    for path in documents():
        text = path.read_text(encoding="utf-8")
        try:
            new = renewed(text)
        except ExampleError as error:
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
            failed = 1
            continue
        if new == text:
            continue
        if "--check" in arguments:
            print(
                f"{path.relative_to(ROOT)}: an example has drifted: run python -m scripts.examples",
                file=sys.stderr,
            )
            failed = 1
        else:
            path.write_text(new, encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
