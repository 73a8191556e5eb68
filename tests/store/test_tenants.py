"""Tenants and keys, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from service.core.skeleton.template import Keypoint, Skeleton
from service.errors import AlreadyExists, NotFound
from service.skeletons import format as skeleton_format
from service.store.address import parse
from service.store.database import Database
from service.store.quotas import QuotaStore, Return
from service.store.schema import api_keys, quota_months
from service.store.skeletons import SkeletonStore
from service.store.tenants import KeyRecord, TenantStore
from service.store.usage import UsageRow, UsageStore

NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Database]:
    found = Database(parse(url), connections=4, timeout_s=20)
    try:
        yield found
    finally:
        await found.close()


def key(key_id: str, tenant: str = "acme", *, expire: datetime | None = None) -> KeyRecord:
    return KeyRecord(key_id, tenant, f"label of {key_id}", NOW, expire)


async def test_tenants_are_made_listed_changed_and_deleted(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        for name in ("b", "acme", "c"):
            await store.create(name, "free", NOW)
        with pytest.raises(AlreadyExists):
            await store.create("b", "free", NOW)
        await store.set_plan("b", "pro")
        await store.add_key(key("key1"), bytes(32))
        await store.add_key(key("ended", expire=datetime.now(UTC) - timedelta(seconds=1)), bytes(32))
        assert [(one.name, one.plan, one.keys) for one in await store.page()] == [
            ("acme", "free", 1),
            ("b", "pro", 0),
            ("c", "free", 0),
        ]
        assert [one.name for one in await store.page(after="acme", length=1)] == ["b"]
        assert (await store.get("acme")).create_time == NOW
        await store.delete("acme")
        for missing in (
            store.get("acme"), store.delete("acme"), store.set_plan("acme", "x"), store.keys("acme"),
        ):  # fmt: skip
            with pytest.raises(NotFound):
                await missing
        with pytest.raises(NotFound):
            await store.add_key(key("key2"), bytes(32))


async def test_deleting_a_tenant_deletes_what_is_its_own_and_nothing_else(database_url: str) -> None:
    async with database(database_url) as where:
        store, skeletons = TenantStore(where), SkeletonStore(where, skeleton_format, max_skeletons=10)
        quotas, usage = QuotaStore(where), UsageStore(where)
        for name in ("acme", "other"):
            await store.create(name, "free", NOW)
            await store.add_key(key(f"of-{name}", name), bytes(32))
            await skeletons.create(name, Skeleton("stick", "", (Keypoint("point"),)))
            await quotas.take(name, "2026-11", quota=10, size=lambda _: 3)
            await usage.add(name, 1, [UsageRow(name, NOW.date(), "DetectPoses", 1, 1, 0, 0)], NOW)
        assert (await store.get("acme")).skeletons == 1
        await store.delete("acme")
        assert await skeletons.get("acme", "stick") is None
        assert await skeletons.get("other", "stick") is not None
        assert (await quotas.taken("acme", "2026-11"), await quotas.taken("other", "2026-11")) == (0, 3)
        day = NOW.date()
        rows = await usage.between(day, day + timedelta(days=1))
        assert [row.tenant for row in rows] == ["other"]
        assert [one.name for one in await store.page()] == ["other"]
        assert len(await store.keys("other")) == 1


async def test_a_key_is_kept_by_its_digest_and_listed_without_it(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        await store.create("acme", "free", NOW)
        await store.add_key(key("key1", expire=NOW + timedelta(days=1)), bytes(range(32)))
        changes = await store.changes(None)
        assert changes is not None
        assert changes.complete
        assert [(one.key_id, one.tenant, one.plan, one.digest) for one in changes.keys] == [
            ("key1", "acme", "free", bytes(range(32)))
        ]
        assert changes.keys[0].expires == (NOW + timedelta(days=1)).timestamp()
        assert "digest" not in repr(changes.keys[0])
        assert await store.keys("acme") == [key("key1", expire=NOW + timedelta(days=1))]


async def test_only_what_changed_is_asked_for(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        await store.create("acme", "free", NOW)
        await store.create("other", "free", NOW)
        await store.add_key(key("key1"), bytes(32))
        await store.add_key(key("key2", "other"), bytes(32))
        first = await store.changes(None)
        assert first is not None
        assert await store.changes(first.revision) is None
        await store.revoke_key("key1", NOW)
        revoked = await store.changes(first.revision)
        assert revoked is not None
        assert [(one.key_id, one.revoked) for one in revoked.keys] == [("key1", True)]
        assert not revoked.complete
        await store.set_plan("other", "pro")
        changed = await store.changes(revoked.revision)
        assert changed is not None
        assert [(one.key_id, one.plan) for one in changed.keys] == [("key2", "pro")]
        await store.delete("other")
        after = await store.changes(changed.revision)
        assert after is not None
        assert after.complete
        assert after.keys == []
        beyond = await store.changes(10**9)  # another database than before, restored from an older copy
        assert beyond is not None
        assert beyond.complete


async def test_all_keys_come_however_many_there_are(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        await store.create("acme", "free", NOW)
        async with where.write() as connection:
            row = {"tenant": "acme", "digest": bytes(32), "label": "", "create_time": NOW, "revision": 1}
            rows = [{"key_id": f"{number:08}", **row} for number in range(1201)]
            await connection.execute(api_keys.insert(), rows)
        changes = await store.changes(None)
        assert changes is not None
        assert len({one.key_id for one in changes.keys}) == 1201


async def test_rotating_keeps_label_and_lifetime_and_ends_the_old_key_later(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        await store.create("acme", "free", NOW)
        await store.add_key(key("old", expire=NOW + timedelta(days=30)), bytes(32))
        later = NOW + timedelta(days=10)
        new = await store.replace_key(
            "old", "new", bytes(32), now=later, old_expires=later + timedelta(days=1)
        )
        assert new == KeyRecord("new", "acme", "label of old", later, later + timedelta(days=30))
        old = (await store.keys("acme"))[0]
        assert old.expire_time == later + timedelta(days=1)
        await store.replace_key("old", "third", bytes(32), now=later, old_expires=later + timedelta(days=9))
        assert (await store.keys("acme"))[0].expire_time == later + timedelta(
            days=1
        )  # never later than before
        await store.revoke_key("new", later)
        assert (await store.revoke_key("new", later + timedelta(days=1))).revoke_time == later
        for wrong in ("new", "none"):
            with pytest.raises(NotFound):
                await store.replace_key(wrong, "fourth", bytes(32), now=later, old_expires=later)
        with pytest.raises(NotFound):
            await store.revoke_key("none", later)


async def test_the_first_use_of_a_key_is_told_once_and_the_last_by_the_hour(database_url: str) -> None:
    async with database(database_url) as where:
        store = TenantStore(where)
        await store.create("acme", "free", NOW)
        for name in ("key1", "key2"):
            await store.add_key(key(name), bytes(32))
        hour = NOW.replace(minute=0)
        assert await store.used({"key1"}, hour) == ["key1"]
        assert await store.used({"key1", "key2"}, hour + timedelta(hours=2)) == ["key2"]
        assert await store.used({"key1"}, hour) == []
        assert [one.last_use_time for one in await store.keys("acme")] == [hour + timedelta(hours=2)] * 2


async def test_of_many_takers_together_none_gets_more_than_there_is(database_url: str) -> None:
    async with database(database_url) as one, database(database_url) as two:
        stores = [QuotaStore(one), QuotaStore(two)]
        await TenantStore(one).create("acme", "free", NOW)
        grants = await asyncio.gather(
            *(stores[n % 2].take("acme", "2026-11", quota=50, size=lambda _: 3) for n in range(30))
        )
        assert sum(grant.units for grant in grants) == 50
        assert await stores[1].taken("acme", "2026-11") == 50
        assert len({grant.epoch for grant in grants}) == 1


async def test_units_are_given_back_to_the_row_they_came_from_only(database_url: str) -> None:
    async with database(database_url) as where:
        store, tenants = QuotaStore(where), TenantStore(where)
        await tenants.create("acme", "free", NOW)
        grant = await store.take("acme", "2026-11", quota=50, size=lambda _: 10)
        assert (grant.units, grant.remaining) == (10, 40)
        await store.give_back([Return("acme", "2026-11", grant.epoch, 4), Return("none", "2026-11", "x", 1)])
        assert await store.taken("acme", "2026-11") == 6
        await tenants.delete("acme")
        await tenants.create("acme", "free", NOW)
        await store.take("acme", "2026-11", quota=50, size=lambda _: 5)
        await store.give_back([Return("acme", "2026-11", grant.epoch, 4)])
        assert await store.taken("acme", "2026-11") == 5
        await store.give_back([])
        assert (await store.take("acme", "2026-11", quota=3, size=lambda _: 5)).units == 0  # a smaller plan


async def test_usage_adds_up_and_a_batch_that_comes_twice_counts_once(database_url: str) -> None:
    async with database(database_url) as where:
        tenants, store = TenantStore(where), UsageStore(where)
        await tenants.create("acme", "free", NOW)
        day = NOW.date()
        rows = [
            UsageRow("acme", day, "DetectPoses", 2, 2, 0, 1),
            UsageRow("acme", day, "AnalyzeVideo", 1, 0, 7500, 0),
            UsageRow("gone", day, "DetectPoses", 9, 9, 9, 9),
        ]
        await store.add("g1", 1, rows, NOW)
        await store.add("g1", 1, rows, NOW)
        await store.add("g2", 1, rows[:1], NOW)
        await store.add("g1", 2, [UsageRow("acme", day + timedelta(days=3), "DetectPoses", 1, 1, 0, 0)], NOW)
        found = await store.between(day, day + timedelta(days=1))
        assert found == [
            UsageRow("acme", day, "AnalyzeVideo", 1, 0, 7500, 0),
            UsageRow("acme", day, "DetectPoses", 4, 4, 0, 2),
        ]
        assert len(await store.between(day, day + timedelta(days=30), tenant="acme")) == 3
        assert await store.between(day, day + timedelta(days=30), tenant="none") == []


async def test_a_deleted_tenant_gets_no_rows_and_a_new_one_of_its_name_none_of_the_old(
    database_url: str,
) -> None:
    async with database(database_url) as where:
        store, quotas = TenantStore(where), QuotaStore(where)
        with pytest.raises(NotFound):
            await quotas.take("acme", "2026-11", quota=10, size=lambda _: 3)
        assert await quotas.taken("acme", "2026-11") == 0
        async with where.write() as connection:  # as an older gateway may have left it
            await connection.execute(
                insert(quota_months).values(tenant="acme", month="2026-11", taken=9, epoch="e")
            )
        await store.create("acme", "free", NOW)
        assert await quotas.taken("acme", "2026-11") == 0
