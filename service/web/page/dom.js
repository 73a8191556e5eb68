// Small pieces of the page that several panels use.

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function say(panel, text) {
  panel.querySelector(".say").textContent = text;
}

export function showProblem(panel, error) {
  const place = panel.querySelector(".problem");
  place.replaceChildren();
  if (!error) return;
  say(panel, "");
  place.append(element("p", { textContent: error.message }));
  const others = (error.errors || []).filter((one) => !error.message.includes(one.detail));
  if (others.length) {
    place.append(element("ul", {}, ...others.map((one) => element("li", { textContent: `${one.field}: ${one.detail}` }))));
  }
}

export function fields(form) {
  const values = {};
  for (const [name, value] of new FormData(form)) if (typeof value === "string") values[name] = value;
  return values;
}

export function download(name, parts, type) {
  const link = element("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
  link.textContent = `Download ${name}`;
  return link;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
