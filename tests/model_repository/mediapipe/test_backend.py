"""The backend inside the real tritonserver, with the real networks."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from service.models import mediapipe
from service.triton.launch import Launch
from service.triton.process import TritonProcess
from tests.model_repository.mediapipe.holistic import WEIGHTS, scene_of
from tests.model_repository.tiny_models import (
    BACKENDS,
    ROOT,
    RUNTIME,
    mean_colour,
    mean_colour_config,
    write_model,
)
from wholebody.estimator import Estimator, Scene

NAME = "mediapipe_wholebody"
OUTPUTS = ("keypoints", "scores", "positions")
CONFIG = ROOT / "model_repository" / "cpu" / NAME / "config.pbtxt"


def put_model(repository: Path, name: str) -> Path:
    """A copy of the model as it is served."""
    folder = repository / "cpu" / name
    folder.mkdir(parents=True)
    text = CONFIG.read_text(encoding="utf-8").replace(f'name: "{NAME}"', f'name: "{name}"', 1)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    mediapipe.fill(repository, WEIGHTS, name)
    return folder / "1"


@pytest_asyncio.fixture(scope="module")
async def triton(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[triton_grpc.InferenceServerClient]:
    root = tmp_path_factory.mktemp("models")
    repository = root / "cpu"
    put_model(root, NAME)
    altered = put_model(root, "altered") / "hand_recrop.tflite"
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    (put_model(root, "incomplete") / "face_landmark.tflite").unlink()
    shutil.rmtree(put_model(root, "empty"))
    write_model(repository, "mean", mean_colour(), mean_colour_config("32x64"))
    launch = Launch(
        runtime=RUNTIME,
        model_repository=repository,
        backends=BACKENDS,
        cache=tmp_path_factory.mktemp("cache"),
        threads=2,
    )
    async with TritonProcess(launch) as server:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        yield client
        await client.close()


async def infer(
    client: triton_grpc.InferenceServerClient,
    inputs: Mapping[str, NDArray[np.generic]],
    outputs: tuple[str, ...] = OUTPUTS,
) -> dict[str, NDArray[np.float32]]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    wanted = [triton_grpc.InferRequestedOutput(name) for name in outputs]
    result = await client.infer(NAME, tensors, outputs=wanted, client_timeout=60)
    return {name: result.as_numpy(name) for name in outputs}


def tensors(scene: Scene) -> dict[str, NDArray[np.generic]]:
    return {"image": scene.image[None], "boxes": scene.boxes[None], "bodies": scene.bodies[None]}


async def test_it_answers_what_the_networks_answer(
    triton: triton_grpc.InferenceServerClient, estimator: Estimator
) -> None:
    scene = scene_of("two_people.jpg")
    answer = await infer(triton, tensors(scene))
    (people,) = estimator([scene])
    for name in OUTPUTS:
        np.testing.assert_array_equal(answer[name][0], [getattr(person, name) for person in people])
    assert answer["scores"][0, 0, 91] > 0.5  # a hand: not an array of zeros


async def test_requests_of_other_sizes_that_share_a_batch_get_their_own_people(
    triton: triton_grpc.InferenceServerClient,
) -> None:
    scenes = [
        scene_of("two_people.jpg", 0),
        scene_of("two_people.jpg", 2, 1),
        scene_of("single_person.jpg"),
        scene_of("astronaut.png"),
    ]
    alone = [await infer(triton, tensors(scene)) for scene in scenes]
    together = await asyncio.gather(*(infer(triton, tensors(scene)) for scene in scenes for _ in range(2)))
    for expected, answer in zip([one for one in alone for _ in range(2)], together, strict=True):
        for name in OUTPUTS:
            np.testing.assert_array_equal(answer[name], expected[name])


async def test_only_the_outputs_that_are_asked_for_come(triton: triton_grpc.InferenceServerClient) -> None:
    assert set(await infer(triton, tensors(scene_of("single_person.jpg", 0)), ("scores",))) == {"scores"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image": np.zeros((1, 64, 64, 4), np.uint8)}, "image"),
        ({"bodies": np.zeros((1, 1, 16, 3), np.float32)}, "bodies"),
        ({"boxes": np.zeros((1, 3, 4), np.float32)}, "3 boxes and 2 bodies"),
        ({"image": np.zeros((2, 64, 64, 3), np.uint8)}, "batch"),
    ],
    ids=["channels", "keypoints", "boxes without bodies", "two images"],
)
async def test_tensors_that_do_not_fit_are_refused(
    triton: triton_grpc.InferenceServerClient, changes: dict[str, NDArray[np.generic]], why: str
) -> None:
    with pytest.raises(InferenceServerException, match=why):
        await infer(triton, {**tensors(scene_of("single_person.jpg")), **changes})
    assert (await infer(triton, tensors(scene_of("single_person.jpg", 0))))["scores"].any()


async def test_a_request_without_bodies_is_refused(triton: triton_grpc.InferenceServerClient) -> None:
    scene = tensors(scene_of("single_person.jpg"))
    del scene["bodies"]
    with pytest.raises(InferenceServerException, match="bodies"):
        await infer(triton, scene)


async def test_altered_and_missing_files_keep_their_model_away_and_no_other(
    triton: triton_grpc.InferenceServerClient,
) -> None:
    index = await triton.get_model_repository_index()
    state = {model.name: (model.state, model.reason) for model in index.models}
    assert state[NAME][0] == "READY"
    assert state["mean"][0] == "READY"
    for name, why in (
        ("altered", r"hand_recrop\.tflite is altered: its sha256 is [0-9a-f]{64}"),
        ("incomplete", r"face_landmark\.tflite cannot be read: No such file"),
    ):
        assert state[name][0] == "UNAVAILABLE"
        assert re.search(why, state[name][1])
        assert "run scripts/setup" in state[name][1]
    assert state.get("empty", ("", ""))[0] != "READY"


async def test_it_fits_into_500_megabytes(
    triton: triton_grpc.InferenceServerClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for _ in range(5):
        await infer(triton, tensors(scene_of("two_people.jpg")))
    commands = {
        process: " ".join(process.cmdline())
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE  # of models that could not be loaded
    }
    ours = (str(tmp_path_factory.getbasetemp()), f"/{NAME}/", "triton_python_backend_stub")
    stubs = [process for process, command in commands.items() if all(part in command for part in ours)]
    assert len(stubs) == 1
    assert stubs[0].memory_info().rss < 500 * 2**20
