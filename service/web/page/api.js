// The HTTP calls of the page, with the caller's key.

let key = "";
const skeletons = new Map();

export function setKey(value) { key = value.trim(); }
export function apiKey() { return key; }

// An answer that is a problem document, or no answer at all.
export class Problem extends Error {
  constructor(detail, errors = []) {
    super(detail);
    this.errors = errors;
  }
}

export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached.");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

export async function json(path, options) {
  return (await call(path, options)).json();
}

export function form(fields, name, file) {
  const data = new FormData();
  for (const [field, value] of Object.entries(fields)) if (value !== "") data.append(field, value);
  data.append(name, file, file.name || name); // last: the door reads videos while they come
  return data;
}

export async function skeleton(name) {
  if (!skeletons.has(name)) skeletons.set(name, await json(`v1/skeletons/${encodeURIComponent(name)}`));
  return skeletons.get(name);
}

// Lines of JSON as they come.
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
  if (rest) yield JSON.parse(rest);
}

async function problemOf(answer) {
  try {
    const problem = await answer.json();
    return new Problem(problem.detail || problem.title, problem.errors);
  } catch {
    return new Problem(`The service answered ${answer.status}.`);
  }
}
