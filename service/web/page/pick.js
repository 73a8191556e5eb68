// A place to drop a file on, or to pick one; with three samples for those who have none at hand.

import { element } from "./dom.js";

const SAMPLES = [
  ["two_standing", "Two persons"],
  ["single_person", "An acrobat"],
  ["astronaut", "An astronaut"],
];

export function pickers(panel, onFile) {
  for (const place of panel.querySelectorAll(".pick")) {
    const input = element("input", { type: "file", accept: place.dataset.accept });
    const name = element("small", { textContent: "or drop it here" });
    const what = place.dataset.accept.startsWith("video") ? "a video" : "an image";
    const drop = element("label", { className: "drop" }, `Choose ${what}`, input, name);
    const take = (file) => {
      if (!file) return;
      name.textContent = file.name;
      onFile(file);
    };
    input.addEventListener("change", () => take(input.files[0]));
    for (const kind of ["dragenter", "dragover"]) {
      drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      take(event.dataTransfer.files[0]);
    });
    place.append(drop);
    if ("samples" in place.dataset) place.append(samples(take));
  }
}

function samples(take) {
  const row = element("div", { className: "samples" }, element("span", { textContent: "or" }));
  for (const [file, title] of SAMPLES) {
    const image = element("img", { src: `page/samples/${file}_small.jpg`, alt: title });
    const button = element("button", { type: "button", title }, image);
    button.addEventListener("click", async () => {
      const answer = await fetch(`page/samples/${file}.jpg`);
      take(new File([await answer.blob()], `${file}.jpg`, { type: "image/jpeg" }));
    });
    row.append(button);
  }
  return row;
}
