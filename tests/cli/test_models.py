"""`posegate models list`."""

from dataclasses import replace

import grpc
import pytest

from service.cli.connection import Target
from service.cli.models import list_models
from tests.fakes import MODEL
from tests.running import Service


async def test_no_models_are_an_empty_table(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.triton.served = []
    await service.catalog.refresh()
    await list_models(Target(service.address))
    assert "licence" in capsys.readouterr().out


async def test_models_are_listed_with_licence_and_inputs(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.triton.served = [MODEL, replace(MODEL, name="other", ready=False, licence="Apache-2.0")]
    await service.catalog.refresh()
    await list_models(Target(service.address))
    lines = capsys.readouterr().out.splitlines()
    (default,) = [line for line in lines if "yolo11n_pose (default)" in line]
    assert "AGPL-3.0" in default
    assert "640×640 and 3 smaller" in default
    assert "yes" in default
    (other,) = [line for line in lines if "other" in line]
    assert "Apache-2.0" in other
    assert "no" in other.split()
    assert "free of AGPL" in other
    assert "free of AGPL" not in default


async def test_every_page_of_models_is_listed(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.triton.served = [replace(MODEL, name=f"m{number:03}") for number in range(120)]
    await service.catalog.refresh()
    await list_models(Target(service.address))
    told = capsys.readouterr().out
    assert all(f"m{number:03}" in told for number in range(120))


async def test_a_refused_connection_is_an_error_for_the_command_line() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await list_models(Target("127.0.0.1:1"))
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
