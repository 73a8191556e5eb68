// Detects the persons in one image and prints where each nose is.
// Usage: node protos/examples/node/detect.mjs [IMAGE]; the address of the service is POSEGATE_ADDRESS.

import { readFileSync } from "node:fs";
import { connect } from "./client.mjs";

const client = connect();
const request = { image: { content: readFileSync(process.argv[2] ?? "tests/data/two_people.jpg") } };

client.DetectPoses(request, { deadline: Date.now() + 10_000 }, (error, response) => {
  client.close();
  if (error) {
    console.error(error.code, error.details);
    process.exitCode = 1;
    return;
  }
  for (const { score, keypoints } of response.persons) {
    const [nose] = keypoints;
    console.log(`person ${score.toFixed(2)}: nose at (${nose.x.toFixed(0)}, ${nose.y.toFixed(0)})`);
  }
});
