"""Limits of the service: made once from the settings, shared by all code that enforces or reports them."""

from __future__ import annotations

from dataclasses import dataclass

from service.core.angles import Thresholds
from service.media.download import DownloadPolicy
from service.media.image import ImageLimits
from service.media.video_reader import VideoLimits
from service.settings import Settings


@dataclass(frozen=True)
class Limits:
    """Limits of one call, and of the number, memory and duration of all calls.

    Except for those below, every field has the name and the meaning of its setting.

    Attributes:
        image: of one image: `max_image_bytes`, `max_image_pixels`.
        video: of one video: `max_video_bytes`, `max_video_pixels`, `max_video_seconds`, `max_video_frames`.
        max_kept_images: decoded images that unary calls hold at once, to draw on or to cut crops out of.
        uri_hosts: hosts that images may be fetched from, in lower case; empty: none.
        angles: thresholds of the measurements.
    """

    image: ImageLimits
    video: VideoLimits
    max_batch_size: int
    max_persons: int
    max_skeletons: int
    max_in_flight: int
    max_in_flight_bytes: int
    max_message_bytes: int
    max_inferences: int
    max_stream_inferences: int
    stream_inferences_beside: int
    tenant_inferences_beside: int
    max_kept_images: int
    max_streams: int
    max_video_memory_bytes: int
    video_look_ahead: int
    video_look_ahead_bytes: int
    video_decode_threads: int
    video_encode_threads: int
    video_encoder: str
    request_timeout_s: float
    max_upload_s: float
    min_upload_bytes_per_s: int
    stream_idle_s: float
    stream_stall_s: float
    stream_quiet_s: float
    stream_keep_alive_s: float
    uri_hosts: frozenset[str]
    uri_private_addresses: bool
    angles: Thresholds

    @property
    def downloads(self) -> DownloadPolicy:
        """Where images may be fetched from."""
        return DownloadPolicy(self.uri_hosts, self.uri_private_addresses)

    @staticmethod
    def of(settings: Settings) -> Limits:
        """The limits that the settings ask for."""
        return Limits(
            image=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
            video=VideoLimits(
                max_bytes=settings.max_video_bytes,
                max_pixels=settings.max_video_pixels,
                max_seconds=settings.max_video_seconds,
                max_frames=settings.max_video_frames,
            ),
            max_batch_size=settings.max_batch_size,
            max_persons=settings.max_persons,
            max_skeletons=settings.max_skeletons,
            max_in_flight=settings.max_in_flight,
            max_in_flight_bytes=settings.max_in_flight_bytes or settings.max_memory // 8,
            max_message_bytes=settings.max_message_bytes,
            max_inferences=settings.max_inferences,
            max_stream_inferences=settings.max_stream_inferences,
            stream_inferences_beside=settings.stream_inferences_beside,
            tenant_inferences_beside=settings.tenant_inferences_beside,
            # Each worker thread draws one while the next waits for it; two more arrive meanwhile.
            max_kept_images=2 * settings.workers + 2,
            max_streams=settings.max_streams,
            max_video_memory_bytes=settings.max_video_memory_bytes or settings.max_memory // 4,
            video_look_ahead=settings.video_look_ahead,
            video_look_ahead_bytes=settings.video_look_ahead_bytes,
            video_decode_threads=settings.video_decode_threads,
            video_encode_threads=settings.video_encode_threads,
            video_encoder=settings.video_encoder,
            request_timeout_s=settings.request_timeout_s,
            max_upload_s=settings.max_upload_s,
            min_upload_bytes_per_s=settings.min_upload_bytes_per_s,
            stream_idle_s=settings.stream_idle_s,
            stream_stall_s=settings.stream_stall_s,
            stream_quiet_s=settings.stream_quiet_s,
            stream_keep_alive_s=settings.stream_keep_alive_s,
            uri_hosts=frozenset(
                filter(None, (host.strip().lower() for host in settings.uri_hosts.split(",")))
            ),
            uri_private_addresses=settings.uri_private_addresses,
            angles=settings.angles,
        )
