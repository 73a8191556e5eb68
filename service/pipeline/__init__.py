"""Use cases: from images and videos to persons, keypoints and angles. No protobuf, no gRPC."""
