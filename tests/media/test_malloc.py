"""The C library's buffers."""

import sys

import pytest

from service.media.malloc import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_the_c_library_takes_the_thresholds() -> None:
    assert keep_freed_memory()
