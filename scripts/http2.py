"""Frames of HTTP/2 (RFC 9113), and header blocks without a table and without Huffman codes (RFC 7541), for
callers that do what no library does: half a request, an answer that is not read, frames made beforehand."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
HEAD_BYTES = 9
DEFAULT_WINDOW, LARGEST_WINDOW = (1 << 16) - 1, (1 << 31) - 1
FRAME_BYTES = 1 << 14
"""The largest that a server has to take."""


class Kind(IntEnum):
    """Kinds of frames, RFC 9113, section 6."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings of a connection, RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4


def head(kind: Kind, flags: int, stream: int, size: int) -> bytes:
    """The head of a frame whose content has `size` bytes."""
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream)


def frame(kind: Kind, flags: int, stream: int, content: bytes = b"") -> bytes:
    """A frame."""
    return head(kind, flags, stream, len(content)) + content


def value_of(block: bytes, wanted: bytes) -> bytes:
    """The value of a header field; empty where there is none."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # a whole field of the static table
            _, at = _read_integer(block, at, 7)
            continue
        if first & 0xE0 == 0x20:  # a size of the table
            _, at = _read_integer(block, at, 5)
            continue
        index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
        name = b""
        if not index:
            name, at = _read_string(block, at)
        value, at = _read_string(block, at)
        if name == wanted:
            return value
    return b""


def integer(value: int, bits: int, first: int) -> bytes:
    """An integer in the lowest `bits` of a byte, whose others are those of `first`, and in as many more as it
    needs."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    content = bytearray([first | most])
    value -= most
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def string(value: bytes) -> bytes:
    """A string."""
    return integer(len(value), 7, 0) + value


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer, and where the next thing begins."""
    most = (1 << bits) - 1
    value, shift, at = block[at] & most, 0, at + 1
    if value < most:
        return value, at
    while True:
        value += (block[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not block[at - 1] & 0x80:
            return value, at


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string, with Huffman codes as it is, and where the next thing begins."""
    size, at = _read_integer(block, at, 7)
    return block[at : at + size], at + size
