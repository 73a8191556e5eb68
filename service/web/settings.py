"""Settings of the HTTP door, from environment variables that start with POSEGATE_WEB_."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings import MIB


class WebSettings(BaseSettings):
    """Settings of the HTTP door. The field `listen` is set by POSEGATE_WEB_LISTEN, and so on."""

    model_config = SettingsConfigDict(env_prefix="POSEGATE_WEB_", extra="ignore", frozen=True)

    listen: str = Field(default="127.0.0.1:8080", description="Address the door listens on, host:port.")
    gateway: str = Field(
        default="127.0.0.1:50051",
        description="Address of the gateway, host:port; dns:///NAME:PORT for round robin over the pods of a "
        "headless Service.",
    )
    gateway_tls: bool = Field(
        default=False, description="Speak TLS with the gateway, trusting the authorities of this machine."
    )
    gateway_ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that sign the gateway's certificate; implies TLS.",
    )
    gateway_cert: Path | None = Field(
        default=None,
        description="PEM file of the door's own certificate, for gateways that ask for one; implies TLS.",
    )
    gateway_key: Path | None = Field(
        default=None, validate_default=True, description="PEM file of its private key."
    )
    whole_body_model: str = Field(
        default="",
        description="Model of `POST /infer/video`; empty: the first one ready that gives positions.",
    )
    page: bool = Field(default=True, description="Serve the page at `/`.")
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the door from a browser, such as https://app.example.com, "
        "comma-separated; * for any; empty: none but the door's own page.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Names that the header Host may hold, without ports, comma-separated; * for any; empty: "
        "localhost, 127.0.0.1 and [::1] where the door listens on a loopback address, else any. Others are "
        "answered 421.",
    )
    max_calls: int = Field(default=64, ge=1, description="Calls at work at once; more are answered 429.")
    max_streams: int = Field(
        default=16, ge=1, description="How many of those may be videos, and how many cameras beside them."
    )
    max_connections: int = Field(
        default=1000, ge=1, description="Connections at once; more are answered 503."
    )
    max_body_bytes: int = Field(
        default=64 * MIB, ge=1, description="Bytes of the body of one call; videos have their own limit."
    )
    max_in_flight_bytes: int = Field(
        default=512 * MIB,
        ge=1,
        description="Bytes of the bodies of all calls at work, videos apart; more are answered 429.",
    )
    max_video_bytes: int = Field(default=2_000_000_000, ge=1, description="Bytes of the body with a video.")
    header_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds that a caller has to send the headers of a request."
    )
    max_header_bytes: int = Field(
        default=65_536, ge=1024, description="Bytes of the headers of one request; more are answered 431."
    )
    body_idle_s: float = Field(
        default=30.0, gt=0, description="A body that pauses for longer, seconds, is given up with 408."
    )
    body_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds that a body without a video, or the fields before a video, may take as a whole; "
        "408 after that.",
    )
    keep_alive_s: float = Field(
        default=30.0, gt=0, description="Seconds that a connection without a request is kept open."
    )
    send_idle_s: float = Field(
        default=60.0, gt=0, description="A caller who takes no answer for longer, seconds, is given up."
    )
    request_timeout_s: float = Field(
        default=60.0, gt=0, description="Deadline of a call to the gateway, seconds; videos have their own."
    )
    video_timeout_s: float = Field(
        default=7200.0, gt=0, description="Deadline of a video or a camera stream, seconds."
    )
    gateway_idle_s: float = Field(
        default=60.0,
        gt=0,
        description="A gateway that takes no more of a video for longer, seconds, is given up with 504.",
    )
    drain_grace_s: float = Field(
        default=20.0, ge=0, description="Seconds that calls in flight get to finish on SIGTERM."
    )

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) <= 65535):
            raise ValueError("must be host:port, with a port from 0 to 65535")
        return listen

    @field_validator("gateway_ca", "gateway_cert", "gateway_key", mode="before")
    @classmethod
    def _no_file(cls, file: object) -> object:
        """An empty variable names no file."""
        return None if file == "" else file

    @field_validator("gateway_key")
    @classmethod
    def _with_its_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("gateway_cert") is None):
            raise ValueError("POSEGATE_WEB_GATEWAY_CERT and POSEGATE_WEB_GATEWAY_KEY go together")
        return key

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        for origin in _split(text):
            parts = urlsplit(origin)
            bare = (
                parts.scheme in ("http", "https")
                and parts.netloc
                and origin == f"{parts.scheme}://{parts.netloc}"
            )
            if origin != "*" and not bare:
                raise ValueError(f"{origin!r} is not an origin: write it as https://app.example.com")
        return text

    @property
    def listen_host(self) -> str:
        """Host of `listen`, without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    def host_allowed(self, host: str) -> bool:
        """Whether a request with this header Host is answered.

        A page that resolves its own name to a loopback address (DNS rebinding) would otherwise be of the same
        origin as the door.
        """
        named = _split(self.allowed_hosts.lower())
        if not named and _is_loopback(self.listen_host):
            named = ("localhost", "127.0.0.1", "[::1]", f"[{self.listen_host}]", self.listen_host)
        bare = host.lower()
        name, colon, port = bare.rpartition(":")
        if colon and port.isdecimal():
            bare = name
        return not named or "*" in named or bare in named

    @property
    def listen_port(self) -> int:
        """Port of `listen`."""
        return int(self.listen.rpartition(":")[2])

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return _split(self.cors_origins)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
