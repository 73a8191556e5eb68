"""ListModels and GetServerInfo."""

from dataclasses import replace
from importlib.metadata import version

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from service.errors import Unavailable
from tests.fakes import MODEL
from tests.pictures import jpeg
from tests.running import Service, failure, running


async def models_of(service: Service, size: int, token: str = "") -> pb.ListModelsResponse:
    return await service.poses.ListModels(pb.ListModelsRequest(page_size=size, page_token=token), timeout=60)


async def test_without_models_the_list_is_empty(service: Service) -> None:
    service.triton.served = []
    await service.catalog.refresh()
    answer = await models_of(service, 0)
    assert list(answer.models) == []
    assert answer.next_page_token == ""


async def test_a_model_is_listed_with_everything_that_is_known_of_it(service: Service) -> None:
    (model,) = (await models_of(service, 0)).models
    assert MessageToDict(model, preserving_proto_field_name=True) == {
        "name": "yolo11n_pose",
        "version": "1",
        "family": "yolo_pose",
        "skeleton": "coco_17",
        "keypoint_count": 17,
        "input_sizes": [
            {"width": 640, "height": 384},
            {"width": 640, "height": 480},
            {"width": 480, "height": 640},
            {"width": 640, "height": 640},
        ],
        "precision": "bf16",
        "licence": "AGPL-3.0",
        "weights": "yolo11n-pose.pt",
        "source": "https://example.org/yolo11n-pose.pt",
        "sha256": MODEL.sha256,
        "ready": True,
        "default": True,
        "pipeline_licences": ["AGPL-3.0"],
    }


@pytest.mark.parametrize(
    ("detector_licence", "expected"),
    [
        ("AGPL-3.0", ["Apache-2.0", "AGPL-3.0"]),
        ("Apache-2.0", ["Apache-2.0"]),
        ("", ["Apache-2.0", "unknown"]),
    ],
)
async def test_the_licences_of_a_pipeline_are_those_of_both_stages(
    detector_licence: str, expected: list[str], service: Service
) -> None:
    second = replace(MODEL, name="whole", family="top_down", licence="Apache-2.0", first_stage=MODEL.name)
    service.triton.served = [replace(MODEL, licence=detector_licence), second]
    await service.catalog.refresh()
    (model,) = [one for one in (await models_of(service, 0)).models if one.name == "whole"]
    assert model.detector == MODEL.name
    assert list(model.pipeline_licences) == expected


async def test_a_model_says_what_it_needs(service: Service) -> None:
    service.triton.served = [replace(MODEL, description="Hands need 40 px.")]
    await service.catalog.refresh()
    (model,) = (await models_of(service, 0)).models
    assert model.description == "Hands need 40 px."


async def test_a_model_that_is_away_is_still_listed(service: Service) -> None:
    service.triton.served = None
    with pytest.raises(Unavailable):
        await service.catalog.refresh()
    (model,) = (await models_of(service, 0)).models
    assert not model.ready


async def test_a_model_that_did_not_load_is_listed_and_the_others_serve(service: Service) -> None:
    unloaded = replace(
        MODEL, name="broken", family="", skeleton="", keypoint_count=0, shapes_hw=(), ready=False
    )
    service.triton.served = [unloaded, MODEL]
    with capture_logs() as lines:
        await service.catalog.refresh()
    broken, good = (await models_of(service, 0)).models
    assert (broken.name, broken.family, broken.ready) == ("broken", "", False)
    assert good.ready
    assert not [line for line in lines if "broken" in line.get("served", ())]
    picture = jpeg((64, 48))
    assert (await service.detect(picture)).model == MODEL.name
    failed = await failure(service.detect(picture, model="broken"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_READY")
    assert list((await info(service)).models_ready) == [MODEL.name]


@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_pages_together_are_the_whole_list(service: Service, size: int) -> None:
    service.triton.served = [replace(MODEL, name=f"m{number:02}") for number in range(7)]
    await service.catalog.refresh()
    names, token, pages = [], "", 0
    while True:
        page = await models_of(service, size, token)
        assert len(page.models) <= size
        names += [model.name for model in page.models]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert names == [f"m{number:02}" for number in range(7)]
    assert pages == -(-7 // size)


async def test_a_page_has_fifty_models_unless_asked_otherwise(service: Service) -> None:
    service.triton.served = [replace(MODEL, name=f"m{number:03}") for number in range(60)]
    await service.catalog.refresh()
    page = await models_of(service, 0)
    assert len(page.models) == 50
    assert len((await models_of(service, 0, page.next_page_token)).models) == 10


async def test_everything_wrong_with_a_page_is_said_at_once(service: Service) -> None:
    failed = await failure(models_of(service, -1, "nonsense"))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == ["page_size", "page_token"]


async def test_the_list_says_which_model_is_the_default(service: Service) -> None:
    service.triton.served = [MODEL, replace(MODEL, name="other"), replace(MODEL, version="2")]
    await service.catalog.refresh()
    models = (await models_of(service, 0)).models
    assert [(model.name, model.version, model.default) for model in models] == [
        ("other", "1", False), ("yolo11n_pose", "1", True), ("yolo11n_pose", "2", True),
    ]  # fmt: skip


async def info(service: Service) -> pb.GetServerInfoResponse:
    return await service.poses.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)


async def test_server_info_says_build_limits_and_what_is_ready() -> None:
    async with running(uri_hosts="b.example,a.example") as service:
        service.triton.served = [
            MODEL,
            replace(MODEL, version="2"),
            replace(MODEL, name="z", ready=False),
        ]
        await service.catalog.refresh()
        answer = await info(service)
    assert answer.version == version("posegate")
    assert answer.triton_version == "2.51.0"
    assert answer.default_model == "yolo11n_pose"
    assert list(answer.models_ready) == ["yolo11n_pose"]
    limits = answer.limits
    assert (limits.max_image_bytes, limits.max_image_pixels) == (8_000_000, 4_000_000)
    assert (limits.max_batch_size, limits.max_persons, limits.max_in_flight) == (4, 100, 64)
    assert (limits.max_in_flight_bytes, limits.max_message_bytes) == (1 << 29, 1 << 28)
    assert list(limits.allowed_uri_hosts) == ["a.example", "b.example"]


async def test_server_info_answers_while_triton_is_away(service: Service) -> None:
    service.triton.version = Unavailable("away", retry_after_s=1)
    service.catalog.mark_away()
    answer = await info(service)
    assert answer.triton_version == ""
    assert list(answer.models_ready) == []
    assert answer.default_model == "yolo11n_pose"


async def test_server_info_says_the_commit_of_the_build() -> None:
    async with running() as service:
        assert (await info(service)).commit == ""
    async with running(commit="0d1e2f3") as service:
        assert (await info(service)).commit == "0d1e2f3"
