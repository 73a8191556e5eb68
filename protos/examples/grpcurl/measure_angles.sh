#!/usr/bin/env bash
# Measures joint angles in one image; the answer is JSON. Usage: protos/examples/grpcurl/measure_angles.sh [IMAGE]
set -euo pipefail
image="${1:-tests/data/single_person.jpg}"
printf '{"measurements": ["knee_flexion"], "image": {"content": "%s"}}' "$(base64 -w0 "$image")" |
  "${GRPCURL:-grpcurl}" -plaintext -max-time 10 -d @ \
    "${POSEGATE_ADDRESS:-127.0.0.1:50051}" posegate.v1.PoseService/MeasureAngles
