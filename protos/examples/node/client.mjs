// The channel that the other examples open: retries, large messages, and the service's address.

import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../", import.meta.url));
const definition = loadSync("posegate/v1/pose_service.proto", {
  includeDirs: [protos, `${protos}third_party`],
  keepCase: true,
  longs: Number,
  defaults: true,
  oneofs: true,
});

export const { PoseService } = grpc.loadPackageDefinition(definition).posegate.v1;

// Attempts with growing pauses until the deadline of the call: a restart of the service takes some seconds.
const serviceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "posegate.v1.PoseService" }],
      retryPolicy: {
        maxAttempts: 100,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

export function connect(address = process.env.POSEGATE_ADDRESS ?? "127.0.0.1:50051") {
  return new PoseService(address, grpc.credentials.createInsecure(), {
    "grpc-node.retry_max_attempts_limit": 100, // 5 otherwise
    "grpc.initial_reconnect_backoff_ms": 200, // without these the wait grows to two minutes
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.service_config": JSON.stringify(serviceConfig),
    "grpc.per_rpc_retry_buffer_size": 64 << 20, // 1 MiB otherwise, and larger images are not retried
    "grpc.max_send_message_length": 256 << 20,
    "grpc.max_receive_message_length": 256 << 20,
  });
}
