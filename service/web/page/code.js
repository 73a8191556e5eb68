// "As code": the call that the page makes, to copy.

import { element } from "./dom.js";

const origin = location.origin;
const grpc = `${location.hostname}:50051`;

// `write` returns {Python, curl, grpcurl} for the options as they stand.
export function codePanel(panel, write) {
  const shown = element("pre", { tabIndex: 0 });
  const bar = element("div", { className: "bar" });
  let language = "Python";
  const update = () => {
    const texts = write();
    shown.textContent = texts[language];
    for (const button of bar.querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", String(button.textContent === language));
    }
  };
  for (const name of ["Python", "curl", "grpcurl"]) {
    const button = element("button", { type: "button", textContent: name });
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => { language = name; update(); });
    bar.append(button);
  }
  const copy = element("button", { type: "button", textContent: "Copy" });
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(shown.textContent);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  bar.append(copy);
  panel.querySelector(".code").append(
    element("details", {}, element("summary", { textContent: "The same as code" }), bar, shown),
  );
  update();
  return update;
}

function given(options) {
  return Object.entries(options).filter(([, value]) => value !== "" && value !== undefined);
}

const py = (value) => JSON.stringify(value);
const sh = (value) => `'${String(value).replaceAll("'", "'\\''")}'`;

export function imageCode(path, options, method, message) {
  const data = given(options);
  const flags = data.map(([name, value]) => ` \\\n  -F ${sh(`${name}=${value}`)}`).join("");
  return {
    Python: `import requests

with open("photo.jpg", "rb") as image:
    answer = requests.post(
        ${py(`${origin}${path}`)},
        files={"image": image},
        data={${data.map(([name, value]) => `${py(name)}: ${py(String(value))}`).join(", ")}},
        headers={"Authorization": "Bearer KEY"},
        timeout=60,
    )
answer.raise_for_status()
print(answer.json())`,
    curl: `curl -f ${sh(origin + path)} -H 'authorization: Bearer KEY'${flags} \\\n  -F image=@photo.jpg`,
    grpcurl: `grpcurl -plaintext -H 'authorization: Bearer KEY' -d @ ${grpc} \\
  posegate.v1.PoseService/${method} <<JSON
${JSON.stringify({ image: { content: "$(base64 -w0 photo.jpg)" }, ...message }, null, 2)}
JSON`,
  };
}

export function videoCode(options, config) {
  const data = given(options);
  const flags = data.map(([name, value]) => ` \\\n  -F ${sh(`${name}=${value}`)}`).join("");
  return {
    Python: `import json
import requests

with open("clip.mp4", "rb") as video:
    answer = requests.post(
        ${py(`${origin}/v1/video/upload`)},
        data={${data.map(([name, value]) => `${py(name)}: ${py(String(value))}`).join(", ")}},
        files={"video": video},
        headers={"Accept": "application/x-ndjson", "Authorization": "Bearer KEY"},
        stream=True,
        timeout=600,
    )
answer.raise_for_status()
for line in answer.iter_lines():
    print(json.loads(line)["type"])`,
    curl: `curl -fN ${sh(`${origin}/v1/video/upload`)} -H 'accept: application/x-ndjson' \\
  -H 'authorization: Bearer KEY'${flags} \\\n  -F video=@clip.mp4`,
    grpcurl: `{ echo ${sh(JSON.stringify({ config }))}
  base64 -w0 clip.mp4 | sed 's/.*/{"chunk": "&"}/'
} | grpcurl -plaintext -H 'authorization: Bearer KEY' -d @ ${grpc} posegate.v1.PoseService/AnalyzeVideo`,
  };
}

export function cameraCode(options, config) {
  const address = `${origin.replace(/^http/, "ws")}/v1/stream`;
  return {
    Python: `import asyncio, json
import cv2                      # pip install opencv-python websockets
from websockets.asyncio.client import connect

async def main():
    camera = cv2.VideoCapture(0)
    async with connect(${py(address)}) as socket:
        await socket.send(json.dumps(${JSON.stringify(options).replaceAll("true", "True").replaceAll("false", "False")}))
        print(await socket.recv())
        while True:
            ok, image = camera.read()
            await socket.send(cv2.imencode(".jpg", image)[1].tobytes())
            print(json.loads(await socket.recv())["persons"])

asyncio.run(main())`,
    curl: `# A camera needs a WebSocket, which curl does not stream; a single image:
curl -f ${sh(`${origin}/v1/pose`)} -H 'content-type: image/jpeg' --data-binary @photo.jpg`,
    grpcurl: `{ echo ${sh(JSON.stringify({ config }))}
  base64 -w0 photo.jpg | sed 's/.*/{"frame": {"encoded": "&"}}/'
} | grpcurl -plaintext -H 'authorization: Bearer KEY' -d @ ${grpc} posegate.v1.PoseService/StreamPoses`,
  };
}
