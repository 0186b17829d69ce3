// Does the answer hold? Thumbnails of the changed video, each with its verdict beside the clean one.

import { byId, make, percent, sentence, show } from "./dom.js";
import { Job, advance, describe } from "./client.js";

let job = null;
const NOTE = "The middle seconds of the video are answered again under twelve changes, each in the same views as the clean ones.";

export function resetChanges() {
  job?.cancel();
  job = null;
  byId("changes").replaceChildren();
  show(byId("changes-bar"), false);
  byId("changes-note").textContent = NOTE;
  byId("try").textContent = "Make the video worse";
}

export async function startChanges(file, model) {
  if (job) { resetChanges(); return; }
  resetChanges();
  const mine = job = new Job(), form = new FormData(), bar = byId("changes-bar"), note = byId("changes-note");
  form.append("model", model);
  form.append("severity", byId("severity").value);
  form.append("video", file);
  byId("try").textContent = "Cancel";
  show(bar);
  try {
    const result = await mine.run("changed", form, (state) => {
      if (job !== mine) return;
      note.textContent = describe(state);
      advance(bar, state);
      for (const { clean, change } of state.parts) byId("changes").append(clean ? cleanCard(clean, mine) : card(change, mine));
    });
    if (job === mine) note.textContent = `The answer holds under ${result.held} of ${result.of} changes at strength ${result.severity}.`;
  } catch (error) {
    if (job === mine) note.textContent = error.message;
  } finally {
    if (job === mine) { job = null; show(bar, false); byId("try").textContent = "Make the video worse"; }
  }
}

const said = (answer) => answer.unknown ? `unknown, nearest ${answer.label}` : answer.label === "nobody found" ? answer.label : `${answer.label} ${percent(answer.probability)}`;

function cleanCard(answer, mine) {
  return make("li", { class: "clean" }, make("figure", {}, make("img", { src: mine.fileUrl(answer.picture), alt: "The clean video" }),
    make("figcaption", {}, make("strong", { text: "Clean" }), sentence(said(answer)))));
}

function card(change, mine) {
  if (change.error) return make("li", {}, make("figure", {}, make("figcaption", {}, make("strong", { text: sentence(change.name) }), change.error)));
  return make("li", {}, make("figure", {}, make("img", { src: mine.fileUrl(change.picture), alt: `The video under ${change.name}` }),
    make("figcaption", {}, make("strong", { text: sentence(change.name) }),
      make("span", { class: change.held ? "held" : "lost", text: change.held ? "Held" : "Changed" }), `: ${said(change)}`)));
}
