// Keeps a server-rendered page fresh: fetches the page again and replaces only the parts that differ.
//
// A part is an element with `data-live` and an id. Parts keep their place: a row that is already shown never moves.
// New rows of a `data-grow="append"` body are added at its end; those of a `data-grow="notice"` body only light up
// the element named by `data-notice`, because rows that appear on top would move what is under the pointer.

export async function refresh(url = location.href) {
  const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.redirected) return location.reload(); // to where one signs in
  if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
  patch(new DOMParser().parseFromString(await answer.text(), "text/html"));
}

export function patch(fresh) {
  const focused = document.activeElement?.id;
  for (const next of fresh.querySelectorAll("[data-live]")) {
    const shown = document.getElementById(next.id);
    if (shown) update(shown, next);
  }
  for (const body of document.querySelectorAll("[data-grow]")) {
    const next = fresh.getElementById(body.id);
    if (next) grow(body, next);
  }
  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
}

function update(shown, next) {
  if (shown.className !== next.className) shown.className = next.className;
  shown.hidden = next.hidden;
  for (const [name, value] of Object.entries(next.dataset)) if (shown.dataset[name] !== value) shown.dataset[name] = value;
  // What the page was served with is kept beside the element: scripts may have changed the element since (open
  // details, relative times), and comparing with that would replace it for nothing.
  const before = served.get(shown) ?? shown.innerHTML;
  if (before !== next.innerHTML) {
    const open = [...shown.querySelectorAll("details[id][open]")].map((each) => each.id);
    const checked = [...shown.querySelectorAll("input[id]:checked")].map((each) => each.id);
    shown.innerHTML = next.innerHTML;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const id of checked) if (document.getElementById(id)) document.getElementById(id).checked = true;
  }
  served.set(shown, next.innerHTML);
}
const served = new WeakMap();
for (const part of document.querySelectorAll("[data-live]")) served.set(part, part.innerHTML);

function grow(body, next) {
  const rows = [...next.children].filter((row) => row.id && !document.getElementById(row.id));
  if (body.dataset.grow === "append") {
    if (rows.length) for (const placeholder of body.querySelectorAll("tr.placeholder")) placeholder.remove();
    body.append(...rows);
    return;
  }
  const notice = document.getElementById(body.dataset.notice);
  notice.hidden = rows.length === 0;
  const text = rows.length === 1 ? "Show 1 new job" : `Show ${rows.length} new jobs`;
  if (rows.length && notice.textContent !== text) notice.textContent = text;
}
