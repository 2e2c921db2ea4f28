// What every page has: the theme toggle, copy buttons, and times that stay relative to now.

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function shownTheme() {
  return root.dataset.theme ?? (dark.matches ? "dark" : "light");
}

const toggle = document.getElementById("theme");
function nameToggle() {
  const other = shownTheme() === "dark" ? "light" : "dark";
  toggle.textContent = other === "dark" ? "Dark" : "Light";
  toggle.setAttribute("aria-label", `Use the ${other} theme`);
}
toggle.addEventListener("click", () => {
  root.dataset.theme = shownTheme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // The choice then lasts for this page only.
  }
  nameToggle();
  dispatchEvent(new Event("themechange"));
});
dark.addEventListener("change", () => {
  nameToggle();
  dispatchEvent(new Event("themechange"));
});
nameToggle();

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copy], button[data-copy-from]");
  if (!button) return;
  const label = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = (await copy(button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).textContent)) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = label), 1500);
});

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https the clipboard interface is missing: select the text, and let the old command try.
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "visually-hidden";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];
export function ago(iso) {
  const elapsed = (Date.now() - Date.parse(iso)) / 1000;
  if (elapsed < 45) return "just\u00a0now";
  for (const [unit, scale] of UNITS) if (elapsed >= scale) return `${Math.floor(elapsed / scale)}\u00a0${unit}\u00a0ago`;
  return "1\u00a0min\u00a0ago";
}
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}, 10_000);
