"""Encoded bytes to pixels and back: images, videos, downloads, uploads on disk.

May import: cv2, Pillow, FFmpeg (av); `telemetry`, `core`, `errors`. No gRPC.
"""
