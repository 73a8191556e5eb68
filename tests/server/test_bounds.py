"""Bounds of requests, checked on their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from posegate.v1 import bounds_pb2, pose_service_pb2, skeleton_service_pb2, types_pb2
from service.server.bounds import MAX_ELEMENTS, out_of_bounds

Fields: TypeAlias = "tuple[FieldDescriptor, ...]"

FILES = (pose_service_pb2, skeleton_service_pb2)
PROTOS = Path(__file__).parents[2] / "protos" / "posegate" / "v1"


def requests() -> Iterator[Descriptor]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield method.input_type


def fields(descriptor: Descriptor, path: Fields = ()) -> Iterator[Fields]:
    """Every field of a request, with the fields that lead to it."""
    for field in descriptor.fields:
        yield (*path, field)
        if field.message_type is not None and field.message_type.full_name.startswith("posegate."):
            yield from fields(field.message_type, (*path, field))


def bounded() -> list[tuple[Descriptor, Fields]]:
    """Every way to a string or a repeated field of a request."""
    return [
        (request, path)
        for request in requests()
        for path in fields(request)
        if path[-1].type == FieldDescriptor.TYPE_STRING or path[-1].is_repeated
    ]


def name(value: object) -> str:
    if isinstance(value, tuple):
        return ".".join(field.name for field in value)
    return value.name if isinstance(value, Descriptor) else str(value)


def message_with(request: Descriptor, path: Fields, value: object) -> Message:
    """A request in which the last field of `path` is `value`, or so many empty elements."""
    message = GetMessageClass(request)()
    at = message
    for field in path[:-1]:
        at = getattr(at, field.name).add() if field.is_repeated else getattr(at, field.name)
        at.SetInParent()
    last = path[-1]
    if not last.is_repeated:
        setattr(at, last.name, value)
    elif isinstance(value, str):
        getattr(at, last.name).append(value)
    elif last.message_type is not None:
        getattr(at, last.name).extend([GetMessageClass(last.message_type)()] * int(str(value)))
    else:
        getattr(at, last.name).extend([""] * int(str(value)))
    return message


@pytest.mark.parametrize(("request_type", "path"), bounded(), ids=name)
def test_every_string_and_list_of_a_request_has_a_bound_that_its_comment_states(
    request_type: Descriptor, path: Fields
) -> None:
    field = path[-1]
    options = field.GetOptions().Extensions
    message = field.containing_type
    assert message is not None
    text = (PROTOS / Path(message.file.name).name).read_text("utf-8")
    of_message = text[text.index(f"message {message.name} {{") :]
    comment = of_message[: of_message.index(f" {field.name} = {field.number}")].rpartition(";")[2]
    if field.type == FieldDescriptor.TYPE_STRING:
        assert options[bounds_pb2.max_bytes] > 0
        assert f"{options[bounds_pb2.max_bytes]} bytes" in comment
    if field.is_repeated:
        assert options[bounds_pb2.max_items] > 0
        assert f"At most {options[bounds_pb2.max_items]} elements" in comment


@pytest.mark.parametrize(("request_type", "path"), bounded(), ids=name)
def test_a_field_at_its_bound_passes_and_one_beyond_is_named(request_type: Descriptor, path: Fields) -> None:
    options = path[-1].GetOptions().Extensions
    values: list[tuple[object, object]] = []
    if most := options[bounds_pb2.max_bytes]:
        values.append(("é" * (most // 2), "é" * (most // 2) + "x" * (1 + most % 2)))
    if most := options[bounds_pb2.max_items]:
        values.append((most, most + 1))
    for within, beyond in values:
        good = message_with(request_type, path, within).SerializeToString()
        assert out_of_bounds(good, request_type) == []
        found = out_of_bounds(message_with(request_type, path, beyond).SerializeToString(), request_type)
        assert [violation.field.replace("[0]", "") for violation in found] == [name(path)]


def test_the_length_of_a_picture_is_no_concern_of_the_bounds() -> None:
    request = pose_service_pb2.DetectPosesRequest(image=types_pb2.Image(content=bytes(30_000_000)))
    assert out_of_bounds(request.SerializeToString(), request.DESCRIPTOR) == []


def test_several_texts_beyond_their_bounds_are_all_named() -> None:
    request = pose_service_pb2.DetectPosesRequest(model="m" * 513, model_version="1" * 65, skeleton="s" * 512)
    assert [
        (v.field, v.description) for v in out_of_bounds(request.SerializeToString(), request.DESCRIPTOR)
    ] == [
        ("model", "must be at most 512 bytes, not 513"),
        ("model_version", "must be at most 64 bytes, not 65"),
    ]


def test_a_message_that_is_sent_twice_cannot_add_up_to_more_than_its_bounds() -> None:
    skeleton = skeleton_service_pb2.Skeleton(
        keypoints=[skeleton_service_pb2.SkeletonKeypoint(name="a")] * 600
    )
    request = skeleton_service_pb2.CreateSkeletonRequest(skeleton=skeleton)
    twice = request.SerializeToString() * 2
    assert len(type(request).FromString(twice).skeleton.keypoints) == 1200
    assert [violation.field for violation in out_of_bounds(twice, request.DESCRIPTOR)] == ["skeleton"]


def test_empty_elements_by_the_million_are_refused_at_the_first_beyond_the_bound() -> None:
    descriptor = skeleton_service_pb2.ExportPosesRequest.DESCRIPTOR
    assert [violation.field for violation in out_of_bounds(b"\x1a\x00" * 8_000_000, descriptor)] == ["items"]


def test_fields_that_the_contract_does_not_know_are_counted_too() -> None:
    descriptor = pose_service_pb2.DetectPosesRequest.DESCRIPTOR
    unknown = b"\xf8\x7f\x01"  # field 2047, varint 1
    assert out_of_bounds(unknown * 1000, descriptor) == []
    found = out_of_bounds(unknown * (MAX_ELEMENTS + 1), descriptor)
    assert found[0].description == f"has more than {MAX_ELEMENTS} elements in all"


def prefixed(content: bytes) -> bytes:
    """`content` as the length-delimited field 1, as protobuf writes it."""
    return types_pb2.Overlay(content=content).SerializeToString()


def test_points_are_counted_alike_with_and_without_zeros_and_in_any_encoding() -> None:
    point = types_pb2.Keypoint(x=1, y=2, score=0.5).SerializeToString()
    odd = point + b"\xf8\x7f\x01"  # a point with a field of a later version of the contract

    def person(points: list[bytes]) -> bytes:
        content = b"".join(b"\x1a" + bytes([len(one)]) + one for one in points)
        return b"\x22" + prefixed(content)[1:]  # field 4 in place of field 1

    descriptor = skeleton_service_pb2.RenderPosesRequest.DESCRIPTOR
    for mixed in ([point, b"", odd], [b"\x0d\x0a\x1a\x05\x0a", point], [odd, odd, odd]):
        points = (mixed * 1000)[:1000]
        assert out_of_bounds(person(points), descriptor) == []
        assert [v.field for v in out_of_bounds(person([*points, point]), descriptor)] == [
            "persons[0].keypoints"
        ]


@given(st.sampled_from(list(requests())), st.binary(max_size=200))
def test_any_bytes_are_checked_without_an_error(descriptor: Descriptor, content: bytes) -> None:
    out_of_bounds(content, descriptor)
