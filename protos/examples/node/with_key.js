// Find the people in a picture with an API key, and see what is left of the month.
//
//   npm install
//   POSEGATE_API_KEY=pg_… node with_key.js picture.jpg [host:port] [ca.crt]
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTOS = path.join(__dirname, "..", "..");

function load() {
  const files = ["posegate/v1/pose_service.proto", "posegate/v1/account_service.proto"];
  const options = { keepCase: true, longs: String, defaults: true, oneofs: true };
  const includeDirs = [PROTOS, path.join(PROTOS, "third_party")];
  return grpc.loadPackageDefinition(loader.loadSync(files, { ...options, includeDirs })).posegate.v1;
}

function call(client, method, request, metadata) {
  return new Promise((resolve, reject) => {
    let trailing;
    const deadline = Date.now() + 60_000;
    const running = client[method](request, metadata, { deadline }, (error, answer) => {
      // The trailing metadata comes with the status, which may be after the answer.
      if (error) reject(error);
      else running.on("status", (status) => resolve({ answer, trailing: status.metadata }));
      if (trailing) resolve({ answer, trailing });
    });
    running.on("status", (status) => { trailing = status.metadata; });
  });
}

async function main([picture, address = "127.0.0.1:50051", ca = ""]) {
  const { PoseService, AccountService } = load();
  const metadata = new grpc.Metadata();
  metadata.set("x-api-key", process.env.POSEGATE_API_KEY ?? "");
  // A key is a secret: in clear text only to a service on this machine, or through a mesh that encrypts.
  const credentials = ca
    ? grpc.credentials.createSsl(fs.readFileSync(ca))
    : grpc.credentials.createInsecure();
  const poses = new PoseService(address, credentials);
  const accounts = new AccountService(address, credentials);
  try {
    const request = { image: { content: fs.readFileSync(picture) } };
    const { answer, trailing } = await call(poses, "DetectPoses", request, metadata);
    const [left = "unlimited"] = trailing.get("ratelimit-remaining");
    console.log(`${answer.persons.length} people, ${left} calls left this month`);
    const account = (await call(accounts, "GetAccount", {}, metadata)).answer;
    console.log(`tenant ${account.tenant}, plan ${account.plan}`);
  } catch (error) {
    console.log(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  } finally {
    poses.close();
    accounts.close();
  }
}

main(process.argv.slice(2));
