// Joint angles of one image: the drawn image, and a table with ± and reasons.

import { form, json } from "./api.js";
import { codePanel, imageCode } from "./code.js";
import { element, fields, say, showProblem } from "./dom.js";
import { chosenMeasurements, measurementChoice, reasonText } from "./measurements.js";
import { pickers } from "./pick.js";

export function anglesPanel(panel, info) {
  const controls = panel.querySelector("form");
  const image = panel.querySelector(".stage img");
  const table = panel.querySelector("table");
  let file, running;
  measurementChoice(panel, info.measurements, ["shoulder_abduction", "knee_flexion", "splits"]);

  const options = () => {
    const { model, side, facing } = fields(controls);
    return { model, side, facing, measurement: chosenMeasurements(panel).join(",") };
  };
  const updateCode = codePanel(panel, () => {
    const { model, side, measurement } = options();
    return imageCode("/detect", options(), "MeasureAngles", {
      measurements: [measurement], side: `SIDE_${side.toUpperCase()}`, ...(model && { model }),
      overlay: { format: "OVERLAY_FORMAT_JPEG" },
    });
  });

  const show = (drawn, alt) => {
    if (drawn?.data) Object.assign(image, { src: drawn.data, alt, hidden: false });
  };
  const value = (one, side) => {
    const cell = element("td", { className: "number" });
    if (one.status[side] === null) return cell;
    if (one.value[side] === null) {
      cell.textContent = "–";
    } else {
      cell.append(`${one.value[side].toFixed(1)}° `, element("small", { textContent: `± ${(one.std_error[side] ?? 0).toFixed(1)}` }));
      cell.classList.toggle("degraded", one.status[side] === "DEGRADED");
    }
    return cell;
  };
  const reasons = (one) => ["left", "right"].flatMap((side) => one.reasons[side].map((reason) => `${side}: ${reasonText(reason)}`));

  const measure = async () => {
    if (!file) { say(panel, "Choose an image first."); return; }
    running?.abort();
    const mine = running = new AbortController();
    showProblem(panel, null);
    say(panel, "Measuring …");
    try {
      const answer = await json("detect", { method: "POST", body: form(options(), "image", file), signal: mine.signal });
      if (mine !== running) return;
      show(answer.image, `${file.name} with the angles drawn on it`);
      table.hidden = !answer.measurements.length;
      table.tBodies[0].replaceChildren(...answer.measurements.map((one) => {
        const title = element("button", { type: "button", textContent: one.title });
        title.setAttribute("aria-label", `Show ${one.title} alone`);
        const row = element("tr", {}, element("td", {}, title), value(one, "left"), value(one, "right"),
          element("td", {}, element("small", { textContent: reasons(one).join("; ") })));
        title.addEventListener("click", () => {
          const again = row.classList.contains("chosen");
          for (const other of table.tBodies[0].rows) other.classList.remove("chosen");
          row.classList.toggle("chosen", !again);
          show(again ? answer.image : one.image, `${one.title} drawn on ${file.name}`);
        });
        return row;
      }));
      say(panel, `Measured by ${answer.model}. ± is the standard error from the noise of the keypoints.`);
    } catch (error) {
      if (error.name !== "AbortError") showProblem(panel, error);
    }
  };

  pickers(panel, (picked) => { file = picked; measure(); });
  controls.addEventListener("submit", (event) => { event.preventDefault(); measure(); });
  controls.addEventListener("change", updateCode);
}
