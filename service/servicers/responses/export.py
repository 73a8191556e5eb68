"""Exported files as messages."""

from __future__ import annotations

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.export.files import File


def exported_file(file: File) -> pb.ExportedFile:
    """Name, bytes and media type."""
    return pb.ExportedFile(name=file.name, content=file.content, media_type=file.media_type)
