import asyncio
from contextlib import AsyncExitStack

from structlog.testing import capture_logs

from service.server.supervision import supervise


async def test_a_background_task_that_fails_or_ends_is_logged_and_begun_again() -> None:
    begun: list[int] = []
    third = asyncio.Event()

    async def run() -> None:
        begun.append(len(begun))
        match len(begun):
            case 1:
                raise ValueError("no such key")
            case 2:
                return
        third.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        async with AsyncExitStack() as stack:
            supervise(stack, "keys", run, pause_s=0.0)
            async with asyncio.timeout(60):
                await third.wait()
            (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "keys")
        await asyncio.wait([task], timeout=60)
    assert task.cancelled()
    assert begun == [0, 1, 2]
    assert [(line["event"], line["task"]) for line in lines] == [
        ("background_task_failed", "keys"),
        ("background_task_ended", "keys"),
    ]
    assert isinstance(lines[0]["exc_info"], ValueError)
