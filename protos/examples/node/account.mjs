// Detects the persons in one image with an API key, and prints what is left of the month.
// Usage: POSEGATE_API_KEY=pg_… node protos/examples/node/account.mjs [IMAGE]; the address is POSEGATE_ADDRESS.

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import { connect } from "./client.mjs";

const client = connect();
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.POSEGATE_API_KEY ?? ""}`);
const request = { image: { content: readFileSync(process.argv[2] ?? "tests/data/two_people.jpg") } };

let persons = 0;
const call = client.DetectPoses(request, metadata, { deadline: Date.now() + 10_000 }, (error, response) => {
  client.close();
  if (error) {
    console.error(grpc.status[error.code], error.details);
    process.exitCode = 1;
    return;
  }
  persons = response.persons.length;
});
call.on("status", ({ code, metadata: trailing }) => {
  if (code !== grpc.status.OK) return;
  const [left = "unlimited"] = trailing.get("ratelimit-remaining");
  // The status may come before the response is handed out.
  setImmediate(() => console.log(`${persons} persons; calls left this month: ${left}`));
});
