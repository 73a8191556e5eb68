// Tabs, and what all panels share: the service's models, templates and measurements.

import { anglesPanel } from "./angles.js";
import { json, setKey } from "./api.js";
import { cameraPanel } from "./camera.js";
import { element } from "./dom.js";
import { imagePanel } from "./image.js";
import { videoPanel } from "./video.js";

const KEY = "posegate-key"; // kept for this tab only
const service = document.querySelector("#service");
const key = document.querySelector("#key");

function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  const choose = (tab, focus) => {
    for (const one of all) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  };
  all.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : step && (place + step + all.length) % all.length;
      if (to === undefined) return;
      event.preventDefault();
      choose(all[to], true);
    });
  });
  const named = all.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
  if (named) choose(named, false);
}

async function pages(path, member) {
  const found = [];
  let token = "";
  do {
    const page = await json(`${path}?page_size=200&page_token=${encodeURIComponent(token)}`);
    found.push(...page[member]);
    token = page.next_page_token;
  } while (token);
  return found;
}

async function start() {
  const [info, models, skeletons] = await Promise.all([
    json("v1/info"), pages("v1/models", "models"), pages("v1/skeletons", "skeletons"),
  ]);
  for (const select of document.querySelectorAll("[data-models]")) {
    select.replaceChildren(element("option", { value: "", textContent: `default (${info.default_model})` }),
      ...models.filter((one) => one.ready).map((one) => element("option", { value: one.name, textContent: one.name })));
  }
  for (const select of document.querySelectorAll("[data-templates]")) {
    select.replaceChildren(element("option", { value: "", textContent: "the model's own" }),
      ...skeletons.map((one) => element("option", { value: one.name, textContent: one.title || one.name })));
  }
  service.textContent = `Version ${info.version}, ${info.models_ready.length} models ready`;
  return info;
}

let panels = false;
async function connect() {
  try {
    const info = await start();
    if (panels) return;
    panels = true;
    imagePanel(document.querySelector("#image"));
    anglesPanel(document.querySelector("#angles"), info);
    videoPanel(document.querySelector("#video"), info);
    cameraPanel(document.querySelector("#camera"));
    document.body.dataset.ready = "";
  } catch (error) {
    service.textContent = error.message;
    setTimeout(connect, 5000);
  }
}

key.value = sessionStorage.getItem(KEY) || "";
setKey(key.value);
document.querySelector("#key-form").addEventListener("submit", (event) => event.preventDefault());
key.addEventListener("change", () => {
  setKey(key.value);
  sessionStorage.setItem(KEY, key.value);
  connect();
});
tabs();
connect();
