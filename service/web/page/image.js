// One image: people, skeleton, scores.

import { form, json, skeleton } from "./api.js";
import { codePanel, imageCode } from "./code.js";
import { element, fields, say, showProblem } from "./dom.js";
import { drawPeople, fit } from "./draw.js";
import { pickers } from "./pick.js";

export function imagePanel(panel) {
  const controls = panel.querySelector("form");
  const canvas = panel.querySelector("canvas");
  const table = panel.querySelector("table");
  let file, bitmap, answer, template, chosen = -1, running;

  const options = () => {
    const { model, template: wanted } = fields(controls);
    return { model, template: wanted };
  };
  const updateCode = codePanel(panel, () => {
    const { model, template: wanted } = options();
    return imageCode("/v1/pose", options(), "DetectPoses", {
      ...(model && { model }), ...(wanted && { skeleton: wanted }),
    });
  });

  const draw = () => {
    if (!answer) return;
    const least = Number(controls.least.value);
    const scale = fit(canvas, answer.image.width, answer.image.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    drawPeople(canvas, answer.persons, template, { scale, least, chosen });
    const count = answer.persons.length;
    canvas.setAttribute("aria-label", `${file.name} with ${count} ${count === 1 ? "person" : "people"} drawn on it`);
  };

  const list = () => {
    const least = Number(controls.least.value);
    table.hidden = !answer.persons.length;
    table.tBodies[0].replaceChildren(...answer.persons.map((person, number) => {
      const seen = person.keypoints.filter(([, , score]) => score >= least && score > 0).length;
      const show = element("button", { type: "button", textContent: person.side ? `${number}, ${person.side}` : String(number) });
      show.setAttribute("aria-label", `Show person ${number} alone`);
      const row = element("tr", {},
        element("td", {}, show),
        element("td", { className: "number", textContent: person.score.toFixed(3) }),
        element("td", { className: "number", textContent: person.box.map(Math.round).join(" ") }),
        element("td", { className: "number", textContent: `${seen} of ${person.keypoints.length}` }));
      show.addEventListener("click", () => {
        chosen = chosen === number ? -1 : number;
        for (const [place, other] of [...table.tBodies[0].rows].entries()) other.classList.toggle("chosen", place === chosen);
        draw();
      });
      return row;
    }));
  };

  const detect = async () => {
    if (!file) return;
    running?.abort();
    const mine = running = new AbortController();
    showProblem(panel, null);
    say(panel, "Looking for people …");
    const started = performance.now();
    try {
      bitmap = await createImageBitmap(file).catch(() => null);
      const wanted = { ...options(), ...(bitmap ? {} : { return_overlay: "true" }) };
      const found = await json("v1/pose", { method: "POST", body: form(wanted, "image", file), signal: mine.signal });
      // Formats that the browser cannot read, such as TIFF, come back drawn.
      if (!bitmap) bitmap = await createImageBitmap(await (await fetch(found.overlay)).blob());
      template = await skeleton(found.skeleton);
      if (mine !== running) return;
      [answer, chosen] = [found, -1];
      draw();
      list();
      const count = found.persons.length;
      say(panel, `${count} ${count === 1 ? "person" : "people"} by ${found.model} as ${found.skeleton}, ` +
        `${Math.round(performance.now() - started)} ms, ${Math.round(found.timings.inference_ms ?? 0)} ms of them the model`);
    } catch (error) {
      if (error.name !== "AbortError") showProblem(panel, error);
    }
  };

  pickers(panel, (picked) => { file = picked; detect(); });
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", (event) => {
    updateCode();
    if (event.target.name === "model" || event.target.name === "template") detect();
  });
  controls.least.addEventListener("input", () => {
    controls.least.labels[0].querySelector("output").textContent = controls.least.value;
    if (answer) { draw(); list(); }
  });
}
