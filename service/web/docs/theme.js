// Light or dark, as the system says.
const dark = matchMedia("(prefers-color-scheme: dark)");
const viewer = document.querySelector("rapi-doc");
const apply = () => viewer.setAttribute("theme", dark.matches ? "dark" : "light");
dark.addEventListener("change", apply);
apply();
