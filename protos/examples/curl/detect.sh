#!/usr/bin/env bash
# Detects the persons in one image by JSON over HTTP, through the chart's Envoy. Usage:
#   protos/examples/curl/detect.sh [IMAGE] [HOST:PORT]
set -euo pipefail
image="${1:-tests/data/two_people.jpg}"
address="${2:-127.0.0.1:8080}"
# On standard input, and not with -d: a command line cannot hold an image.
printf '{"image": {"content": "%s"}}' "$(base64 -w0 "$image")" |
  curl --silent --show-error --fail-with-body --max-time 30 \
    --header 'content-type: application/json' --data-binary @- \
    "http://$address/posegate.v1.PoseService/DetectPoses"
