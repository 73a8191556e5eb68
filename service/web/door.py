"""What the calls of the HTTP door share: the gateway, the settings, and how much is at work."""

from __future__ import annotations

from dataclasses import dataclass

from service.web.body import BodyLimits, InFlight
from service.web.gateway import Gateway
from service.web.middleware import Places
from service.web.settings import WebSettings


@dataclass(frozen=True)
class Door:
    """What the calls share.

    Attributes:
        settings: in force.
        gateway: that answers.
        in_flight: bytes of bodies at work.
        videos: places for videos.
        cameras: places for streams of images.
        sockets: places for WebSockets, from the handshake on.
    """

    settings: WebSettings
    gateway: Gateway
    in_flight: InFlight
    videos: Places
    cameras: Places
    sockets: Places

    @property
    def body_limits(self) -> BodyLimits:
        """Of a body without a video."""
        settings = self.settings
        return BodyLimits(settings.max_body_bytes, settings.body_idle_s, settings.body_timeout_s)

    @property
    def video_limits(self) -> BodyLimits:
        """Of a body with a video."""
        return BodyLimits(self.settings.max_video_bytes, self.settings.body_idle_s)
