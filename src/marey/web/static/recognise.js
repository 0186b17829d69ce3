// The view "Recognise": from a video to a verdict, and what it rests on.

import { bars, byId, clock, make, percent, sentence, show } from "./dom.js";
import { Job, Problem, advance, complain, describe } from "./client.js";
import * as player from "./player.js";
import { resetChanges, startChanges } from "./changes.js";
import { showDecided } from "./decided.js";

const KINDS = { sure: "Recognised", unsure: "Unsure", unknown: "Unknown", nobody: "No answer" };
let server = null, job = null, extra = null, segments = [];

export function setUp(about) {
  server = about;
  const { megabytes, seconds } = about.limits;
  byId("limits").textContent = `Up to ${megabytes} MB and ${Math.round(seconds / 60)} minutes. Every common format.`;
  const model = byId("model");
  model.replaceChildren(...about.models.map(({ name }) => make("option", { value: name, text: name })));
  model.addEventListener("change", () => { clear(); showModel(); });
  showModel();
  byId("examples").replaceChildren(...about.examples.map((name) => make("button", { type: "button", onclick: () => useExample(name) },
    make("img", { src: `/examples/${name}.jpg`, alt: "", loading: "lazy" }), make("span", { text: sentence(name) }))));

  byId("file").addEventListener("change", (event) => { if (event.target.files[0]) choose(event.target.files[0]); event.target.value = ""; });
  byId("another").addEventListener("click", () => { clear(); player.clearFile(); byId("go").disabled = true; byId("file").click(); });
  byId("camera").addEventListener("click", () => { clear(); player.record(byId("camera"), choose, problem); });
  byId("go").addEventListener("click", recognise);
  byId("cancel").addEventListener("click", () => job?.cancel({ keep: true }));
  byId("people").addEventListener("click", togglePeople);
  byId("plain").addEventListener("click", () => showMaps(false));
  byId("maps").addEventListener("click", () => showMaps(true));
  byId("try").addEventListener("click", () => startChanges(player.file, byId("model").value));
  player.onTime(markTime);

  const drop = byId("stage");
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.remove("over"); });
  drop.addEventListener("drop", (event) => { const [file] = event.dataTransfer.files; if (file) choose(file); });
}

export function refresh(about) { server = about; showModel(); }

function showModel() {
  const chosen = server.models.find(({ name }) => name === byId("model").value);
  const classes = chosen?.classes;
  const reports = server.reports.filter(({ model }) => !model || model === chosen?.name);
  byId("reports").replaceChildren(...reports.map(({ url, title }) => make("li", {}, make("a", { href: url, target: "_blank", rel: "noopener", text: title }))));
  show(byId("reports"), reports.length > 0);
  show(byId("knows"), Boolean(classes));
  if (!classes) return;
  byId("knows-summary").textContent = `${chosen.name} knows ${classes.length} action${classes.length === 1 ? "" : "s"}`;
  byId("classes").replaceChildren(...classes.map((label) => make("li", { text: label.replaceAll("_", " ") })));
}

async function useExample(name) {
  const response = await fetch(`/examples/${name}.mp4`);
  choose(new File([await response.blob()], `${name}.mp4`, { type: "video/mp4" }));
  recognise();
}

function choose(file) {
  clear();
  const limit = server.limits.megabytes;
  if (file.size > limit * 1e6) { problem(`${file.name} has ${Math.ceil(file.size / 1e6)} MB, this server takes up to ${limit} MB; cut the video or make it smaller.`); return; }
  if (file.size === 0) { problem(`${file.name} is empty; choose another file.`); return; }
  player.setFile(file, (text) => { byId("go").disabled = true; problem(text); });
  byId("go").disabled = false;
}

// Nothing of an old answer stays beside a new video.
function clear() {
  job?.cancel();
  job = null;
  extra?.cancel();
  extra = null;
  resetChanges();
  segments = [];
  player.hidePeople();
  for (const id of ["answer", "problem", "working", "timeline-block", "frames-block", "decided-block", "changes-block", "overlay-controls"]) show(byId(id), false);
  show(byId("intro"));
  byId("people").disabled = false;
}

function problem(text) { fail(new Problem(text)); }

// What has been answered stays: the verdict does not depend on what came after it.
function fail(error) {
  const answered = !byId("answer").hidden;
  for (const id of ["working", "intro"]) show(byId(id), false);
  complain(byId("problem"), error, answered ? " The answer stays; the rest of its reasons is missing." : " Choose Recognise to start again.");
  if (answered) finish();
}

async function recognise() {
  const file = player.file;
  if (!file) return;
  clear();
  show(byId("intro"), false);
  show(byId("working"));
  byId("go").disabled = true;
  const mine = job = new Job(), form = new FormData();
  form.append("model", byId("model").value);
  form.append("video", file);
  try {
    await mine.run("answer", form, (state) => {
      if (job !== mine) return;
      byId("working-text").textContent = describe(state);
      advance(byId("working-bar"), state);
      for (const part of state.parts) take(part, mine);
    });
    if (job === mine) finish();
  } catch (error) {
    if (job === mine) fail(error);
  } finally {
    if (job === mine) { show(byId("working"), false); }
    byId("go").disabled = !player.file;
  }
}

function take(part, mine) {
  if (part.verdict) showVerdict(part);
  if (part.people) player.setPeople(part);
  if (part.looked !== undefined) byId("looked").dataset.text = part.looked;
  if (part.frames) showFrames(part.frames, mine);
  if (part.timeline) showTimeline(part.timeline);
  if (part.decided) showDecided(part.decided, mine);
}

function finish() {
  show(byId("overlay-controls"));
  show(byId("changes-block"), byId("bars").children.length > 0);
}

function showVerdict({ verdict, predictions, why, warnings }) {
  const answer = byId("answer");
  answer.className = `card answer ${verdict.kind}`;
  byId("kind").textContent = KINDS[verdict.kind];
  byId("headline").textContent = verdict.headline;
  byId("advice").textContent = verdict.advice;
  byId("warnings").replaceChildren(...warnings.map((text) => make("p", { text })));
  byId("bars-title").textContent = verdict.kind === "unknown" ? "Nearest of its actions; none of them is meant" : "Most likely actions";
  show(byId("bars-block"), predictions.length > 0);
  bars(byId("bars"), predictions.map(({ label, probability }) => [label, probability]));
  byId("why").replaceChildren(...why.map((text) => make("li", { text })));
  show(byId("why-title"), why.length > 0);
  show(answer);
  byId("headline").focus({ preventScroll: matchMedia("(min-width: 860px)").matches });
}

function showFrames(frames, mine) {
  byId("frames").replaceChildren(...frames.map((frame, i) => make("li", {}, make("figure", {},
    make("img", { src: mine.fileUrl(frame.file), "data-plain": mine.fileUrl(frame.file), "data-map": frame.map ? mine.fileUrl(frame.map) : null, alt: `Frame ${i + 1} of ${frames.length}` }),
    make("figcaption", { text: clock(frame.seconds) })))));
  show(byId("maps").parentElement, frames.some((frame) => frame.map));
  showMaps(false);
  show(byId("frames-block"));
}

function showMaps(maps) {
  byId("plain").setAttribute("aria-pressed", String(!maps));
  byId("maps").setAttribute("aria-pressed", String(maps));
  byId("looked").textContent = maps ? byId("looked").dataset.text || "" : "Frames of the video, and when they appear.";
  for (const image of byId("frames").querySelectorAll("img")) image.src = (maps && image.dataset.map) || image.dataset.plain;
}

function showTimeline(found) {
  segments = found;
  byId("timeline").replaceChildren(...found.map((segment) => {
    const unknown = ["unknown", "no person"].includes(segment.label);
    const button = make("button", { type: "button", class: unknown ? "unknown" : "", onclick: () => player.play(segment.start_seconds, segment.end_seconds) },
      make("span", { text: unknown ? sentence(segment.label) : `${sentence(segment.label)} ${percent(segment.probability)}` }),
      make("small", { text: `${clock(segment.start_seconds)} to ${clock(segment.end_seconds)}` }));
    button.style.flexGrow = String(Math.max(0.1, segment.end_seconds - segment.start_seconds));
    return button;
  }));
  show(byId("timeline-block"));
}

function markTime(time) {
  segments.forEach((segment, i) => {
    const button = byId("timeline").children[i];
    if (time >= segment.start_seconds && time < segment.end_seconds) button?.setAttribute("aria-current", "true");
    else button?.removeAttribute("aria-current");
  });
}

async function togglePeople() {
  if (player.peopleShown()) { player.hidePeople(); return; }
  if (!player.hasPeople()) {
    const mine = extra = new Job(), form = new FormData(), button = byId("people");
    form.append("model", byId("model").value);
    form.append("video", player.file);
    button.disabled = true;
    try {
      player.setPeople(await mine.run("people", form, (state) => { byId("people-note").textContent = describe(state); }));
    } catch (error) {
      if (extra === mine) byId("people-note").textContent = error.message;
      return;
    } finally { button.disabled = false; }
  }
  player.showPeople();
}
