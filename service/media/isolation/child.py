"""A decoder process, forked by `host`: a video, or image after image, within limits that the kernel keeps."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import cv2

from service.core.geometry import Rgb8
from service.errors import ImageTooCostly, PosegateError
from service.media.image import ImageLimits, decode_whole, read_header
from service.media.image_bounds import Structure
from service.media.isolation import video_child, wire
from service.media.isolation.handover import Handover
from service.media.malloc import keep_freed_memory

HEADER_CPU_S = 2.0
"""CPU time for the header of an image."""


def main(connection: socket.socket, message: wire.Message, files: Sequence[int]) -> None:
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
        if message["work"] == "video":
            video_child.serve(connection, message, files[0])
        else:
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
    handover = Handover()
    while True:
        message, descriptors = wire.received(connection)
        try:
            content = _content(descriptors[0])
            image = _decoded(content, message)
        except PosegateError as error:
            answer = {"error": type(error).__name__, "text": error.message, "metadata": error.metadata}
            wire.send(connection, answer)
        except MemoryError:
            wire.send(connection, {"error": ImageTooCostly.__name__})
        except Exception as error:
            wire.send(connection, {"internal": repr(error)})
        else:
            height, width = image.shape[:2]
            wire.send(connection, {"height": height, "width": width}, [handover.put(image)])
            del image
        finally:
            wire.close(descriptors)


def _decoded(content: bytes, message: wire.Message) -> Rgb8:
    limits = ImageLimits(int(message["max_bytes"]), int(message["max_pixels"]))
    structure = Structure(tuple(message["size_wh"]), first_scan=message["first_scan"])
    allow_cpu(HEADER_CPU_S)
    header = read_header(content, limits, structure)
    width, height = header.size_wh
    allow_cpu(message["cpu_s"] + message["cpu_s_per_megapixel"] * width * height / 1e6)
    return decode_whole(content, header)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
