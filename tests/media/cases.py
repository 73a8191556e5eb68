"""Files of kinds that once went wrong; `tests/cases/README.md` describes each."""

from pathlib import Path

CASES = Path(__file__).parents[1] / "cases"


def case(name: str) -> bytes:
    """The bytes of one of them."""
    return (CASES / name).read_bytes()
