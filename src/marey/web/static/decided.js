// What decided: parts of the body and moments without which the answer's probability falls, and the joints drawn on the frames.

import { bars, byId, clock, make, sentence, show } from "./dom.js";
import { play } from "./player.js";

const SHOWN_PARTS = 6;
const short = (seconds) => seconds < 60 ? seconds.toFixed(1) : clock(seconds).split(".")[0];
const points = (fall) => `${fall < 0 ? "\u2212" : ""}${Math.round(100 * Math.abs(fall))} points`;

export function showDecided(found, mine) {
  byId("decided-title").textContent = found.unknown ? `What speaks for \u201c${found.label}\u201d, the nearest action` : `What decided for \u201c${found.label}\u201d`;
  byId("decided-note").textContent = `By how many percentage points the probability of \u201c${found.label}\u201d falls when the model is not shown a part of the body, or anybody in a stretch of time.`;
  const parts = found.parts.filter(({ fall }) => fall >= 0.005).slice(0, SHOWN_PARTS), most = parts[0]?.fall || 1;
  bars(byId("parts"), parts.map(({ name, fall }) => [sentence(name), fall / most]), (share) => points(share * most));
  if (!parts.length) byId("parts").replaceChildren(make("li", { text: "No single part: the answer stays where any one is hidden." }));
  const highest = Math.max(0.01, ...found.moments.map(({ fall }) => fall));
  byId("moments").replaceChildren(...found.moments.map(({ start_seconds, end_seconds, fall }) => {
    const level = make("span", { class: "level", "aria-hidden": "true" });
    level.style.height = `${Math.max(3, 100 * Math.max(0, fall) / highest)}%`;
    return make("button", { type: "button", "aria-label": `${clock(start_seconds)} to ${clock(end_seconds)}: ${points(fall)}`, title: `${clock(start_seconds)} to ${clock(end_seconds)}: ${points(fall)}`, onclick: () => play(start_seconds, end_seconds) },
      make("span", { class: "room" }, level), make("small", { text: short(start_seconds) }));
  }));
  byId("decided-frames").replaceChildren(...found.frames.map((frame, i) => make("li", {}, make("figure", {},
    make("img", { src: mine.fileUrl(frame.file), alt: `Joints of person ${found.track} that decided, frame ${i + 1} of ${found.frames.length}` }), make("figcaption", { text: clock(frame.seconds) })))));
  byId("decided-check").textContent = found.confirmed
    ? "Checked: hiding the marked joints first changes the answer more than hiding others does (5 % level)."
    : "Checked, and not confirmed: hiding other joints may change the answer as much as hiding the marked ones, so the circles say little here.";
  show(byId("decided-block"));
}
