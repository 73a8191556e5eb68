#!/usr/bin/env bash
# Detects the persons in one image; the answer is JSON. Usage: protos/examples/grpcurl/detect.sh [IMAGE]
# The server reflects its contract, so grpcurl needs no .proto files. GRPCURL names the program.
set -euo pipefail
image="${1:-tests/data/two_people.jpg}"
# On standard input: a command line cannot hold an image.
printf '{"image": {"content": "%s"}}' "$(base64 -w0 "$image")" |
  "${GRPCURL:-grpcurl}" -plaintext -max-time 10 -max-msg-sz 268435456 -d @ \
    "${POSEGATE_ADDRESS:-127.0.0.1:50051}" posegate.v1.PoseService/DetectPoses
