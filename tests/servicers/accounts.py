"""A service with accounts: the real gate, quotas and tables, with a scripted model behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from posegate.v1 import account_service_pb2_grpc, pose_service_pb2_grpc, skeleton_service_pb2_grpc
from service.accounts.administration import Administration
from service.accounts.gate import AccountGate
from service.accounts.keyring import Keyring
from service.accounts.plans import load_plans
from service.accounts.quotas import Quotas
from service.accounts.usage import UsageRecorder
from service.client import sending
from service.core.plan import Plan
from service.server.accounts import AccountInterceptor
from service.store.address import parse
from service.store.database import Database
from service.store.quotas import QuotaStore
from service.store.tenants import TenantStore
from service.store.usage import UsageStore
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
        gate: the use case.
        quotas: of it.
        desk: what operators work with.
        database: where all is kept.
    """

    service: Service
    gate: AccountGate
    quotas: Quotas
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
    folder: Path,
    *,
    plans: Mapping[str, Plan] = EASY,
    check_answer: Callable[[object], None] = lambda answer: None,
    **settings: Any,
) -> AsyncIterator[Accounts]:
    """A service with accounts for the time of the block; `settings` as of `running`."""
    url = f"sqlite:///{folder}/posegate.db"
    database = Database(parse(url), connections=5, timeout_s=10)
    tenants, quotas = TenantStore(database), Quotas(QuotaStore(database))
    gate = AccountGate(
        Keyring(tenants, refresh_s=5),
        plans,
        quotas,
        UsageRecorder(UsageStore(database), tenants),
        write_s=10,
    )
    interceptors = [AccountInterceptor(gate, check_answer=check_answer)]
    settings |= {"database_url": url, "interceptors": interceptors, "standing": quotas.standing}
    async with running(**settings) as service:
        try:
            yield Accounts(service, gate, quotas, Administration(tenants, plans, operator="tests"), database)
        finally:
            await gate.close()
            await database.close()
