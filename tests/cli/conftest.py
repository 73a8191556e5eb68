"""Commands print to the terminal; the service in the same process must not."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def _quiet_service() -> Iterator[None]:
    with capture_logs():
        yield
