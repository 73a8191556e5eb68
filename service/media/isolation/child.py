"""A decoder process, forked by `host`: decodes image after image within limits that the kernel keeps."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
from pathlib import Path

import cv2
import numpy as np

from service.core.geometry import Rgb8
from service.errors import ImageTooCostly, PosegateError
from service.media.image import ImageLimits, decode, inspect
from service.media.isolation import wire
from service.media.malloc import keep_freed_memory

HEADER_CPU_S = 2.0
"""CPU time for the header of an image."""

_KEPT_BYTES = (
    64 << 20
)  # of the file in which images are handed over; new pages would cost as much as the copy


def main(connection: socket.socket, message: wire.Message) -> None:
    """Set the limits, say hello with a descriptor of this process, and work until the gateway is gone."""
    _limit_memory(int(message["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    # What libpng and others print of broken files is no line of the gateway's log.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.close(silent)
    cv2.setNumThreads(1)
    keep_freed_memory()
    own = os.pidfd_open(os.getpid())
    wire.send(connection, {"pid": os.getpid()}, [own])
    os.close(own)
    try:
        _decode_images(connection)
    except wire.Gone:
        return


def allow_cpu(seconds: float) -> None:
    """Let the kernel end this process after so many further seconds of CPU time, in whole seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _limit_memory(size: int) -> None:
    """Bound what this process may allocate beyond what it has from its host."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (has + size, has + size))


def _decode_images(connection: socket.socket) -> None:
    file = _new_file()
    while True:
        received = wire.receive(connection)
        assert received is not None  # noqa: S101 - without a time limit there is a message
        message, descriptors = received
        try:
            content = _content(descriptors[0])
            image = _decoded(content, message)
        except PosegateError as error:
            answer = {"error": type(error).__name__, "text": error.message, "metadata": error.metadata}
            wire.send(connection, answer)
        except MemoryError:
            wire.send(connection, {"error": ImageTooCostly.__name__})
        else:
            _put(file, image)
            wire.send(connection, {"height": image.shape[0], "width": image.shape[1]}, [file])
            if image.nbytes > _KEPT_BYTES:
                os.close(file)
                file = _new_file()
            del image
        finally:
            wire.close(descriptors)


def _decoded(content: bytes, message: wire.Message) -> Rgb8:
    limits = ImageLimits(int(message["max_bytes"]), int(message["max_pixels"]))
    allow_cpu(HEADER_CPU_S)
    width, height = inspect(content, limits)
    allow_cpu(message["cpu_s"] + message["cpu_s_per_megapixel"] * width * height / 1e6)
    return decode(content, limits)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _new_file() -> int:
    """A file of memory, through which images are handed over: their size goes into no message."""
    return os.memfd_create("image", os.MFD_CLOEXEC)


def _put(file: int, image: Rgb8) -> None:
    rest = np.ascontiguousarray(image).data.cast("B")
    while rest:
        rest = rest[os.pwrite(file, rest, image.nbytes - len(rest)) :]
