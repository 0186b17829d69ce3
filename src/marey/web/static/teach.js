// Teaching by upload: a folder or a zip of labelled videos in, an honest score and a model out.

import { bars, byId, make, part, percent, show } from "./dom.js";
import { Job, Problem, advance, complain, describe } from "./client.js";

const VIDEO = /\.(mp4|m4v|mov|avi|mkv|webm|mpg|mpeg|wmv|flv|ts|mts|3gp|gif|y4m|csv)$/i;
let server = null, files = [], job = null, started = 0;

export function setUp(about) {
  server = about;
  byId("teach-limits").textContent = `Up to ${about.limits.teach_files} files and ${about.limits.teach_megabytes} MB.`;
  byId("folder").addEventListener("change", (event) => chooseFolder([...event.target.files]));
  byId("zip").addEventListener("change", (event) => { if (event.target.files[0]) chooseZip(event.target.files[0]); });
  byId("learn").addEventListener("click", learn);
  byId("teach-cancel").addEventListener("click", () => job?.cancel());
}

function reset() {
  job?.cancel();
  job = null;
  for (const id of ["lesson", "teach-problem", "teach-working", "taught"]) show(byId(id), false);
}

function problem(text) { complain(byId("teach-problem"), new Problem(text)); }

function chooseFolder(given) {
  reset();
  files = given.filter((file) => VIDEO.test(file.name)).map((file) => [file, file.webkitRelativePath || file.name]);
  const counts = new Map();
  for (const [, path] of files) { const parts = path.split("/"); if (parts.length > 1) counts.set(parts.at(-2), (counts.get(parts.at(-2)) || 0) + 1); }
  if (!files.length) { problem("There are no videos in this folder."); return; }
  found([...counts].sort().map(([name, count]) => `${name}: ${count}`), `${files.length} files, ${megabytes()} MB.`);
}

function chooseZip(file) {
  reset();
  files = [[file, file.name]];
  found([], `${file.name}, ${megabytes()} MB.`);
}

const megabytes = () => Math.ceil(files.reduce((sum, [file]) => sum + file.size, 0) / 1e6);

function found(classes, note) {
  const { teach_files, teach_megabytes } = server.limits;
  if (files.length > teach_files || megabytes() > teach_megabytes) { problem(`${note} This server takes up to ${teach_files} files and ${teach_megabytes} MB; leave some out.`); return; }
  byId("lesson-classes").replaceChildren(...classes.map((text) => make("li", { text })));
  byId("lesson-note").textContent = note;
  show(byId("lesson"));
}

function remaining(state) {
  const { done, total } = state.progress || {};
  if (!total || !done || state.state !== "running") return "";
  const seconds = (performance.now() - started) / 1000 * (total - done) / done;
  return seconds > 5 ? `; about ${seconds > 90 ? `${Math.round(seconds / 60)} minutes` : `${Math.round(seconds)} s`} left of this step` : "";
}

async function learn() {
  const own = job = new Job(), form = new FormData();
  for (const [file, path] of files) form.append("videos", file, path);
  for (const id of ["teach-problem", "taught", "lesson"]) show(byId(id), false);
  show(byId("teach-working"));
  let stage = "";
  try {
    const result = await own.run("teach", form, (state) => {
      if (state.progress?.stage !== stage) { stage = state.progress?.stage; started = performance.now(); }
      byId("teach-text").textContent = describe(state) + remaining(state);
      advance(byId("teach-bar"), state);
    });
    if (job === own) present(result, own);
  } catch (error) {
    if (job === own) { complain(byId("teach-problem"), error); show(byId("lesson")); }
  } finally {
    if (job === own) show(byId("teach-working"), false);
  }
}

function present(result, own) {
  byId("taught-title").textContent = `About ${percent(result.accuracy)} of new videos are answered right`;
  byId("taught-headline").textContent = result.headline;
  byId("taught-decided").textContent = result.decided_by;
  byId("download").href = own.fileUrl(result.model);
  for (const id of ["report", "open-report"]) byId(id).href = own.fileUrl(result.report);
  bars(byId("controls"), [["This model", result.accuracy], ...Object.entries(result.controls)], part);
  byId("curve").replaceChildren(make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Videos of each action" }), make("th", { scope: "col", text: "Right" }))),
    make("tbody", {}, ...result.learning_curve.map((row) => make("tr", {}, make("td", { text: String(row.shots) }), make("td", { text: part(row.accuracy) })))));
  const { classes, counts } = result.confusion;
  byId("confusion").replaceChildren(make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Shown, answered:" }), ...classes.map((name) => make("th", { scope: "col", text: name })))),
    make("tbody", {}, ...counts.map((row, i) => make("tr", {}, make("th", { scope: "row", text: classes[i] }), ...row.map((count, j) => make("td", { class: count ? (i === j ? "right" : "wrong") : "", text: String(count) }))))));
  const unread = result.unreadable.map(({ video, error }) => `${video} could not be read: ${error}`);
  byId("record").replaceChildren(...[...result.record_more, ...result.notes, ...unread].map((text) => make("li", { text })));
  show(byId("taught"));
  byId("taught-title").focus();
}
