// The event stream of a job. Where it breaks the page says so in #link-state, and the stream is resumed: by the browser,
// behind the last event, or by a new source where the server closed it (it answers with an error while it restarts).

const REOPEN_MS = 3000;

export function follow({ job, lastEvent }, listeners) {
  const link = document.getElementById("link-state");
  const source = new EventSource(`/api/v1/jobs/${job}/events?after=${lastEvent}`);
  source.onopen = () => (link.hidden = true);
  source.onerror = () => {
    link.textContent = "Reconnecting…";
    link.hidden = false;
    if (source.readyState === EventSource.CLOSED) setTimeout(reopen, REOPEN_MS);
  };
  // Where nobody is signed in any more the page itself leads to the way back in.
  async function reopen() {
    const page = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" }).catch(() => null);
    if (page?.redirected) location.reload();
    else follow({ job, lastEvent }, listeners);
  }
  for (const [kind, listener] of Object.entries(listeners)) source.addEventListener(kind, listener);
  // The server closes the stream behind this; an open source would come back and ask again.
  source.addEventListener("end", () => source.close());
}
