// The order game: the visitor sorts shuffled frames, the model sorts the same ones.

import { byId, make, part, sentence, show } from "./dom.js";
import { Job, advance, complain } from "./client.js";

let job = null, file = null, found = null, mine = [], chosen = null, seed = 1;

export function setUp(about) {
  byId("order-file").addEventListener("change", (event) => { if (event.target.files[0]) { file = event.target.files[0]; start(); } event.target.value = ""; });
  byId("order-examples").replaceChildren(...about.examples.map((name) => make("button", { type: "button", onclick: async () => {
    file = new File([await (await fetch(`/examples/${name}.mp4`)).blob()], `${name}.mp4`, { type: "video/mp4" });
    start();
  } }, make("img", { src: `/examples/${name}.jpg`, alt: "", loading: "lazy" }), make("span", { text: sentence(name) }))));
  byId("check").addEventListener("click", solve);
  byId("again").addEventListener("click", start);
  byId("order-cancel").addEventListener("click", () => job?.cancel());
}

async function start() {
  job?.cancel();
  const own = job = new Job(), form = new FormData();
  seed += 1;
  form.append("seed", String(seed));
  form.append("video", file);
  for (const id of ["game", "order-problem", "score", "solution"]) show(byId(id), false);
  show(byId("order-working"));
  try {
    const result = await own.run("order", form, (state) => advance(byId("order-working").querySelector("progress"), state));
    if (job !== own) return;
    found = result;
    mine = found.frames.map((_, i) => i);
    chosen = null;
    lay();
    show(byId("game"));
  } catch (error) {
    if (job !== own) return;
    complain(byId("order-problem"), error);
  } finally {
    if (job === own) show(byId("order-working"), false);
  }
}

function picture(number) { return make("img", { src: job.fileUrl(found.frames[number].file), alt: "" }); }

function lay(focus = null) {
  byId("cards").replaceChildren(...mine.map((number, place) => make("li", {},
    make("button", { type: "button", "aria-pressed": String(chosen === place), onclick: () => pick(place), onkeydown: (event) => move(event, place) },
      picture(number), make("span", { text: `Place ${place + 1}, picture ${"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]}` })))));
  if (focus !== null) byId("cards").children[focus]?.firstChild.focus();
}

function put(from, to) {
  const [number] = mine.splice(from, 1);
  mine.splice(to, 0, number);
}

function pick(place) {
  if (chosen === null) { chosen = place; lay(place); return; }
  if (chosen !== place) put(chosen, place);
  chosen = null;
  lay(place);
}

function move(event, place) {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  const target = place + (step ?? 0);
  if (step === undefined || target < 0 || target >= mine.length) return;
  event.preventDefault();
  if (chosen === place) { put(place, target); chosen = target; lay(target); } else byId("cards").children[target].firstChild.focus();
}

// Share of frames in the right relative order: the longest rising run of their true places.
function orderAccuracy(order) {
  const places = order.map((number) => found.frames[number].place), longest = [];
  places.forEach((place, i) => { longest[i] = 1 + Math.max(0, ...places.slice(0, i).map((other, j) => other < place ? longest[j] : 0)); });
  return Math.max(...longest) / places.length;
}

function solve() {
  const yours = orderAccuracy(mine), its = found.accuracy;
  const who = yours > its ? "You win." : yours < its ? "The model wins." : "A draw.";
  byId("score").textContent = `${who} In the right order relative to each other: you ${part(yours)} of the frames, ${found.by} ${part(its)}; a random order has ${part(found.chance)} on average.${its <= found.chance ? " On this video the model is no better than chance." : ""}`;
  const row = (order) => order.map((number, place) => make("li", {}, make("figure", {}, make("img", { src: job.fileUrl(found.frames[number].file), alt: `Picture ${"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]}` }), make("figcaption", { text: String(place + 1) }))));
  byId("model-cards").replaceChildren(...row(found.model));
  byId("true-cards").replaceChildren(...row(found.frames.map((_, i) => i).sort((a, b) => found.frames[a].place - found.frames[b].place)));
  show(byId("score"));
  show(byId("solution"));
}
