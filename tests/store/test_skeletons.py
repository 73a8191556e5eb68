"""SkeletonStore and SkeletonCache on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from service.core.skeleton.template import Edge, Keypoint, Skeleton
from service.errors import AlreadyExists, Conflict, NotFound, QuotaExceeded, Unavailable
from service.skeletons import format as skeleton_format
from service.store.address import parse
from service.store.cache import SkeletonCache
from service.store.database import Database
from service.store.skeletons import SkeletonStore

PATIENT_S = 30.0  # longer than a loaded machine stands still: then a database that is in order is never BUSY

STICK = Skeleton(
    name="stick",
    title="A stick",
    keypoints=(Keypoint("top", sigma=0.05, color=(255, 0, 16)), Keypoint("end", optional=True)),
    edges=(Edge("top", "end"),),
)


def stick(name: str) -> Skeleton:
    return replace(STICK, name=name)


@asynccontextmanager
async def opened(
    url: str, *, max_skeletons: int = 1000, timeout_s: float = PATIENT_S
) -> AsyncIterator[SkeletonStore]:
    database = Database(parse(url), connections=4, timeout_s=timeout_s)
    try:
        yield SkeletonStore(database, skeleton_format, max_skeletons=max_skeletons)
    finally:
        await database.close()


async def names(store: SkeletonStore, tenant: str = "default") -> list[str]:
    kept, more = await store.page(tenant, after="", length=1000, max_size=1_000_000)
    assert not more
    return [one.skeleton.name for one in kept]


async def test_an_empty_store_has_nothing(database_url: str) -> None:
    async with opened(database_url) as store:
        assert await names(store) == []
        assert await store.get("default", "stick") is None
        assert await store.etag("default", "stick") is None


async def test_what_was_kept_comes_back_as_it_was_also_after_a_restart(database_url: str) -> None:
    async with opened(database_url) as store:
        created = await store.create("default", STICK)
        assert created.create_time == created.update_time
    async with opened(database_url) as store:
        kept = await store.get("default", "stick")
    assert kept == created
    assert kept is not None
    assert kept.skeleton == STICK


@pytest.mark.parametrize(
    "name",
    ["'; DROP TABLE skeletons; --", "100% _sure_", "骨格", "🕺", 'quote"s', "a\\b", "x" * 128, "Ünïcode"],
)
async def test_any_name_is_text_and_nothing_else(database_url: str, name: str) -> None:
    async with opened(database_url) as store:
        await store.create("default", stick(name))
        await store.create("default", stick("other"))
        kept = await store.get("default", name)
        assert kept is not None
        assert kept.skeleton.name == name
        assert sorted(await names(store)) == sorted([name, "other"])
        await store.delete("default", name)
        assert await names(store) == ["other"]


async def test_names_that_no_database_can_hold_are_not_there(database_url: str) -> None:
    async with opened(database_url) as store:
        for name in ("nul\0", "half\ud800"):
            assert await store.get("default", name) is None
            with pytest.raises(NotFound):
                await store.delete("default", name)


async def test_a_name_is_taken_once(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.create("default", STICK)
        with pytest.raises(AlreadyExists):
            await store.create("default", STICK)


async def test_a_tenant_neither_sees_nor_changes_what_is_anothers(database_url: str) -> None:
    async with opened(database_url) as store:
        mine = await store.create("mine", STICK)
        assert await store.get("other", "stick") is None
        assert await names(store, "other") == []
        with pytest.raises(NotFound):
            await store.update("other", STICK)
        with pytest.raises(NotFound):
            await store.delete("other", "stick", etag=mine.etag)
        theirs = await store.create("other", stick("stick"))
        assert theirs.etag != mine.etag
        await store.delete("other", "stick")
        assert await store.get("mine", "stick") == mine


async def test_an_update_needs_the_newest_etag_or_none(database_url: str) -> None:
    async with opened(database_url) as store:
        first = await store.create("default", STICK)
        second = await store.update("default", replace(STICK, title="New"), etag=first.etag)
        assert second.etag != first.etag
        assert second.create_time == first.create_time
        assert second.update_time >= first.update_time
        for stale in (first.etag, "0" * 32, "nonsense\0"):
            with pytest.raises(Conflict):
                await store.update("default", STICK, etag=stale)
            with pytest.raises(Conflict):
                await store.delete("default", "stick", etag=stale)
        third = await store.update("default", STICK)
        await store.delete("default", "stick", etag=third.etag)
        with pytest.raises(NotFound):
            await store.update("default", STICK)


async def test_pages_hold_in_spite_of_changes_between_them(database_url: str) -> None:
    async with opened(database_url) as store:
        for number in range(10):
            await store.create("default", stick(f"s{number}"))
        seen, after, more = [], "", True
        while more:
            page, more = await store.page("default", after=after, length=3, max_size=1_000_000)
            seen += [one.skeleton.name for one in page]
            after = seen[-1]
            if len(seen) == 3:
                await store.delete("default", "s0")
                await store.create("default", stick("s1a"))
        assert seen == [f"s{number}" for number in range(10)]


async def test_a_page_ends_where_it_is_large_enough(database_url: str) -> None:
    async with opened(database_url) as store:
        for number in range(5):
            await store.create("default", stick(f"s{number}"))
        page, more = await store.page("default", after="", length=5, max_size=1)
        assert [one.skeleton.name for one in page] == ["s0"]
        assert more


async def test_a_tenant_has_at_most_so_many(database_url: str) -> None:
    async with opened(database_url, max_skeletons=2) as store:
        results = await asyncio.gather(
            *(store.create("default", stick(f"s{number}")) for number in range(6)), return_exceptions=True
        )
        assert sum(isinstance(result, QuotaExceeded) for result in results) == 4
        assert len(await names(store)) == 2
        await store.create("other", STICK)


async def test_of_many_who_want_one_name_exactly_one_gets_it(database_url: str) -> None:
    # Two gateways, each with connections of its own; also the first to make the tables.
    async with opened(database_url) as one, opened(database_url) as two:
        for round_number in range(5):
            wanted = stick(f"wanted{round_number}")
            results = await asyncio.gather(
                *(store.create("default", wanted) for store in (one, two) for _ in range(4)),
                return_exceptions=True,
            )
            assert sum(not isinstance(result, BaseException) for result in results) == 1
            assert sum(isinstance(result, AlreadyExists) for result in results) == 7


async def test_of_many_who_update_one_version_exactly_one_wins(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        kept = await one.create("default", STICK)
        results = await asyncio.gather(
            *(store.update("default", STICK, etag=kept.etag) for store in (one, two) for _ in range(4)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_the_cache_never_gives_what_was_changed_through_another_gateway(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        cache = SkeletonCache(one)
        assert await cache.get("default", "stick") is None
        await two.create("default", STICK)
        assert await cache.get("default", "stick") == STICK
        changed = replace(STICK, title="Changed")
        await two.update("default", changed)
        assert await cache.get("default", "stick") == changed
        assert await cache.get("other", "stick") is None
        await two.delete("default", "stick")
        assert await cache.get("default", "stick") is None


async def test_a_thousand_points_are_kept(database_url: str) -> None:
    points = tuple(Keypoint(f"point {number} {'é' * 50}") for number in range(1000))
    large = Skeleton("large", "Large", points)
    async with opened(database_url) as store:
        await store.create("default", large)
        kept = await store.get("default", "large")
        assert kept is not None
        assert kept.skeleton == large


async def test_a_caller_who_goes_away_leaves_nothing_locked(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.create("default", STICK)
        for _ in range(20):
            task = asyncio.create_task(store.update("default", STICK))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.update("default", replace(STICK, title="Last"))
        kept = await store.get("default", "stick")
        assert kept is not None
        assert kept.skeleton.title == "Last"


async def test_unavailable_says_when_to_try_again() -> None:
    async with opened("sqlite:////proc/nowhere/posegate.db") as store:
        with pytest.raises(Unavailable) as caught:
            await store.get("default", "stick")
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert caught.value.retry_after_s
