// The server's work, as the page follows it: start, parts as they come, cancel, leave.

import { sentence } from "./dom.js";

const living = new Set();

export class Problem extends Error {}

// Not a problem: the visitor wanted it.
export class Cancelled extends Problem { constructor() { super("Cancelled."); } }

// Say in a block of the page what went wrong, or that the visitor has cancelled.
export function complain(block, error, hint = "") {
  const calm = error instanceof Cancelled;
  block.className = calm ? "card calm" : "card problem";
  block.textContent = calm ? `${error.message}${hint}` : opened(error.message);
  block.hidden = false;
}

// The server's lines begin with a file's name, which stays as it is, or with a small letter.
const opened = (text) => /^(the|this|there|no|too|it) /.test(text) ? sentence(text) : text;

async function checked(response) {
  if (response.status === 401) { location.assign("/"); throw new Problem("This server asks for a token."); }
  if (response.ok) return response;
  let detail = "";
  try { detail = (await response.json()).detail; } catch { /* not ours */ }
  throw new Problem(detail || `The server answered with status ${response.status}; try again.`);
}

export async function about() { return (await checked(await fetch("/api/page"))).json(); }

export class Job {
  constructor() { this.id = null; this.stopped = false; this.told = false; this.abort = new AbortController(); }

  fileUrl(name) { return `/api/jobs/${this.id}/files/${name}`; }

  // Send a form and follow the work; tell(state) is called with every piece of news.
  async run(task, form, tell) {
    let state;
    try {
      state = await this.send(task, form, tell);
      this.id = state.id;
      living.add(this);
      let next = 0;
      for (;;) {
        if (this.stopped) throw new Cancelled();
        const response = await checked(await fetch(`/api/jobs/${this.id}?from_part=${next}`, { signal: this.abort.signal }));
        state = await response.json();
        next = state.next_part;
        if (this.stopped) continue;
        this.told ||= state.parts.length > 0;
        tell(state);
        if (state.state === "done") return state.result;
        if (state.state === "failed") throw new Problem(state.error);
        if (state.state === "cancelled") throw new Cancelled();
      }
    } catch (error) {
      if (!this.told) this.leave(); // else the pictures of the parts that came stay until the page is left
      if (error instanceof Problem) throw error;
      if (this.stopped || error.name === "AbortError") throw new Cancelled();
      throw new Problem("The connection to the server was lost; is it still running?");
    }
  }

  // XMLHttpRequest, because fetch does not say how far an upload is.
  send(task, form, tell) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      this.request = request;
      request.open("POST", `/api/jobs/${task}`);
      request.responseType = "json";
      request.upload.onprogress = (event) => tell({ state: "uploading", position: 0, parts: [], progress: { stage: "uploading", done: event.loaded, total: event.lengthComputable ? event.total : 0 } });
      request.onload = () => {
        if (request.status === 401) location.assign("/");
        if (request.status === 202 || request.status === 200) resolve(request.response);
        else reject(new Problem(request.response?.detail || `The server answered with status ${request.status}; try again.`));
      };
      request.onerror = () => reject(new Problem("The upload was broken off; the file may be too large, or the server is gone."));
      request.onabort = () => reject(new Cancelled());
      request.send(form);
    });
  }

  // End the work and delete what belongs to it; keep: the pictures of the parts that came stay.
  cancel({ keep = false } = {}) {
    this.stopped = true;
    this.request?.abort();
    this.abort.abort();
    if (keep && this.told) fetch(`/api/jobs/${this.id}?keep=true`, { method: "DELETE" }).catch(() => {});
    else this.leave();
  }

  leave() {
    living.delete(this);
    if (this.id) fetch(`/api/jobs/${this.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }
}

addEventListener("pagehide", () => {
  for (const job of living) if (job.id) navigator.sendBeacon(`/api/jobs/${job.id}/leave`);
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

export function describe(state) {
  if (state.state === "queued") return state.position > 1 ? `Waiting: place ${state.position} in the queue` : "Waiting: next in the queue";
  const { stage, done, total } = state.progress || {};
  if (!stage) return "Working";
  const text = stage.charAt(0).toUpperCase() + stage.slice(1);
  return total ? `${text}, ${Math.round(100 * Math.min(1, done / total))} %` : text;
}

export function advance(bar, state) {
  const { done, total } = state.progress || {};
  if (total && state.state !== "queued") { bar.max = total; bar.value = done; } else bar.removeAttribute("value");
}
