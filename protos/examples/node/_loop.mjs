import { readFileSync } from "node:fs";
import { connect } from "./client.mjs";
const client = connect();
const request = { image: { content: readFileSync("tests/data/two_people.jpg") } };
const codes = {}; let sent = 0, worst = 0;
const total = Number(process.argv[2]);
async function one() {
  while (sent < total) {
    sent++;
    const t = Date.now();
    await new Promise((done) => client.DetectPoses(request, { deadline: Date.now() + 30_000 }, (error) => {
      const code = error ? `${error.code} ${error.details}` : "OK"; codes[code] = (codes[code] ?? 0) + 1; worst = Math.max(worst, Date.now() - t); done(); }));
  }
}
await Promise.all(Array.from({ length: 8 }, one));
console.log(JSON.stringify({ sent, codes, worst }));
client.close();
