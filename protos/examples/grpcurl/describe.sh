#!/usr/bin/env bash
# Lists the services, describes one request message, and asks for the models and the health.
# Usage: protos/examples/grpcurl/describe.sh
set -euo pipefail
address="${POSEGATE_ADDRESS:-127.0.0.1:50051}"
call=("${GRPCURL:-grpcurl}" -plaintext -max-time 10)
"${call[@]}" "$address" list
"${call[@]}" "$address" describe posegate.v1.DetectPosesRequest
"${call[@]}" "$address" posegate.v1.PoseService/GetServerInfo
"${call[@]}" "$address" posegate.v1.PoseService/ListModels
"${call[@]}" -d '{"service": "posegate.v1.PoseService"}' "$address" grpc.health.v1.Health/Check
