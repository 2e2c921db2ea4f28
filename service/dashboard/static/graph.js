// Draws a model's graph with Netron. Netron is driven by a host, which stands between it and the page; this one reads the
// model and Netron's own files from this server, tells nobody what is opened, and asks for no update.

const graph = document.getElementById("graph");
const tools = document.getElementById("graph-tools");
const { netron, content, name } = graph.dataset;
const [{ View }, { BinaryStream }] = await Promise.all([import(`${netron}/view.js`), import(`${netron}/base.js`)]).catch(
  (error) => {
    document.body.classList.add("alert");
    tell("This graph cannot be drawn", error.message, true);
    throw error;
  },
);

function tell(text, why, alternative) {
  document.getElementById("graph-notice").hidden = !text;
  document.getElementById("graph-message").textContent = text ?? "";
  document.getElementById("graph-why").textContent = why ?? "";
  document.getElementById("graph-hint").hidden = !alternative;
}

class Host {
  #assets = new Map();

  window = window;
  document = document;
  type = "Tessera";

  environment(key) {
    const mac = /Mac|iPhone|iPad/.test(navigator.platform);
    const safari = /safari/i.test(navigator.userAgent) && !/chrome/i.test(navigator.userAgent);
    return { name: "Tessera", platform: mac ? "darwin" : undefined, agent: safari ? "safari" : "" }[key];
  }

  async view(view) {
    this.shown = view;
  }

  async start() {
    this.shown.show("welcome spinner");
    try {
      await this.shown.open(new Context(this, await read(content)));
      this.shown.show(null);
      ready(this.shown);
    } catch (error) {
      await this.shown.error(error);
    }
  }

  require(id) {
    return import(address(`${id}.js`));
  }

  worker(id) {
    return new Worker(address(`${id}.js`), { type: "module" });
  }

  asset(file) {
    if (!this.#assets.has(file)) this.#assets.set(file, fetch(address(file)).then((answer) => answer.text()));
    return this.#assets.get(file);
  }

  async save(_name, extension, path) {
    return `${path}.${extension}`;
  }

  async export(file, blob) {
    const link = document.createElement("a");
    link.download = file;
    link.href = URL.createObjectURL(blob);
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // Without a text it takes the last message away. Long layouts can be given up by an action; an error stands.
  async message(text, alert, action) {
    if (alert) {
      tell("This graph cannot be drawn", text, true);
      return;
    }
    const button = document.getElementById("graph-action");
    tell(text);
    button.hidden = !action;
    button.textContent = action ?? "";
    if (action) await new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
  }

  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`graph.${key}`));
    } catch {
      return undefined;
    }
  }

  set(key, value) {
    try {
      localStorage.setItem(`graph.${key}`, JSON.stringify(value));
    } catch {
      // Storage may be forbidden: the choice then lasts for this page only.
    }
  }

  delete(key) {
    try {
      localStorage.removeItem(`graph.${key}`);
    } catch {
      // As above.
    }
  }

  // What Netron reports, and where it would lead: its reports stay here, and this page stays open.
  event() {}
  exception() {}
  update() {}
  execute() {}
  openURL() {}
}

// One opened file. The server takes only ONNX, so the name says so, whatever the upload was called.
class Context {
  identifier = `${name}.onnx`;
  name = name;

  constructor(host, stream) {
    this.host = host;
    this.stream = stream;
  }

  asset(file) {
    return this.host.asset(file);
  }

  require(id) {
    return this.host.require(id);
  }

  async fetch(file) {
    throw new Error(`The model has no file '${file}' beside it.`);
  }

  error() {}
}

function address(file) {
  return new URL(file, new URL(`${netron}/`, location.href)).href;
}

// Straight into one buffer of the known size: a large model is not held twice.
async function read(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The server answered ${answer.status} to the request for the file.`);
  const bytes = new Uint8Array(Number(graph.dataset.bytes));
  const progress = document.getElementById("graph-progress");
  let received = 0;
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    bytes.set(part.value, received);
    received += part.value.length;
    progress.value = received;
  }
  return new BinaryStream(bytes);
}

function ready(view) {
  for (const box of tools.querySelectorAll("[data-option]")) {
    const option = box.dataset.option;
    box.checked = option === "direction" ? view.options.direction === "horizontal" : view.options[option];
    box.addEventListener("change", () => view.toggle(option));
  }
  for (const button of tools.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => view.export(`${name}.${button.dataset.export}`));
  }
  document.getElementById("graph-find").addEventListener("click", () => view.find());
  tools.disabled = false;
}

// What is in the middle stays there where a panel opens beside the graph.
const target = document.getElementById("target");
let width = target.clientWidth;
new ResizeObserver(() => {
  target.scrollLeft += (width - target.clientWidth) / 2;
  width = target.clientWidth;
}).observe(target);

// Documentation of operators has links to elsewhere: followed on a click only, and beside the graph.
document.getElementById("sidebar").addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (link) Object.assign(link, { target: "_blank", rel: "noreferrer" });
});

// Netron's dark colours follow the system; here they follow the theme that the page shows.
const dark = matchMedia("(prefers-color-scheme: dark)");
const darkRules = [...document.getElementById("grapher").sheet.cssRules].filter((rule) => rule instanceof CSSMediaRule);
function followTheme() {
  const theme = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  for (const rule of darkRules) rule.media.mediaText = theme === "dark" ? "all" : "not all";
}
addEventListener("themechange", followTheme);
followTheme();

await new View(new Host()).start();
