// Uploads with real progress, by chooser or by dropping; then goes on to the page that checks the model.

const form = document.getElementById("upload");
const input = form.querySelector("input[type=file]");
const drop = document.getElementById("drop");
const panel = document.getElementById("upload-progress");
const bar = panel.querySelector("progress");
const name = document.getElementById("upload-name");
const amount = document.getElementById("upload-amount");
const problem = document.getElementById("problem");

document.getElementById("upload-button").hidden = true;
input.addEventListener("change", () => input.files[0] && send(input.files[0]));

for (const kind of ["dragenter", "dragover"])
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) send(file);
});
// A file that misses the box must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

function megabytes(bytes) {
  return (bytes / 2 ** 20).toFixed(1);
}

let request = null;
document.getElementById("upload-cancel").addEventListener("click", () => request?.abort());

function send(file) {
  problem.hidden = true;
  panel.hidden = false;
  input.disabled = true;
  name.textContent = file.name;
  request = new XMLHttpRequest();
  request.upload.addEventListener("progress", (event) => {
    if (!event.lengthComputable) return;
    bar.value = event.loaded / event.total;
    amount.textContent = `${megabytes(event.loaded)} of ${megabytes(event.total)} MiB`;
    if (event.loaded === event.total) amount.textContent = "Checking the file…";
  });
  request.addEventListener("load", () => {
    if (request.status === 200 || request.status === 201) location.assign(`/new?model=${JSON.parse(request.responseText).id}`);
    else fail(answerOf(request));
  });
  request.addEventListener("error", () => fail({ title: "The upload broke off", hint: "Is the server still running? Then choose the file again." }));
  request.addEventListener("abort", () => reset());
  request.open("POST", `/api/v1/models?filename=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
}

function answerOf(answered) {
  try {
    return JSON.parse(answered.responseText);
  } catch {
    return { title: `The server answered ${answered.status}`, hint: "Look at the server's log." };
  }
}

function fail(answer) {
  reset();
  problem.querySelector("strong").textContent = answer.detail ?? answer.title;
  problem.querySelector("[data-hint]").textContent = answer.hint ?? "";
  problem.querySelector("code").textContent = answer.code ?? "";
  problem.hidden = false;
  problem.focus();
}

function reset() {
  panel.hidden = true;
  input.disabled = false;
  input.value = "";
  bar.value = 0;
  amount.textContent = "";
}

// A file that was chosen before this script had loaded. One that the browser put back itself is not sent again.
if (input.files[0]) {
  if (performance.getEntriesByType("navigation")[0]?.type === "navigate") send(input.files[0]);
  else reset();
}
