"""`GET /health`, `/livez`, `/v1/info`, `/v1/models` and `/v1/account`: what is there, whether it can
answer, and what the caller may do."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import account_service_pb2 as account_pb
from posegate.v1 import pose_service_pb2 as pb
from service.message_fields import plain_fields
from service.web import answers
from service.web.door import Door
from service.web.fields import Fields
from service.web.form import query_values
from service.web.gateway import caller_of
from service.web.measurements import MEASUREMENTS


class InfoCalls:
    """Information on the service.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def health(self, request: Request) -> Response:
        """Whether the default model can answer."""
        if await self._door.gateway.serving():
            return answers.json_response({"status": "ok"})
        return answers.json_response({"status": "unavailable"}, status=503, headers={"retry-after": "1"})

    async def livez(self, request: Request) -> Response:
        """Whether the door itself is there."""
        return answers.json_response({"status": "ok"})

    async def info(self, request: Request) -> Response:
        """Build, limits, measurements."""
        Fields(query_values(request.query_params)).check()
        gateway = self._door.gateway
        answered = await gateway.call(
            gateway.pose.GetServerInfo,
            pb.GetServerInfoRequest(),
            caller_of(request),
            pb.GetServerInfoResponse,
        )
        message = answered.message
        settings = self._door.settings
        document = {
            "version": message.version,
            "commit": message.commit,
            "default_model": message.default_model,
            "triton_version": message.triton_version,
            "models_ready": list(message.models_ready),
            "limits": plain_fields(message.limits),
            "http_limits": {
                "max_calls": settings.max_calls,
                "max_body_bytes": settings.max_body_bytes,
                "max_video_bytes": settings.max_video_bytes,
                "max_streams": settings.max_streams,
            },
            "measurements": [
                {
                    "name": one.name,
                    "title": one.title,
                    "bodyPart": one.body_part,
                    "extension": one.extension,
                }
                for one in MEASUREMENTS
            ],
        }
        return answers.json_response(document, headers=answered.headers)

    async def account(self, request: Request) -> Response:
        """Tenant, plan, limits and quota of the caller's key."""
        Fields(query_values(request.query_params)).check()
        gateway = self._door.gateway
        answered = await gateway.call(
            gateway.accounts.GetAccount,
            account_pb.GetAccountRequest(),
            caller_of(request),
            account_pb.GetAccountResponse,
        )
        message = answered.message
        document = {
            "tenant": message.tenant,
            "plan": message.plan,
            "limits": plain_fields(message.limits),
            "quota": plain_fields(message.quota),
        }
        return answers.json_response(document, headers=answered.headers)

    async def models(self, request: Request) -> Response:
        """A page of models."""
        fields = Fields(query_values(request.query_params))
        rpc_request = pb.ListModelsRequest(
            page_size=fields.integer("page_size", 0) or 0, page_token=fields.text("page_token")
        )
        fields.check()
        gateway = self._door.gateway
        answered = await gateway.call(
            gateway.pose.ListModels, rpc_request, caller_of(request), pb.ListModelsResponse
        )
        document = {
            "models": [
                MessageToDict(
                    one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                for one in answered.message.models
            ],
            "next_page_token": answered.message.next_page_token,
        }
        return answers.json_response(document, headers=answered.headers)
