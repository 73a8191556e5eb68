"""Use cases: from images and videos to persons, keypoints and angles.

May import: `triton`, `media`, `store`, `skeletons`, `telemetry`, `core`. No protobuf, no gRPC.

Models are run through the port `InferenceClient`.
"""
