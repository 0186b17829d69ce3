// Start: the server's facts, then the three views; the address says which one is open.

import { byId, show } from "./dom.js";
import { about } from "./client.js";
import * as recognise from "./recognise.js";
import * as game from "./game.js";
import * as teach from "./teach.js";

const VIEWS = ["recognise", "order", "teach"];

function open() {
  const wanted = location.hash.slice(1), view = VIEWS.includes(wanted) ? wanted : "recognise";
  for (const name of VIEWS) show(byId(name), name === view);
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", () => { if (VIEWS.includes(location.hash.slice(1))) { open(); scrollTo(0, 0); byId("main").focus({ preventScroll: true }); } });
open();

try {
  const facts = await about();
  recognise.setUp(facts);
  game.setUp(facts);
  if (facts.teaching) teach.setUp(facts);
  else show(document.querySelector("nav a[data-view=teach]"), false);
  document.documentElement.dataset.ready = "true";
  // The models are being loaded: ask once more for what they know.
  if (facts.models.some(({ classes }) => !classes)) setTimeout(async () => recognise.refresh(await about()), 4000);
} catch (error) {
  byId("problem").textContent = error.message;
  show(byId("problem"));
}
