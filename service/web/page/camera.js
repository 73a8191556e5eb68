// A camera: images to the WebSocket, skeletons back, with latency and frames a second.

import { apiKey, Problem, skeleton } from "./api.js";
import { cameraCode, codePanel } from "./code.js";
import { fields, say, showProblem } from "./dom.js";
import { drawPeople, fit } from "./draw.js";

const MOST_PX = 640;
const AT_ONCE = 2; // one at the model, one on its way

export function cameraPanel(panel) {
  const controls = panel.querySelector("form");
  const [go, stop] = [panel.querySelector(".go"), panel.querySelector(".stop")];
  const canvas = panel.querySelector("canvas");
  const film = panel.querySelector("video");
  const numbers = panel.querySelector(".numbers");
  const shutter = document.createElement("canvas");
  let stream, socket, template, sent, sending = false, answered = [];

  const options = () => {
    const { model, template: wanted, smoothing } = fields(controls);
    return { ...(model && { model }), ...(wanted && { template: wanted }), smoothing: Boolean(smoothing) };
  };
  const updateCode = codePanel(panel, () => {
    const { model, template: wanted, smoothing } = options();
    return cameraCode(options(), {
      ...(model && { model }), ...(wanted && { skeleton: wanted }), ...(smoothing && { smoothing: "SMOOTHING_ONE_EURO" }),
    });
  });

  const end = (error) => {
    stream?.getTracks().forEach((track) => track.stop());
    socket?.close();
    stream = socket = undefined;
    film.srcObject = null;
    [go.disabled, stop.hidden] = [false, true];
    if (error) showProblem(panel, error);
    else say(panel, "Stopped.");
  };

  const shoot = async () => {
    if (!socket || sending || sent.size >= AT_ONCE || !film.videoWidth) return;
    sending = true;
    const scale = Math.min(1, MOST_PX / Math.max(film.videoWidth, film.videoHeight));
    [shutter.width, shutter.height] = [Math.round(film.videoWidth * scale), Math.round(film.videoHeight * scale)];
    shutter.getContext("2d").drawImage(film, 0, 0, shutter.width, shutter.height);
    const taken = performance.now();
    const [blob, bitmap] = await Promise.all([
      new Promise((done) => { shutter.toBlob(done, "image/jpeg", 0.8); }), createImageBitmap(shutter),
    ]);
    sending = false;
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    sent.set(sent.next++, { taken, bitmap });
    socket.send(blob);
  };

  const show = (result) => {
    const shot = sent.get(result.frame);
    for (const [number, one] of sent) if (number <= result.frame) { if (one !== shot) one.bitmap.close(); sent.delete(number); }
    if (!shot || result.error) return;
    const scale = fit(canvas, shot.bitmap.width, shot.bitmap.height);
    canvas.getContext("2d").drawImage(shot.bitmap, 0, 0);
    drawPeople(canvas, result.persons, template, { scale, least: 0.3 });
    shot.bitmap.close();
    const now = performance.now();
    answered.push({ now, latency: now - shot.taken });
    answered = answered.filter((one) => one.now > now - 2000);
    const span = (now - answered[0].now) / 1000;
    const set = (name, text) => { numbers.querySelector(`[data-${name}]`).textContent = text; };
    set("fps", answered.length > 1 ? ((answered.length - 1) / span).toFixed(1) : "–");
    set("latency", `${Math.round(answered.reduce((sum, one) => sum + one.latency, 0) / answered.length)} ms`);
    set("people", String(result.persons.length));
    set("dropped", String(Number(numbers.querySelector("[data-dropped]").textContent) + result.dropped));
    canvas.setAttribute("aria-label", `Camera with ${result.persons.length} people`);
  };

  const start = async () => {
    showProblem(panel, null);
    if (!navigator.mediaDevices?.getUserMedia) {
      showProblem(panel, new Problem("A browser gives a camera to pages at https:// or localhost only."));
      return;
    }
    go.disabled = true;
    say(panel, "Asking for the camera …");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
    } catch (error) {
      end(new Problem(`The camera cannot be used: ${error.message}`));
      return;
    }
    film.srcObject = stream;
    await film.play();
    sent = Object.assign(new Map(), { next: 0 });
    answered = [];
    stop.hidden = false;
    const address = new URL("v1/stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const mine = socket = new WebSocket(address);
    let reported = false;
    mine.onopen = () => mine.send(JSON.stringify({ ...options(), ...(apiKey() && { api_key: apiKey() }) }));
    mine.onmessage = async (event) => {
      const line = JSON.parse(event.data);
      if (line.type === "started") {
        template = await skeleton(line.skeleton);
        numbers.hidden = false;
        say(panel, `${line.model} as ${line.skeleton}`);
        const timer = setInterval(() => { if (socket === mine) shoot(); else clearInterval(timer); }, 1000 / 60);
      } else if (line.type === "result") show(line);
      else if (line.type === "error") { reported = true; end(new Problem(line.message, line.errors)); }
    };
    mine.onclose = () => { if (socket === mine && !reported) end(new Problem("The service ended the stream.")); };
  };

  controls.addEventListener("submit", (event) => { event.preventDefault(); start(); });
  stop.addEventListener("click", () => end());
  controls.addEventListener("change", updateCode);
}
