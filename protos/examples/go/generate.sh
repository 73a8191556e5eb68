#!/usr/bin/env bash
# Writes the Go stubs of the contract into posegatepb/. Needs protoc, and on PATH:
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@latest
#   go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest
set -euo pipefail
cd "$(dirname "$0")"
package=example.com/posegate-detect/posegatepb
options=("--go_opt=module=$package" "--go-grpc_opt=module=$package")
files=()
for file in ../../posegate/v1/*.proto; do
  name="posegate/v1/$(basename "$file")"
  files+=("$name")
  options+=("--go_opt=M$name=$package" "--go-grpc_opt=M$name=$package")
done
mkdir -p posegatepb
protoc -I ../.. -I ../../third_party --go_out=posegatepb --go-grpc_out=posegatepb "${options[@]}" "${files[@]}"
go mod tidy
