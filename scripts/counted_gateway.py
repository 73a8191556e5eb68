"""`posegate serve` that adds a byte to a file for every statement which it sends to its database.

python -m scripts.counted_gateway FILE
"""

from __future__ import annotations

import os
import sys

from sqlalchemy import Engine, event

from service.__main__ import main


def count_statements(file: str) -> None:
    """Add a byte to the file for every statement of this process from now on."""
    counted = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @event.listens_for(Engine, "before_cursor_execute")
    def sent(*_: object) -> None:
        os.write(counted, b".")


if __name__ == "__main__":
    count_statements(sys.argv.pop(1))
    sys.argv.append("serve")
    main()
