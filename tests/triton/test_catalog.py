"""Which models there are, and which one a request means."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.core.model import Model
from service.errors import NotFound, Unavailable
from service.skeletons import shipped
from service.triton.catalog import ModelCatalog
from tests.fakes import MODEL, FakeTritonClient


async def catalog_of(*models: Model, default: str = MODEL.name) -> ModelCatalog:
    source = FakeTritonClient()
    source.served = models
    catalog = ModelCatalog(source, shipped(), default)
    await catalog.refresh()
    return catalog


def version(number: str, *, ready: bool = True) -> Model:
    return replace(MODEL, version=number, ready=ready)


async def test_before_the_first_look_every_model_may_still_come() -> None:
    catalog = ModelCatalog(FakeTritonClient(), shipped(), MODEL.name)
    assert catalog.models() == ()
    for name in ("", MODEL.name, "anything"):
        with pytest.raises(Unavailable) as refused:
            catalog.resolve(name)
        assert refused.value.reason == "MODEL_NOT_READY"
        assert refused.value.retry_after_s


async def test_no_name_means_the_default_model() -> None:
    catalog = await catalog_of(replace(MODEL, name="another"), MODEL)
    assert catalog.resolve("") == MODEL
    assert catalog.resolve("", "1") == MODEL


async def test_a_default_model_that_is_not_there_may_still_come() -> None:
    catalog = await catalog_of(replace(MODEL, name="another"))
    with pytest.raises(Unavailable, match="'yolo11n_pose' is not loaded yet"):
        catalog.resolve("")


async def test_an_unknown_name_is_not_found_and_the_known_ones_are_named() -> None:
    catalog = await catalog_of(MODEL, replace(MODEL, name="another"), version("2"))
    with pytest.raises(NotFound, match=r"no model 'nobody'\. Models: another, yolo11n_pose\.") as refused:
        catalog.resolve("nobody")
    assert refused.value.reason == "MODEL_NOT_FOUND"
    assert refused.value.metadata == {"model": "nobody"}


@pytest.mark.parametrize("asked", ["3", "01", "latest", "1 ", "-1"])
async def test_an_unknown_version_is_not_found_and_the_known_ones_are_named(asked: str) -> None:
    catalog = await catalog_of(version("1"), version("2"))
    with pytest.raises(NotFound, match=r"Versions: 1, 2\.") as refused:
        catalog.resolve("", asked)
    assert refused.value.reason == "MODEL_VERSION_NOT_FOUND"
    assert refused.value.metadata == {"model": MODEL.name, "model_version": asked}


async def test_the_newest_version_is_the_largest_number() -> None:
    catalog = await catalog_of(version("10"), version("9"), version("1"))
    assert catalog.resolve("").version == "10"
    assert [model.version for model in catalog.models()] == ["1", "9", "10"]


async def test_the_newest_version_that_is_ready_answers() -> None:
    catalog = await catalog_of(version("1"), version("2"), version("3", ready=False))
    assert catalog.resolve("").version == "2"
    assert catalog.resolve("", "1").version == "1"


async def test_a_version_asked_for_by_name_is_not_replaced_by_another() -> None:
    catalog = await catalog_of(version("1"), version("2", ready=False))
    with pytest.raises(Unavailable, match="not ready") as refused:
        catalog.resolve("", "2")
    assert refused.value.reason == "MODEL_NOT_READY"
    assert refused.value.retry_after_s


async def test_when_no_version_is_ready_the_model_is_not() -> None:
    catalog = await catalog_of(version("1", ready=False), version("2", ready=False))
    with pytest.raises(Unavailable, match="not ready"):
        catalog.resolve("")


async def test_models_are_listed_by_name_and_then_by_version() -> None:
    catalog = await catalog_of(version("2"), replace(MODEL, name="a"), version("1"))
    assert [(model.name, model.version) for model in catalog.models()] == [
        ("a", "1"), (MODEL.name, "1"), (MODEL.name, "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("misfit", "why"),
    [
        (replace(MODEL, skeleton="nobody_knows"), "unknown"),
        (replace(MODEL, keypoint_count=16), "of 17 keypoints"),
    ],
    ids=["unknown skeleton", "other number of keypoints"],
)
async def test_a_model_that_does_not_fit_its_skeleton_is_left_out_with_one_log_line(
    misfit: Model, why: str
) -> None:
    source = FakeTritonClient()
    source.served = [misfit, replace(MODEL, name="good")]
    catalog = ModelCatalog(source, shipped(), MODEL.name)
    with capture_logs() as lines:
        for _ in range(3):
            await catalog.refresh()
    assert [model.name for model in catalog.models()] == ["good"]
    refused = [line for line in lines if line["event"] == "model_refused"]
    assert len(refused) == 1
    assert why in refused[0]["why"]


async def test_while_triton_is_away_models_stay_known_but_not_ready() -> None:
    source = FakeTritonClient()
    catalog = ModelCatalog(source, shipped(), MODEL.name)
    await catalog.refresh()
    source.served = None
    with pytest.raises(Unavailable):
        await catalog.refresh()
    assert [(model.name, model.ready) for model in catalog.models()] == [(MODEL.name, False)]
    with pytest.raises(Unavailable, match="not ready"):
        catalog.resolve("")
    with pytest.raises(NotFound):
        catalog.resolve("nobody")
    source.served = [MODEL]
    await catalog.refresh()
    assert catalog.resolve("") == MODEL


async def test_marking_the_models_away_leaves_them_known() -> None:
    catalog = await catalog_of(MODEL)
    catalog.mark_away()
    assert [model.ready for model in catalog.models()] == [False]


async def test_what_is_served_is_logged_when_it_changes_and_only_then() -> None:
    source = FakeTritonClient()
    catalog = ModelCatalog(source, shipped(), MODEL.name)
    with capture_logs() as lines:
        await catalog.refresh()
        source.served = [replace(MODEL, ready=False)]
        await catalog.refresh()
        source.served = [MODEL, version("2")]
        await catalog.refresh()
    assert [line["served"] for line in lines] == [["yolo11n_pose:1"], ["yolo11n_pose:1", "yolo11n_pose:2"]]


async def test_a_model_of_a_tenant_is_there_for_that_tenant_only() -> None:
    own = replace(MODEL, name="own", tenant="acme")
    detector = replace(MODEL, name="own_detector", tenant="other")
    crops = replace(MODEL, name="crops", family="top_down", first_stage="own_detector", tenant="acme")
    source = FakeTritonClient()
    source.served = [MODEL, own, detector, crops]
    catalog = ModelCatalog(source, shipped(), MODEL.name)
    await catalog.refresh()
    assert [model.name for model in catalog.models("acme")] == ["crops", "own", MODEL.name]
    assert [model.name for model in catalog.models("third")] == [MODEL.name]
    assert len(catalog.models()) == 4
    assert catalog.pose_model("own", tenant="acme").model == own
    assert catalog.resolve("own") == own  # the service itself
    with pytest.raises(NotFound) as caught:
        catalog.pose_model("own", tenant="third")
    assert caught.value.message.endswith(f"Models: {MODEL.name}.")
    with pytest.raises(Unavailable):  # its detector is another tenant's
        catalog.pose_model("crops", tenant="acme")
