"""`posegate health`."""

from grpc_health.v1 import health_pb2

from service.cli.connection import Target
from service.cli.health import health
from tests.running import Service


async def test_health_is_what_the_service_says(service: Service) -> None:
    assert await health(Target(service.address)) == "SERVING"
    await service.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await health(Target(service.address)) == "NOT_SERVING"
    await service.health.set("posegate.v1.PoseService", health_pb2.HealthCheckResponse.SERVING)
    assert await health(Target(service.address), "posegate.v1.PoseService") == "SERVING"


async def test_health_says_why_it_could_not_be_asked(service: Service) -> None:
    assert (await health(Target(service.address), "nobody")).startswith("NOT_FOUND")
    assert (await health(Target("127.0.0.1:1"))).startswith("UNAVAILABLE: ")
