"""ASF walk: from one data packet to the next, and in them from one part of a frame to the next (Advanced
Systems Format specification 1.20, chapters 3 to 5)."""

from __future__ import annotations

from typing import NamedTuple

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk, Rest

_HEAD_MOST = 1 << 20  # bytes of the header that are looked at
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
# Simple, media, time code and plain index: what stands behind the data of a file that does not state their
# length, as of one that was written into a pipe.
_INDICES = frozenset(
    map(
        bytes.fromhex,
        (
            "90080033b1e5cf1189f400a0c90349cb",
            "f803b1fead12644c840f2a1d2f7ad48c",
            "d03fb73c4a0c0348953dedf7b6228f0c",
            "d329e2d6da35d111903400a0c90349be",
        ),
    )
)
_MOST_PACKET_BYTES = 1 << 20  # far more than any file has
_DATA_HEAD = 50  # bytes of the data object before its packets
_CORRECTED, _CORRECTION_BYTES = 0x80, 0x0F
_WIDTHS = (0, 1, 2, 4)  # bytes of a field, by its two bits
_SEVERAL = 0x01  # payloads in the packet
_COMPRESSED = 1  # length of replicated data that announces several small objects in one payload


class _Payload(NamedTuple):
    """A part of a frame.

    Attributes:
        stream: number of its track.
        number: of the frame, counted in as many bytes as the file has for it.
        offset: of the part within the frame.
        frame_bytes: of the whole frame.
        length: of the part.
    """

    stream: int
    number: int
    offset: int
    frame_bytes: int
    length: int


class AsfWalk(ChunkWalk):
    """Follows the packets of one ASF.

    Args:
        read: the bytes; waits for them.
        track: number of the stream.
        streams: numbers of all streams.
    """

    def __init__(self, read: Read, track: int, streams: frozenset[int]) -> None:
        head_bytes = int.from_bytes(read(8, 16), "little")
        head = read(min(head_bytes + _DATA_HEAD, _HEAD_MOST), 0)
        place = head.find(_FILE_PROPERTIES)
        self._packet_bytes = int.from_bytes(head[place + 96 : place + 100], "little") if place > 0 else 0
        data = head_bytes if head[head_bytes : head_bytes + 16] == _DATA else head.find(_DATA)
        super().__init__(read, data + _DATA_HEAD)
        self._data = data
        self._track = track
        self._streams = streams
        self._part: _Payload | None = None  # the last one of the track
        self._index: int | None = None  # where one starts

    def chunk(self, start: int) -> Chunk:
        """The data packet that starts there."""
        length = self._packet_bytes
        end = self.end()
        if not 0 < length <= _MOST_PACKET_BYTES or self._data < 0 or (end is not None and start >= end):
            raise Broken
        if self._read(16, start) in _INDICES:
            self._index = start
            raise Broken
        packet = self._read(length, start)
        if len(packet) < length:
            raise Broken
        try:
            payloads = _payloads(packet)
            if any(payload.stream not in self._streams for payload in payloads):
                raise Broken
        except Broken:
            self._part = None  # one loss is counted once
            raise
        for payload in payloads:
            if payload.stream == self._track:
                self._follow(payload)
        return Chunk(start + length)

    def end(self) -> int | None:
        """End of the data object, where it states its length or an index follows."""
        length = int.from_bytes(self._read(8, self._data + 16), "little")
        return self._data + length if length > _DATA_HEAD else self._index

    def rest(self, size: int) -> Rest:
        """What stands behind the last packet; a frame without its last part, too."""
        rest = super().rest(size)
        last = self._part
        is_partial = last is not None and last.offset + last.length < last.frame_bytes
        return "ragged" if rest == "whole" and is_partial else rest

    def _follow(self, payload: _Payload) -> None:
        """Whether a part is the one behind the last."""
        last, self._part = self._part, payload
        if last is None:
            return
        done = last.offset + last.length
        if done < last.frame_bytes:
            expected = payload.number == last.number and payload.offset == done
        else:
            expected = (payload.number - last.number) & 0xFF == 1 and payload.offset == 0
        self._is_missing |= not expected


class _Fields:
    """Numbers of a packet, one behind the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def number(self, width: int) -> int:
        end = self.at + width
        if end > len(self._content):
            raise Broken
        value = int.from_bytes(self._content[self.at : end], "little")
        self.at = end
        return value


def _payloads(packet: bytes) -> list[_Payload]:
    """The payloads of a data packet, or Broken."""
    fields = _Fields(packet)
    flags = fields.number(1)
    if flags & _CORRECTED:
        fields.at += flags & _CORRECTION_BYTES
        flags = fields.number(1)
    properties = fields.number(1)
    length = fields.number(_WIDTHS[flags >> 5 & 3]) or len(packet)
    fields.number(_WIDTHS[flags >> 1 & 3])  # sequence
    end = length - fields.number(_WIDTHS[flags >> 3 & 3])  # padding
    fields.at += 6  # time and duration
    several = fields.number(1) if flags & _SEVERAL else 0
    payloads: list[_Payload] = []
    for _ in range(several & 0x3F if flags & _SEVERAL else 1):
        stream = fields.number(1) & 0x7F
        number = fields.number(_WIDTHS[properties >> 4 & 3])
        offset = fields.number(_WIDTHS[properties >> 2 & 3])
        replicated = fields.number(_WIDTHS[properties & 3])
        frame_bytes = 0
        begin = fields.at
        if replicated >= 8:
            frame_bytes = fields.number(4)
        fields.at = begin + replicated
        size = fields.number(_WIDTHS[several >> 6]) if flags & _SEVERAL else end - fields.at
        if size < 0 or fields.at + size > end:
            raise Broken
        fields.at += size
        if replicated != _COMPRESSED:
            payloads.append(_Payload(stream, number, offset, frame_bytes, size))
    return payloads
