"""Settings of the gateway, read from environment variables that start with POSEGATE_."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.angles import Thresholds

MIB = 1 << 20


def cpu_count() -> int:
    """CPUs this process may run on: its affinity, cut by the container's quota where there is one."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def usual_memory() -> int:
    """Bytes that the gateway may use where the operator sets none."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        share = int(limit) * 9 // 10
    except (OSError, ValueError):  # no container, or no limit ("max")
        share = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(min(share, 4096 * MIB), 256 * MIB)


def is_on_this_host(address: str) -> bool:
    """Whether an address, host:port or unix:PATH, is reached from this host only."""
    host = address.rpartition(":")[0].strip("[]").lower()
    if address.startswith(("unix:", "unix-abstract:")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """The gateway's settings. The field `listen` is set by POSEGATE_LISTEN, and so on."""

    model_config = SettingsConfigDict(
        env_prefix="POSEGATE_", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    listen: str = Field(default="127.0.0.1:50051", description="Address the gateway listens on.")
    health_listen: str = Field(
        default="",
        description="A second address, host:port, that serves grpc.health.v1 only and never TLS, for the"
        " kubelet's probes; empty: none.",
    )
    tls_cert: Path | None = Field(
        default=None,
        description="PEM file of the gateway's certificate chain:"
        " `POSEGATE_LISTEN` then speaks TLS only. Read again when it changes.",
    )
    tls_key: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file of its private key, without a passphrase.",
    )
    tls_client_ca: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file of the authorities that sign callers' certificates: callers must have one.",
    )
    tls_reload_s: float = Field(
        default=10.0, gt=0, description="Seconds between two checks of the certificate's files for changes."
    )
    triton_url: str = Field(default="127.0.0.1:8001", description="Triton's gRPC address.")
    triton_shared_memory: Literal["auto", "off"] = Field(
        default="auto",
        description="auto: pass tensors in shared memory when Triton is on this host; off: always over gRPC.",
    )
    default_model: str = Field(
        default="yolo11n_pose", description="Model that answers when a request names none."
    )
    max_memory: int = Field(
        default_factory=usual_memory,
        ge=256 * MIB,
        description="Bytes of memory of the gateway and its decoder processes, at most; 9 tenths of the"
        " container's limit by default, half the machine's memory without one, never more than 4 GiB.",
    )
    max_image_bytes: int = Field(default=25_000_000, ge=1, description="Bytes of one encoded image, at most.")
    max_image_pixels: int = Field(default=50_000_000, ge=1, description="Pixels of one image, at most.")
    max_decode_cpu_s: float = Field(
        default=2.0,
        gt=0,
        description="CPU seconds that decoding one image may take, beside 0.25 for each of its megapixels.",
    )
    scaled_decoding: Literal["off", "fine", "fast"] = Field(
        default="fine",
        description="Decode a JPEG at half, a quarter or an eighth of its size where nothing else needs the"
        " whole image; fine: no smaller than twice the model's input, which moves keypoints by 0.2 px of the"
        " input; fast: no smaller than the input, 0.5 px.",
    )
    max_batch_size: int = Field(default=32, ge=1, le=1000, description="Images in one batch call, at most.")
    max_persons: int = Field(default=300, ge=1, le=1000, description="Persons in one answer, at most.")
    max_skeletons: int = Field(default=1000, ge=1, description="Custom skeletons of one tenant, at most.")
    max_in_flight: int = Field(
        default=64, ge=1, description="Unary requests in the gateway at once, at most."
    )
    max_in_flight_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes of the unary requests in the gateway at once, and of answers that are being sent.",
    )
    max_request_s: float = Field(
        default=60.0, gt=0, description="A unary request that takes longer to arrive, seconds, is refused."
    )
    unread_s: float = Field(
        default=60.0,
        gt=0,
        description="The connection of a caller who takes no unary answer for longer, seconds, is ended. "
        "Behind a proxy, whose connections callers share: longer than the proxy lets a call last.",
    )
    max_message_bytes: int = Field(
        default=256 * MIB, ge=MIB, description="Bytes of one gRPC message, either way."
    )
    stream_window_bytes: int = Field(
        default=4 * MIB,
        ge=1 << 14,
        le=4 * MIB,
        description="Bytes of a request that a caller may send before the gateway begins to read it. The "
        "default grows on fast, long lines. With less, such as 65536 for callers in the same network, "
        "refused requests cost less, and requests beyond it one round trip more.",
    )
    max_inferences: int = Field(
        default=16,
        ge=1,
        description="Inference slots: images between decoding and answer at once; the rest wait here.",
    )
    max_stream_inferences: int = Field(
        default=4, ge=1, description="Slots of those for frames of videos and streams, at most."
    )
    stream_inferences_beside: int = Field(
        default=1,
        ge=1,
        description="The same while unary calls come too: every frame at the model delays them. "
        "A GPU takes several at once without harm.",
    )
    tenant_inferences_beside: int = Field(
        default=2,
        ge=1,
        description="Slots for unary calls of one tenant while other tenants call too; a GPU takes more.",
    )
    max_streams: int = Field(
        default=16, ge=1, description="Videos and streams (AnalyzeVideo, StreamPoses) at once."
    )
    max_video_bytes: int = Field(default=2_000_000_000, ge=1, description="Bytes of one encoded video.")
    max_video_pixels: int = Field(
        default=16_000_000, ge=1, description="Pixels of one frame of a video; 4K has 8.3 million."
    )
    max_video_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes that the decoders of all videos may hold; a single one is always admitted.",
    )
    max_video_seconds: float = Field(
        default=3600.0, gt=0, description="Seconds of one video that are analysed, at most."
    )
    max_video_frames: int = Field(
        default=216_000, ge=1, description="Frames of one video that are analysed, at most."
    )
    video_look_ahead: int = Field(
        default=8, ge=1, le=256, description="Frames of one video that are decoded ahead of the answers."
    )
    video_look_ahead_bytes: int = Field(
        default=64 * MIB, ge=1, description="Bytes of those frames; one frame is always allowed."
    )
    video_decode_threads: int = Field(
        default=1, ge=1, le=64, description="Threads that decode one video. More use more memory."
    )
    video_encode_threads: int = Field(
        default=1, ge=1, le=64, description="Threads that encode one annotated video."
    )
    video_encoder: Literal["libx264", "libopenh264", "h264_nvenc"] = Field(
        default="libx264", description="H.264 encoder of annotated videos."
    )
    max_spool_bytes: int = Field(
        default=32_000_000_000,
        ge=1,
        description="Bytes of all videos that are being uploaded, at most; below the limit of the folder, "
        "where that ends the process, as in Kubernetes.",
    )
    video_spool: Path | None = Field(
        default=None,
        description="Folder for videos that are being uploaded; the system's temporary one by default.",
    )
    stream_idle_s: float = Field(
        default=60.0, gt=0, description="A video's upload that pauses for longer, seconds, is ended."
    )
    max_upload_s: float = Field(
        default=3600.0, gt=0, description="A video's upload that takes longer in all, seconds, is ended."
    )
    min_upload_bytes_per_s: int = Field(
        default=2000,
        ge=0,
        description="Bytes a second, over 20 s, below which a video's upload is ended while all places"
        " for videos are taken; 0: never.",
    )
    stream_quiet_s: float = Field(
        default=600.0, gt=0, description="A StreamPoses call without an image for longer, seconds, is ended."
    )
    stream_stall_s: float = Field(
        default=300.0, gt=0, description="A call whose caller takes no answer for longer, seconds, is ended."
    )
    stream_keep_alive_s: float = Field(
        default=10.0, gt=0, description="Seconds without a result after which StreamPoses sends a keep-alive."
    )
    workers: int = Field(
        default_factory=cpu_count, ge=1, description="Threads that decode and draw; the CPUs by default."
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, description="Deadline of a unary call whose caller set none, seconds."
    )
    health_interval_s: float = Field(
        default=1.0, gt=0, description="Seconds between two checks of Triton's readiness."
    )
    max_connection_age_s: float = Field(
        default=600.0,
        gt=0,
        description="Connections older than this are renewed, so that callers find new pods.",
    )
    max_connection_age_grace_s: float = Field(
        default=3600.0, gt=0, description="Time that calls on an old connection get to finish, seconds."
    )
    drain_delay_s: float = Field(
        default=0.5, ge=0, description="Seconds between NOT_SERVING and refusing new connections."
    )
    drain_grace_s: float = Field(
        default=20.0, ge=0, description="Seconds that calls in flight get to finish on SIGTERM."
    )
    uri_hosts: str = Field(
        default="",
        description="Hosts from which `image.uri` may name https images, comma-separated; empty: off.",
    )
    uri_private_addresses: bool = Field(
        default=False,
        description="Let those hosts have private, loopback and link-local addresses; off: only public ones.",
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="Where skeletons, tenants, keys and usage are kept: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME;"
        " empty: the file posegate.db in `home`.",
    )
    database_timeout_s: float = Field(
        default=5.0, gt=0, description="Seconds a call may spend on the database, its locks included."
    )
    database_connections: int = Field(
        default=5, ge=1, description="Connections to the database that a gateway holds, at most."
    )
    auth: Literal["off", "keys"] = Field(
        default="off",
        description="keys: every call but health and reflection needs an API key; off: all callers are one.",
    )
    auth_plaintext: Literal["refuse", "allow"] = Field(
        default="refuse",
        validate_default=True,
        description="allow: take keys over an address beyond this host without TLS, where a mesh encrypts.",
    )
    auth_refresh_s: float = Field(
        default=5.0,
        gt=0,
        le=10,
        description="Seconds after which a revoked key or a changed plan takes effect.",
    )
    plans: Path | None = Field(
        default=None, description="TOML file of the tenants' plans; empty: free, standard and pro."
    )
    usage_write_s: float = Field(
        default=10.0, gt=0, description="Seconds between two writes of usage to the database."
    )
    angles: Thresholds = Field(
        default_factory=Thresholds,
        description="Thresholds of the measurements, each by name: POSEGATE_ANGLES__MIN_SCORE=0.3 and so on.",
    )
    metrics_listen: str = Field(
        default="", description="host:port of Prometheus metrics at /metrics; empty: none."
    )
    commit: str = Field(
        default="",
        pattern="^([0-9a-f]{7,64})?$",
        description="Source commit of the build, hexadecimal, for GetServerInfo; images set it.",
    )
    reflection: bool = Field(default=True, description="Serve gRPC server reflection.")
    log_format: Literal["json", "console"] = Field(default="json", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of log lines that are written."
    )
    model_repository: Path = Field(
        default=Path("model_repository/cpu"), description="`posegate up`: models of the bundled Triton."
    )
    skeletons: Path = Field(
        default=Path("model_repository/skeletons"),
        description="Folder of skeleton templates that models of your own follow, JSON files.",
    )
    home: Path = Field(
        default=Path(".posegate"),
        description="Folder of the SQLite database; for `posegate up` also of Triton's runtime and caches.",
    )

    @field_validator("listen", "health_listen", "metrics_listen")
    @classmethod
    def _port_in_range(cls, listen: str, info: ValidationInfo) -> str:
        """Check host and port. gRPC takes a larger port modulo 65536, and would listen somewhere else."""
        if info.field_name != "listen" and not listen:
            return listen
        _, colon, port = listen.rpartition(":")
        socket = listen.startswith("unix:") and info.field_name != "metrics_listen"
        if not socket and not (colon and port.isdecimal() and int(port) <= 65535):
            raise ValueError("must be host:port, with a port from 0 to 65535")
        return listen

    @field_validator("tls_cert", "tls_key", "tls_client_ca", "plans", mode="before")
    @classmethod
    def _no_file(cls, file: object) -> object:
        """Read an empty variable as no file."""
        return None if file == "" else file

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _with_the_rest(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        cert = info.data.get("tls_cert")
        if info.field_name == "tls_key" and cert is not None and file is None:
            raise ValueError("is missing: POSEGATE_TLS_CERT needs its private key")
        if file is not None and cert is None:
            raise ValueError("needs POSEGATE_TLS_CERT, which is missing")
        return file

    @field_validator("auth_plaintext")
    @classmethod
    def _no_keys_in_clear_text(cls, allowed: str, info: ValidationInfo) -> str:
        """Refuse API keys over plaintext beyond this host: they could be read on the network."""
        clear = info.data.get("tls_cert") is None and not is_on_this_host(info.data.get("listen", ""))
        if info.data.get("auth") == "keys" and clear and allowed != "allow":
            raise ValueError(
                "POSEGATE_AUTH=keys needs TLS on an address beyond this host: set POSEGATE_TLS_CERT and"
                " POSEGATE_TLS_KEY, or POSEGATE_AUTH_PLAINTEXT=allow where a mesh encrypts"
            )
        return allowed
