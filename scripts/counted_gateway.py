"""`posegate serve` that adds a byte to a file for every statement which it sends to its database.

python -m scripts.counted_gateway FILE
"""

from __future__ import annotations

import logging
import os
import sys

from typing_extensions import override

from service.__main__ import main


class _Statements(logging.Handler):
    """Counts the statements in what SQLAlchemy logs; the parameters of each come in a line in brackets."""

    def __init__(self, file: str) -> None:
        super().__init__(logging.INFO)
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not str(record.msg).startswith("["):
            os.write(self._file, b".")


if __name__ == "__main__":
    logger = logging.getLogger("sqlalchemy.engine.Engine")
    logger.addHandler(_Statements(sys.argv.pop(1)))
    logger.setLevel(logging.INFO)  # before an engine is made, which looks at it once
    logger.propagate = False
    sys.argv.append("serve")
    main()
