"""A gateway with accounts, wired as in production, with a scripted model behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from posegate.v1 import account_service_pb2_grpc, pose_service_pb2_grpc, skeleton_service_pb2_grpc
from service.accounts.administration import Administration
from service.accounts.plans import load_plans
from service.client import sending
from service.core.plan import Plan
from service.store.address import parse
from service.store.database import Database
from service.store.tenants import TenantStore
from tests.running import Service, running

if TYPE_CHECKING:
    from posegate.v1.account_service_pb2_grpc import AccountServiceAsyncStub
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub

SHIPPED = load_plans()
EASY = {name: replace(plan, calls_per_second=None) for name, plan in SHIPPED.items()}
"""The shipped plans, without a rate: tests are in a hurry."""


@dataclass(eq=False)
class Caller:
    """Stubs that send a tenant's key."""

    key: str
    poses: PoseServiceAsyncStub
    skeletons: SkeletonServiceAsyncStub
    account: AccountServiceAsyncStub


@dataclass(eq=False)
class Accounts:
    """A service with accounts.

    Attributes:
        service: it.
        desk: what operators work with.
        database: where all is kept.
    """

    service: Service
    desk: Administration
    database: Database

    @asynccontextmanager
    async def caller(self, tenant: str, plan: str = "pro") -> AsyncIterator[Caller]:
        """A new tenant with a key."""
        await self.desk.create_tenant(tenant, plan)
        key = (await self.desk.create_key(tenant, "", None)).text
        async with self.channel(key) as caller:
            yield caller

    @asynccontextmanager
    async def channel(self, key: str) -> AsyncIterator[Caller]:
        """Stubs that send a key and never retry."""
        options = [("grpc.enable_retries", 0)]
        interceptors = sending(key) if key else None
        async with grpc.aio.insecure_channel(
            self.service.address, options=options, interceptors=interceptors
        ) as channel:
            yield Caller(
                key,
                pose_service_pb2_grpc.PoseServiceStub(channel),
                skeleton_service_pb2_grpc.SkeletonServiceStub(channel),
                account_service_pb2_grpc.AccountServiceStub(channel),
            )


@asynccontextmanager
async def accounts(
    folder: Path, *, plans: Mapping[str, Plan] = EASY, **settings: Any
) -> AsyncIterator[Accounts]:
    """A gateway with accounts for the time of the block; `settings` as of `running`."""
    url = f"sqlite:///{folder}/posegate.db"
    file = folder / "plans.toml"
    file.write_text("".join(_table(name, plan) for name, plan in plans.items()), encoding="utf-8")
    database = Database(parse(url), connections=2, timeout_s=60)
    own = {"auth": "keys", "plans": file, "database_url": url, "usage_write_s": 0.1, **settings}
    try:
        async with running(**own) as service:
            yield Accounts(service, Administration(TenantStore(database), plans, operator="tests"), database)
    finally:
        await database.close()


def _table(name: str, plan: Plan) -> str:
    """A plan as a table of the file."""
    entries = {**asdict(plan)}
    del entries["name"]
    lines = (
        f"{key} = {json.dumps('unlimited' if value is None else value)}" for key, value in entries.items()
    )
    return f"[{name}]\n" + "\n".join(lines) + "\n"
