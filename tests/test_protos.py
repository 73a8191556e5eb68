"""The contract: what is promised is there, every field is explained, the generated code is fresh."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import status_pb2

from posegate.v1 import account_service_pb2, bounds_pb2, pose_service_pb2, skeleton_service_pb2, types_pb2

ROOT = Path(__file__).parents[1]
COMMON = Path(status_pb2.__file__).parents[2]  # where googleapis-common-protos is installed
FILES: list[FileDescriptor] = [
    types_pb2.DESCRIPTOR,
    pose_service_pb2.DESCRIPTOR,
    skeleton_service_pb2.DESCRIPTOR,
    account_service_pb2.DESCRIPTOR,
    bounds_pb2.DESCRIPTOR,
]

# service: method: (requests are a stream, responses are a stream)
RPCS = {
    "PoseService": {
        "DetectPoses": (False, False),
        "BatchDetectPoses": (False, False),
        "MeasureAngles": (False, False),
        "AnalyzeVideo": (True, True),
        "StreamPoses": (True, True),
        "ListModels": (False, False),
        "GetServerInfo": (False, False),
    },
    "SkeletonService": {
        "ListSkeletons": (False, False),
        "GetSkeleton": (False, False),
        "CreateSkeleton": (False, False),
        "UpdateSkeleton": (False, False),
        "DeleteSkeleton": (False, False),
        "RenderPoses": (False, False),
        "ExportPoses": (False, False),
    },
    "AccountService": {"GetAccount": (False, False)},
}

FIELDS = {
    "GetAccountResponse": "tenant plan limits quota",
    "Quota": "limit used remaining reset_time",
    "Image": "content uri",
    "ImageSize": "width height",
    "Box": "x1 y1 x2 y2",
    "Keypoint": "x y score",
    "Position": "x y z",
    "Person": "box score keypoints positions track_id depth_source depth_assumption",
    "OverlayOptions": "format line_width labels",
    "Overlay": "content media_type size",
    "Timings": "decode_ms preprocess_ms inference_ms postprocess_ms",
    "DetectPosesRequest": "image model model_version skeleton min_score iou_threshold max_persons"
    " min_keypoint_score include_positions overlay region_of_interest",
    "DetectPosesResponse": "persons image_size skeleton model model_version overlay timings",
    "BatchDetectPosesRequest": "requests",
    "BatchDetectPosesResponse": "responses",
    "BatchDetectPosesResult": "response error",
    "MeasureAnglesRequest": "image measurements side model model_version person facing mirrored"
    " camera_roll_deg baseline overlay",
    "MeasureAnglesResponse": "image_size persons overlay",
    "PersonAngles": "measurements",
    "AngleMeasurement": "name title body_part left right view overlay",
    "AngleValue": "degrees status reasons keypoint_score std_error_deg details",
    "AnalyzeVideoRequest": "config chunk",
    "VideoConfig": "model model_version skeleton every_nth_frame target_fps start end measurements"
    " include_positions track smoothing layout annotated_video max_persons",
    "AnalyzeVideoResponse": "started frame progress annotated_chunk summary",
    "VideoStarted": "video effective_config model model_version",
    "VideoInfo": "codec frame_size rotation_deg fps duration frame_count",
    "FrameResult": "frame_index time persons values angles",
    "VideoProgress": "frame total percent fps elapsed eta",
    "VideoSummary": "fps frame_width frame_height total_frames n_kpts frames_with_persons wall_time",
    "StreamPosesRequest": "config frame",
    "StreamFrame": "frame_id",
    "StreamPosesResponse": "started result keep_alive summary",
    "StreamResult": "frame_id persons",
    "ListModelsRequest": "page_size page_token",
    "ListModelsResponse": "models next_page_token",
    "Model": "name version family skeleton input_sizes precision licence ready",
    "GetServerInfoResponse": "version commit limits default_model triton_version models_ready",
    "Skeleton": "name title keypoints edges flip_pairs etag",
    "SkeletonKeypoint": "name color sigma sources",
    "KeypointSource": "name weight",
    "SkeletonEdge": "start end",
    "ListSkeletonsRequest": "page_size page_token",
    "ListSkeletonsResponse": "skeletons next_page_token",
    "RenderPosesRequest": "image canvas skeleton persons",
    "ExportPosesRequest": "format skeleton items",
    "ExportPosesResponse": "files",
}

ENUMS = {
    "DepthSource": "NONE MEASURED LIFTED",
    "OverlayFormat": "PNG JPEG",
    "Side": "LEFT RIGHT BOTH",
    "AngleStatus": "OK DEGRADED UNAVAILABLE",
    "Smoothing": "OFF ONE_EURO",
    "FrameLayout": "PERSONS FLAT",
    "AnnotatedVideo": "MP4",
    "FramePolicy": "EVERY LATEST",
    "ExportFormat": "COCO_JSON YOLO_TXT CSV",
}


def protoc(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)


def parse(path: Path, include: list[Path], out: Path) -> FileDescriptorProto:
    """A .proto file with its comments."""
    includes = [f"-I{folder}" for folder in include]
    protoc(*includes, "--include_source_info", f"--descriptor_set_out={out}", path)
    return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs `scripts/protos --check` of a checkout."""
    environment = os.environ | {"PYTHON": sys.executable}
    command = [str(root / "scripts/protos"), "--check"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `scripts/protos` reads, to be spoilt."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/protos", tmp_path / "scripts")
    return tmp_path


def test_the_generated_code_matches_the_proto_files() -> None:
    result = check(ROOT)

    assert result.returncode == 0, result.stderr


def test_a_changed_contract_without_new_code_fails_the_check(checkout: Path) -> None:
    proto = checkout / "protos/posegate/v1/types.proto"
    proto.write_text(proto.read_text("utf-8").replace("float score = 2;", "double score = 2;"), "utf-8")

    result = check(checkout)

    assert result.returncode == 1
    assert "types_pb2.py" in result.stderr
    assert "run scripts/protos" in result.stderr


@pytest.mark.parametrize("name", ["types_pb2.py", "pose_service_pb2.pyi", "skeleton_service_pb2_grpc.pyi"])
def test_missing_code_fails_the_check(checkout: Path, name: str) -> None:
    (checkout / "protos/posegate/v1" / name).unlink()

    result = check(checkout)

    assert result.returncode == 1
    assert name in result.stderr


def test_code_of_a_file_that_is_gone_fails_the_check(checkout: Path) -> None:
    (checkout / "protos/posegate/v1/gone_pb2.py").touch()

    result = check(checkout)

    assert result.returncode == 1
    assert "gone_pb2.py" in result.stderr


def test_writing_mends_what_the_check_found(checkout: Path) -> None:
    (checkout / "protos/posegate/v1/gone_pb2.py").touch()
    (checkout / "protos/posegate/v1/types_pb2.pyi").unlink()

    subprocess.run([checkout / "scripts/protos"], env=os.environ | {"PYTHON": sys.executable}, check=True)

    assert check(checkout).returncode == 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_in_the_package_posegate_v1(file: FileDescriptor) -> None:
    assert file.package == "posegate.v1"


def test_every_proto_file_is_covered_here() -> None:
    found = {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos/posegate").rglob("*.proto")}

    assert found == {file.name for file in FILES}


@pytest.mark.parametrize("service", RPCS)
def test_every_promised_rpc_is_there_and_no_other(service: str) -> None:
    services = {name: found for file in FILES for name, found in file.services_by_name.items()}

    found = {
        method.name: (method.client_streaming, method.server_streaming)
        for method in services[service].methods
    }

    assert found == RPCS[service]


@pytest.mark.parametrize(("message", "promised"), FIELDS.items(), ids=list(FIELDS))
def test_every_promised_field_is_there(message: str, promised: str) -> None:
    messages = {name: found for file in FILES for name, found in file.message_types_by_name.items()}

    assert set(promised.split()) <= set(messages[message].fields_by_name)


@pytest.mark.parametrize(("enum", "promised"), ENUMS.items(), ids=list(ENUMS))
def test_every_promised_choice_is_there(enum: str, promised: str) -> None:
    enums = {name: found for file in FILES for name, found in file.enum_types_by_name.items()}
    names = set(enums[enum].values_by_name)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum).strip("_").upper()

    assert {f"{prefix}_{choice}" for choice in promised.split()} <= names


def test_lists_are_paged_with_the_results_first() -> None:
    for response in (
        pose_service_pb2.ListModelsResponse.DESCRIPTOR,
        skeleton_service_pb2.ListSkeletonsResponse.DESCRIPTOR,
    ):
        assert response.fields_by_number[1].is_repeated
        assert "next_page_token" in response.fields_by_name


Named = tuple[str, tuple[int, ...]]  # name of a thing, and its path in the source info


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[Named]:
    yield enum.name, path
    for index, value in enumerate(enum.value):
        yield value.name, (*path, EnumDescriptorProto.VALUE_FIELD_NUMBER, index)


def _message(message: DescriptorProto, path: tuple[int, ...]) -> Iterator[Named]:
    if message.options.map_entry:  # written by protoc for a map field
        return
    yield message.name, path
    for index, field in enumerate(message.field):
        yield f"{message.name}.{field.name}", (*path, DescriptorProto.FIELD_FIELD_NUMBER, index)
    written_by_protoc = {field.oneof_index for field in message.field if field.proto3_optional}
    for index, oneof in enumerate(message.oneof_decl):
        if index not in written_by_protoc:
            yield f"{message.name}.{oneof.name}", (*path, DescriptorProto.ONEOF_DECL_FIELD_NUMBER, index)
    for index, nested in enumerate(message.nested_type):
        yield from _message(nested, (*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, index))
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, index))


def _everything(file: FileDescriptorProto) -> Iterator[Named]:
    for index, message in enumerate(file.message_type):
        yield from _message(message, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, index))
    for index, enum in enumerate(file.enum_type):
        yield from _enum(enum, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, index))
    for index, service in enumerate(file.service):
        path = (FileDescriptorProto.SERVICE_FIELD_NUMBER, index)
        yield service.name, path
        for number, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (*path, service.METHOD_FIELD_NUMBER, number)


def comments(file: FileDescriptorProto) -> dict[str, str]:
    """The comment above everything in the file, empty where there is none."""
    above = {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
    return {name: above.get(path, "") for name, path in _everything(file)}


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> FileDescriptorProto:
    return parse(ROOT / "protos" / request.param.name, [ROOT / "protos", COMMON], tmp_path / "set")


def test_everything_in_the_contract_has_a_comment(source: FileDescriptorProto) -> None:
    assert [name for name, comment in comments(source).items() if not comment] == []


def test_every_optional_field_says_what_unset_means(source: FileDescriptorProto) -> None:
    said = comments(source)
    optional = [
        f"{message.name}.{field.name}"
        for message in source.message_type
        for field in message.field
        if field.proto3_optional
    ]

    assert [name for name in optional if "Default" not in said[name] and "Unset" not in said[name]] == []


def test_the_copy_of_google_rpc_status_says_what_the_package_says(tmp_path: Path) -> None:
    copy, package = (
        parse(folder / "google/rpc/status.proto", [folder], tmp_path / "set")
        for folder in (ROOT / "protos/third_party", COMMON)
    )

    assert copy.message_type == package.message_type
    assert copy.package == package.package


def test_a_status_in_an_answer_is_the_one_grpc_uses() -> None:
    result = pose_service_pb2.BatchDetectPosesResult(error=status_pb2.Status(code=3, message="not a picture"))

    assert type(result.error) is status_pb2.Status
