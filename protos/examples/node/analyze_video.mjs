// Uploads a video in chunks and prints the persons of each frame while the upload goes on.
// Usage: node protos/examples/node/analyze_video.mjs [VIDEO]; the address of the service is POSEGATE_ADDRESS.

import { createReadStream } from "node:fs";
import { once } from "node:events";
import { connect } from "./client.mjs";

const client = connect();
const call = client.AnalyzeVideo();
let complete = false;

call.on("data", ({ response, frame, summary }) => {
  if (response === "frame") {
    console.log(`frame ${frame.frame_index}: ${frame.persons.length} persons`);
  } else if (response === "summary") {
    complete = true;
    console.log(`${summary.frames_analyzed} frames analyzed`);
  }
});
call.on("error", (error) => {
  console.error(error.code, error.details);
  process.exitCode = 1;
});
call.on("end", () => {
  client.close();
  if (!complete) process.exitCode = 1; // `summary` is the last message: without it the answer is incomplete
});

call.write({ config: { target_fps: 10 } });
const file = createReadStream(process.argv[2] ?? "tests/data/two_people.mp4", { highWaterMark: 1 << 18 });
for await (const chunk of file) {
  if (call.destroyed) break;
  if (!call.write({ chunk })) await once(call, "drain");
}
call.end();
