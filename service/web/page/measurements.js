// The choice of measurements, and what their reasons mean.

import { element } from "./dom.js";

export function measurementChoice(panel, measurements, chosen) {
  const place = panel.querySelector(".measurements");
  const parts = new Map();
  for (const one of measurements) {
    if (!parts.has(one.bodyPart)) parts.set(one.bodyPart, []);
    parts.get(one.bodyPart).push(one);
  }
  for (const [part, ones] of parts) {
    place.append(element("h3", { textContent: part }));
    for (const one of ones) {
      const box = element("input", { type: "checkbox", value: one.name, checked: chosen.includes(one.name) });
      box.dataset.measurement = "";
      const title = one.extension ? `${one.title} (needs a whole-body model)` : one.title;
      place.append(element("label", { className: "check" }, box, title));
    }
  }
}

export function chosenMeasurements(panel) {
  return [...panel.querySelectorAll("[data-measurement]:checked")].map((box) => box.value);
}

const REASONS = {
  LOW_CONFIDENCE: "the model is unsure of a keypoint",
  OUT_OF_FRAME: "a keypoint lies outside the image",
  VIEW_MISMATCH: "seen from the wrong side",
  FORESHORTENED: "a limb points at the camera",
  PLANAR_CROSSTALK: "turned out of the plane",
  POSTURE: "another posture than the measurement presumes",
  IMPLAUSIBLE: "beyond the range of the joint",
  LOW_RESOLUTION: "the person is small",
  FAR_SIDE: "the far side of the body",
  FACING_UNKNOWN: "it is unclear where the person faces",
  SWAP_SUSPECTED: "left and right may be swapped",
  ASSUMED_NEUTRAL: "a neutral stance is assumed",
  REFERENCE_FALLBACK: "another reference was used",
  OPPOSITE_DIRECTION: "moved the other way",
  DEGENERATE: "keypoints coincide",
  NO_PERSON: "no person was found",
};

export function reasonText(reason) {
  const [name, point] = reason.split(":");
  const text = REASONS[name] || name.toLowerCase().replaceAll("_", " ");
  return point ? `${text} (${point.replaceAll("_", " ")})` : text;
}
