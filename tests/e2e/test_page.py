"""The page in a real browser, before the real service: pictures, angles, a video, a camera made of a file."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from playwright.async_api import Browser, FilePayload, Page, async_playwright

from scripts.ports import free_address
from tests.e2e.conftest import DATA, ROOT, Service
from tests.web.running import RunningDoor, running_door

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None and os.environ.get("POSEGATE_TEST_BROWSER") != "require":
    pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)

WAIT_MS = 120_000  # a loaded machine is no bug


@dataclass
class Watched:
    """A page, and what it must not do.

    Attributes:
        page: of the door.
        complaints: errors on its console, and requests to other hosts.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
async def door(service: Service) -> AsyncIterator[RunningDoor]:
    async with running_door(service.address) as running:
        yield running


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    film = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    picture = Image.open(DATA / "two_people.jpg").resize((360, 640))
    with film.open("wb") as file:
        for shift in range(10):
            frame = Image.new("RGB", (640, 640), (60, 60, 60))
            frame.paste(picture, (140 + shift, 0))
            frame.save(file, "JPEG")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # CI runs as root
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={film}",
            ],
        )
        yield browser
        await browser.close()


async def opened(browser: Browser, door: RunningDoor, width: int = 1280, path: str = "/") -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(WAIT_MS)
    watched = Watched(page)
    own = (door.url, door.url.replace("http", "ws"), "blob:", "data:")

    def note_console(message: object) -> None:
        if getattr(message, "type", "") in ("error", "warning"):
            watched.complaints.append(str(getattr(message, "text", "")))

    page.on("console", note_console)
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(own) else watched.complaints.append(request.url),
    )
    await page.goto(door.url + path)
    return watched


async def ready(browser: Browser, door: RunningDoor, width: int = 1280) -> Watched:
    watched = await opened(browser, door, width)
    await watched.page.wait_for_selector("body[data-ready]")
    return watched


async def done(watched: Watched) -> None:
    await watched.page.close()
    assert watched.complaints == []


async def test_a_sample_shows_people_and_scores(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    await page.click("#image .samples button >> nth=0")
    await page.wait_for_selector("#image tbody tr")
    assert await page.locator("#image tbody tr").count() == 2
    assert "2 people" in str(await page.get_attribute("#image canvas", "aria-label"))
    before = await page.evaluate("document.querySelector('#image canvas').toDataURL()")
    await page.click("#image tbody tr >> nth=1 >> button")
    alone = await page.evaluate("document.querySelector('#image canvas').toDataURL()")
    assert alone != before, "one person alone looks different"
    await page.select_option("#image [name=template]", "blazepose_33")
    await page.wait_for_function("() => document.querySelector('#image .problem').textContent.length > 0")
    await page.select_option("#image [name=model]", "mediapipe_wholebody")
    await page.wait_for_function(
        "() => document.querySelector('#image .say').textContent.includes('blazepose_33')"
    )
    refused = [one for one in watched.complaints if "status of 400" in one]
    assert len(refused) == 1, "the browser itself notes that the default model lacks the points"
    watched.complaints.remove(refused[0])
    await done(watched)


async def test_angles_have_values_with_their_error_and_reasons(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    await page.click("#tab-angles")
    await page.set_input_files("#angles input[type=file]", DATA / "single_person.jpg")
    await page.wait_for_selector("#angles tbody tr")
    rows = await page.locator("#angles tbody tr").all_inner_texts()
    assert len(rows) == 3
    assert all("°" in row and "±" in row for row in rows)
    assert "seen from the wrong side" in " ".join(rows)
    combined = await page.get_attribute("#angles .stage img", "src")
    assert str(combined).startswith("data:image/jpeg;base64,")
    await page.click("#angles tbody tr >> nth=2 >> button")
    assert await page.get_attribute("#angles .stage img", "src") != combined
    await done(watched)


async def test_a_video_runs_and_can_be_looked_at_frame_by_frame(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    await page.click("#tab-video")
    await page.set_input_files("#video input[type=file]", DATA / "single_person.mp4")
    await page.select_option("#video [name=every_nth_frame]", "10")
    await page.check("#video [name=annotated]")
    await page.click("#video .go")
    await page.wait_for_selector("#video .stage:not([hidden])")
    assert await page.get_attribute("#video .scrub", "max") == "9"
    assert await page.locator("#video .plot canvas").count() == 1
    assert await page.locator("#video tbody tr").count() >= 2
    names = await page.locator("#video .downloads a").all_inner_texts()
    assert names == ["Download frames.jsonl", "Download annotated.mp4"]
    async with page.expect_download() as waiting:
        await page.click("#video .downloads a >> nth=1")
    saved = await (await waiting.value).path()
    with open(saved, "rb") as file:  # noqa: ASYNC230, PTH123 - a small file of a test
        assert file.read(8)[4:] == b"ftyp"
    await page.focus("#video .scrub")
    await page.keyboard.press("End")
    await page.wait_for_function("() => document.querySelector('#video .at').textContent.startsWith('90 ')")
    await done(watched)


async def test_a_camera_is_answered_live(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    await page.click("#tab-camera")
    await page.click("#camera .go")
    await page.wait_for_function("() => Number(document.querySelector('#camera [data-fps]').textContent) > 0")
    await page.wait_for_function(
        "() => Number(document.querySelector('#camera [data-people]').textContent) > 0"
    )
    await page.click("#camera .stop")
    assert await page.is_hidden("#camera .stop")
    await done(watched)


async def test_an_error_is_told_on_the_page(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    broken = FilePayload(name="a.mp4", mimeType="video/mp4", buffer=b"no video")
    await page.click("#tab-video")
    await page.set_input_files("#video input[type=file]", files=[broken])
    await page.click("#video .go")
    await page.wait_for_function(
        "() => document.querySelector('#video .problem').textContent.includes('not a video')"
    )
    assert [one for one in watched.complaints if "400" not in one] == [], (
        "the browser itself notes the status"
    )
    await page.close()


async def test_everything_works_by_keyboard_and_on_a_phone(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door, width=390)
    page = watched.page
    await page.focus("#tab-image")
    for wanted in ("angles", "video", "camera", "image"):
        await page.keyboard.press("ArrowRight")
        assert await page.is_visible(f"#{wanted}")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{wanted} is too wide for a phone"
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#image tbody tr")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await done(watched)


async def test_the_same_call_is_there_as_code(browser: Browser, door: RunningDoor) -> None:
    watched = await ready(browser, door)
    page = watched.page
    await page.select_option("#image [name=model]", "mediapipe_wholebody")
    await page.click("#image summary")
    for language, words in (
        ("Python", f"{door.url}/v1/pose"),
        ("curl", "-F 'model=mediapipe_wholebody'"),
        ("grpcurl", "posegate.v1.PoseService/DetectPoses"),
    ):
        await page.click(f"#image .bar button:has-text('{language}') >> nth=0")
        assert words in await page.inner_text("#image pre")
    await done(watched)


async def test_the_documentation_opens_without_other_hosts(browser: Browser, door: RunningDoor) -> None:
    watched = await opened(browser, door, path="/docs")
    await watched.page.wait_for_selector("text=The people in an image >> nth=0")
    await done(watched)


async def test_up_with_web_answers_http_and_ends_as_one(tmp_path: Path) -> None:
    address = free_address()
    environment = {
        **os.environ,
        "POSEGATE_LISTEN": free_address(),
        "POSEGATE_WEB_LISTEN": address,
    }
    with (tmp_path / "up.log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "service", "up", "--web"], cwd=ROOT, stderr=log, env=environment
        )
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as client,
            asyncio.timeout(300),
        ):
            while True:
                try:
                    if (await client.get("/health")).status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.is_running()
                await asyncio.sleep(0.2)
            picture = (DATA / "two_people.jpg").read_bytes()
            answer = await client.post("/v1/pose", content=picture, headers={"content-type": "image/jpeg"})
            assert len(answer.json()["persons"]) == 3
        children = process.children(recursive=True)
        process.terminate()
        assert process.wait(120) == 0
        assert not psutil.wait_procs(children, timeout=120)[1]
    finally:
        if process.is_running():
            process.kill()
