"""Images decoded in processes: what they cost is bounded, and one that costs too much harms no other."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.core.cancellation import Stopped, stopping_when
from service.errors import ImageTooCostly, ImageTooLarge, ImageUndecodable, InvalidRequest, Unavailable
from service.media import image
from service.media.image import ImageLimits, decode
from service.media.image_bounds import Structure, check_head
from service.media.isolation.images import ImageBudget, ImageDecoder
from service.media.isolation.processes import DecoderHost, DecoderProcess, NoAnswer
from service.media.loading import in_thread
from service.media.niceness import step_back
from tests.media.cases import case
from tests.media.damage import damaged
from tests.pictures import encoded, jpeg, noise, plain, quartered

LIMITS = ImageLimits(max_bytes=25_000_000, max_pixels=50_000_000)
MINUTES = ImageBudget(cpu_s=60.0)
NOTHING = ImageBudget(cpu_s=1e-3, cpu_s_per_megapixel=1e-3)


@pytest.fixture(scope="module")
def host() -> Iterator[DecoderHost]:
    host = DecoderHost()
    yield host
    host.close()


@pytest.fixture
def decoder(host: DecoderHost) -> Iterator[ImageDecoder]:
    decoder = ImageDecoder(host, MINUTES)
    yield decoder
    decoder.close()


def costly(size: int = 2000) -> bytes:
    """A JPEG that takes 50 times as long as its pixels do: within its bounds, but not quick."""
    content = encoded(plain((size, size)), "JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * 80 + content[-2:]


def children(name: str = "isolation.host") -> list[int]:
    """Decoder processes, without their hosts."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if name in " ".join(process.cmdline()) and process.ppid() != os.getpid():
                found.append(process.pid)
    return found


def only_child() -> int:
    """The one decoder process that there is, once those of earlier tests have ended."""
    deadline = time.monotonic() + 60
    while len(pids := children()) != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    (pid,) = pids
    return pid


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(quartered((60, 40)), "PNG"), id="PNG"),
        pytest.param(encoded(quartered((61, 41)), "JPEG", progressive=True), id="progressive JPEG"),
        pytest.param(encoded(noise((900, 700)), "WEBP"), id="WebP"),
        pytest.param(encoded(noise((900, 700)), "TIFF"), id="TIFF"),
        pytest.param(case("turned.heic"), id="HEIC"),
        pytest.param(case("photo_grid.avif"), id="AVIF"),
        pytest.param(case("grey16_12bit.png"), id="16-bit PNG"),
        pytest.param(encoded(plain((6000, 4000)), "PNG"), id="72 MB of pixels"),
        pytest.param(case("base.jpg"), id="baseline JPEG"),
        pytest.param(encoded(quartered((60, 40)), "BMP"), id="BMP"),
    ],
)
def test_a_process_gives_the_same_pixels_as_a_thread(decoder: ImageDecoder, content: bytes) -> None:
    for _ in range(2):  # the second one in the same process
        assert np.array_equal(decoder.decode(content, LIMITS).pixels, decode(content, LIMITS))


def test_what_costs_only_its_pixels_stays_in_the_thread(decoder: ImageDecoder) -> None:
    for content in (b"", b"?", jpeg((64, 48)), encoded(quartered((60, 40)), "BMP"), bytes(30_000_000)):
        assert not decoder.loading(content, LIMITS).waits
    for content in (encoded(quartered((60, 40)), "PNG"), costly(64), case("turned.heic")):
        assert decoder.loading(content, LIMITS).waits


@pytest.mark.parametrize("decode_with", ["thread", "process"])
def test_the_head_of_an_image_is_walked_over_once(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch, decode_with: str
) -> None:
    walks: list[int] = []

    def counted(content: bytes) -> Structure:
        walks.append(1)
        return check_head(content)

    monkeypatch.setattr(image, "check_head", counted)
    content = encoded(noise((64, 48)), "JPEG", progressive=decode_with == "process")
    loading = decoder.loading(content, LIMITS)
    assert loading.waits is (decode_with == "process")
    loading(None)
    in_thread(content, LIMITS)(None)
    assert len(walks) == 2


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        pytest.param(b"", LIMITS, id="empty"),
        pytest.param(b"words", LIMITS, id="words"),
        pytest.param(encoded(noise((60, 40)), "PNG")[:-100], LIMITS, id="cut short"),
        pytest.param(encoded(noise((60, 40)), "PNG"), ImageLimits(1 << 20, 2399), id="pixels"),
        pytest.param(encoded(noise((60, 40)), "PNG"), ImageLimits(100, 2400), id="bytes"),
        pytest.param(costly(64), ImageLimits(1 << 20, 64 * 64), id="scans"),
    ],
)
def test_a_process_refuses_in_the_same_words_as_a_thread(
    decoder: ImageDecoder, content: bytes, limits: ImageLimits
) -> None:
    with pytest.raises(InvalidRequest) as expected:
        decode(content, limits)
    with pytest.raises(type(expected.value)) as refused:
        decoder.decode(content, limits)
    assert refused.value.message == expected.value.message
    assert refused.value.metadata == expected.value.metadata
    assert decoder.loading(content, limits).load is not None


def test_damaged_files_leave_the_decoder_in_order(decoder: ImageDecoder) -> None:
    outcomes = set()
    for content in damaged([case("turned.heic"), encoded(noise((64, 48)), "WEBP")], 60, seed=20_261_128):
        try:
            outcomes.add(decoder.decode(content, LIMITS).pixels.dtype.name)
        except (ImageUndecodable, ImageTooLarge, ImageTooCostly) as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"ImageUndecodable", "uint8"}
    assert (
        decoder.decode(case("turned.heic"), LIMITS).pixels.shape == decode(case("turned.heic"), LIMITS).shape
    )


def test_an_image_beyond_its_budget_is_refused_and_its_process_ended(host: DecoderHost) -> None:
    decoder = ImageDecoder(host, NOTHING)
    with pytest.raises(ImageTooCostly, match="baseline JPEG"):
        decoder.decode(costly(), LIMITS)
    until_gone(children())
    assert children() == []
    decoder.close()


def test_the_kernel_ends_a_process_that_takes_too_much_cpu_time(host: DecoderHost) -> None:
    process = host.fork({"work": "images", "memory_bytes": 1 << 30})
    with pytest.raises(NoAnswer) as ended:
        ask(process, costly(3000), cpu_s=0.0)
    assert ended.value.ended


def ask(process: DecoderProcess, content: bytes, *, cpu_s: float = 60.0) -> dict[str, object]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        limits = {"max_bytes": LIMITS.max_bytes, "max_pixels": LIMITS.max_pixels}
        answer, descriptors = process.ask(
            {**limits, "size_wh": (0, 0), "first_scan": None, "cpu_s": cpu_s, "cpu_s_per_megapixel": 0.0},
            [file.fileno()],
            60.0,
        )
    for descriptor in descriptors:
        os.close(descriptor)
    return answer


def test_a_process_cannot_take_more_memory_than_it_may(host: DecoderHost) -> None:
    process = host.fork({"work": "images", "memory_bytes": 32 << 20})
    assert ask(process, encoded(plain((600, 500)), "PNG"))["width"] == 600
    assert ask(process, encoded(plain((6000, 5000)), "PNG"))["error"] in (
        "ImageTooCostly",
        "ImageUndecodable",
    )
    assert ask(process, encoded(plain((600, 500)), "PNG"))["width"] == 600
    process.end()


def test_neighbours_of_an_image_that_costs_too_much_get_their_answers(
    host: DecoderHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = encoded(noise((64, 48)), "PNG")
    # CPU time ends the costly ones: on the clock of a loaded machine small ones may take long too.
    monkeypatch.setattr("service.media.isolation.images._WALL_BY_CPU", 1000)
    decoder = ImageDecoder(host, ImageBudget(cpu_s=0.1, cpu_s_per_megapixel=0.0))
    with ThreadPoolExecutor(3) as threads:
        bad = [threads.submit(decoder.decode, costly(4000), LIMITS) for _ in range(2)]
        good = [threads.submit(decoder.decode, small, LIMITS) for _ in range(20)]
        assert all(one.result().pixels.shape == (48, 64, 3) for one in good)
        assert all(isinstance(one.exception(), ImageTooCostly) for one in bad)
    decoder.close()


def test_a_caller_who_leaves_ends_the_process(decoder: ImageDecoder) -> None:
    left = threading.Event()
    threading.Timer(0.1, left.set).start()
    with pytest.raises(Stopped), stopping_when(left.is_set):
        decoder.decode(costly(3000), LIMITS)
    until_gone(children())
    assert children() == []


def test_a_process_that_the_machine_ended_is_no_fault_of_the_image(decoder: ImageDecoder) -> None:
    with ThreadPoolExecutor(1) as thread:
        decoder.decode(encoded(noise((64, 48)), "PNG"), LIMITS)
        pid = only_child()
        decoding = thread.submit(decoder.decode, costly(3000), LIMITS)
        process = psutil.Process(pid)
        while sum(process.cpu_times()[:2]) < 0.2:  # it is at work
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)  # as the kernel does where memory is short
        with pytest.raises(Unavailable) as ended:
            decoding.result()
    assert ended.value.retry_after_s
    until_gone([pid])
    assert not psutil.pid_exists(pid)  # nor is it left as a zombie


def test_an_image_that_crashes_its_decoder_is_damaged(decoder: ImageDecoder) -> None:
    with pytest.raises(ImageUndecodable):
        decoder.decode(case("crash.heic"), LIMITS)
    assert decoder.decode(encoded(noise((64, 48)), "PNG"), LIMITS).pixels.shape == (48, 64, 3)


def test_processes_that_ended_while_idle_are_replaced(decoder: ImageDecoder) -> None:
    content = encoded(noise((64, 48)), "PNG")
    decoder.decode(content, LIMITS)
    pid = only_child()
    os.kill(pid, signal.SIGKILL)
    until_gone([pid])
    assert decoder.decode(content, LIMITS).pixels.shape == (48, 64, 3)


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_host_that_ended_is_started_again() -> None:
    host = DecoderHost()
    decoder = ImageDecoder(host, MINUTES)
    content = encoded(noise((64, 48)), "PNG")
    decoder.decode(content, LIMITS)
    own = psutil.Process(only_child()).ppid()
    pids = children()
    os.kill(own, signal.SIGKILL)
    until_gone(pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)  # its children end with it
    with ThreadPoolExecutor(1, initializer=step_back) as thread:  # as the gateway's
        assert thread.submit(decoder.decode, content, LIMITS).result().pixels.shape == (48, 64, 3)
    priorities = {psutil.Process(pid).nice() for pid in host.pids()}
    assert priorities == {min(19, psutil.Process().nice() + 5)}
    decoder.close()
    host.close()
    until_gone(children())
    assert children() == []


def test_no_descriptor_is_left_behind(host: DecoderHost) -> None:
    decoder = ImageDecoder(host, MINUTES)
    decoder.decode(encoded(noise((64, 48)), "PNG"), LIMITS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        decoder.decode(encoded(noise((64, 48)), "PNG"), LIMITS)
        with pytest.raises(ImageUndecodable):
            decoder.decode(b"\x89PNG", LIMITS)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    decoder.close()


def test_a_process_that_cannot_be_started_leaves_its_neighbours_alone(
    host: DecoderHost, decoder: ImageDecoder
) -> None:
    content = encoded(noise((64, 48)), "PNG")
    decoder.decode(content, LIMITS)
    before = children()
    with pytest.raises(NoAnswer):
        host.fork({"work": "images", "memory_bytes": "none"})  # it ends before it says hello
    until_gone([pid for pid in children() if pid not in before])  # a moment after its socket
    assert children() == before
    assert decoder.decode(content, LIMITS).pixels.shape == (48, 64, 3)


def test_decoder_processes_leave_the_cpu_to_the_gateway_first(
    host: DecoderHost, decoder: ImageDecoder
) -> None:
    decoder.decode(encoded(plain((60, 40)), "PNG"), LIMITS)
    own = psutil.Process().nice()
    assert len(host.pids()) > 1
    assert {psutil.Process(pid).nice() for pid in host.pids()} == {min(19, own + 5)}
