// The video on the page: a file, a recording or an example; previews of what the browser cannot play; people drawn over it.

import { byId, clock, make, percent, sentence, show } from "./dom.js";
import { Job, describe } from "./client.js";

export const COLOURS = ["#ff6347", "#3cb4ff", "#78dc5a", "#ffc832", "#dc78ff", "#50e6dc", "#ff82be", "#c8c8c8"];
const RECORD_SECONDS = 6;
const video = byId("video"), canvas = byId("overlay");
let url = null, preview = null, people = null, drawn = false, stream = null, onProblem = () => {};

export let file = null;

export function setFile(chosen, problem) {
  onProblem = problem;
  file = chosen;
  hidePeople();
  endStretch();
  people = null;
  preview?.cancel();
  preview = null;
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(chosen);
  show(byId("drop"), false);
  show(byId("screen"));
  show(byId("another"));
  byId("filename").textContent = chosen.name;
  show(byId("filename"));
  show(byId("preview-note"), false);
  video.srcObject = null;
  video.controls = true;
  video.src = url;
}

export function clearFile() {
  file = null;
  hidePeople();
  video.removeAttribute("src");
  video.load();
  show(byId("drop"));
  show(byId("screen"), false);
  show(byId("another"), false);
  show(byId("filename"), false);
  show(byId("preview-note"), false);
}

video.addEventListener("error", () => { if (file && video.src === url) askPreview(); });
video.addEventListener("loadedmetadata", () => { if (file && video.src === url && video.videoWidth === 0) askPreview(); });

async function askPreview() {
  if (preview) return;
  const job = preview = new Job(), mine = file, note = byId("preview-note");
  note.textContent = "This browser cannot play the file; a preview is being prepared.";
  show(note);
  const form = new FormData();
  form.append("video", mine);
  try {
    const made = await job.run("preview", form, (state) => { note.textContent = `This browser cannot play the file. ${describe(state)}.`; });
    if (file !== mine) { job.leave(); return; }
    video.src = job.fileUrl(made.file);
    note.textContent = "A preview made by the server, without sound.";
  } catch (error) {
    if (file !== mine) return;
    clearFile();
    onProblem(error.message);
  }
}

let endStretch = () => {};

// Play a stretch and stop at its end; the video goes on when it is played again.
export function play(from, to) {
  endStretch();
  const look = () => {
    if (video.ended || video.currentTime >= to) { video.pause(); endStretch(); }
    else if (video.currentTime < from - 0.5) endStretch(); // the visitor has gone elsewhere
  };
  endStretch = () => {
    for (const name of ["timeupdate", "ended"]) video.removeEventListener(name, look);
    video.loop = true;
    endStretch = () => {};
  };
  video.loop = false; // else the last stretch never ends
  video.currentTime = from + 0.001;
  for (const name of ["timeupdate", "ended"]) video.addEventListener(name, look);
  video.play().catch(() => {});
}

export function onTime(callback) { video.addEventListener("timeupdate", () => callback(video.currentTime)); }

// ---- camera ----

export async function record(button, done, problem) {
  if (stream) { stream.recorder.stop(); return; }
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    problem("The camera works only on this machine itself or over https; record a video and choose the file instead.");
    return;
  }
  let camera;
  try { camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false }); } catch {
    problem("The camera cannot be used: the browser has no permission, or there is none.");
    return;
  }
  show(byId("drop"), false);
  show(byId("screen"));
  video.removeAttribute("src");
  video.controls = false;
  video.srcObject = camera;
  video.play().catch(() => {});
  const recorder = new MediaRecorder(camera), chunks = [];
  stream = { recorder };
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.onstop = () => {
    camera.getTracks().forEach((track) => track.stop());
    stream = null;
    clearInterval(timer);
    button.textContent = "Record";
    const type = recorder.mimeType.split(";")[0] || "video/webm";
    done(new File(chunks, `recording.${type.includes("mp4") ? "mp4" : "webm"}`, { type }));
  };
  recorder.start();
  let left = RECORD_SECONDS;
  button.textContent = `Stop (${left} s)`;
  const timer = setInterval(() => {
    left -= 1;
    button.textContent = `Stop (${left} s)`;
    if (left <= 0 && recorder.state === "recording") recorder.stop();
  }, 1000);
}

// ---- people over the video ----

export const hasPeople = () => people !== null;

export function setPeople(found) {
  people = found;
  const list = byId("people-list");
  list.replaceChildren(...found.people.map((person) => {
    const dot = make("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = COLOURS[person.track % COLOURS.length];
    const says = person.says ? `: ${person.says.label}${person.says.unknown ? "" : ` ${percent(person.says.probability)}`}` : "";
    return make("li", {}, make("button", { type: "button", onclick: () => play(person.from_seconds, person.to_seconds) },
      dot, `Person ${person.track}${says}, ${clock(person.from_seconds)} to ${clock(person.to_seconds)}`));
  }));
  const tracks = found.people.length;
  const most = Math.max(0, ...found.people.map(({ from_seconds: now }) => found.people.filter((other) => other.from_seconds <= now && now <= other.to_seconds).length));
  const together = `${most} ${most === 1 ? "person" : "people"}${tracks > most ? ` at once, followed in ${tracks} stretches` : " followed"}.`;
  byId("people-note").textContent = tracks ? together : "Nobody was found.";
}

export function showPeople() {
  drawn = true;
  byId("people").setAttribute("aria-pressed", "true");
  show(byId("people-list"), people.people.length > 0);
  draw();
}

export function hidePeople() {
  drawn = false;
  byId("people").setAttribute("aria-pressed", "false");
  show(byId("people-list"), false);
  byId("people-note").textContent = "";
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

export const peopleShown = () => drawn;

function draw() {
  if (!drawn || !people) return;
  const box = video.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const pen = canvas.getContext("2d");
  const scale = Math.min(canvas.width / (video.videoWidth || 1), canvas.height / (video.videoHeight || 1));
  const width = video.videoWidth * scale, height = video.videoHeight * scale;
  pen.translate((canvas.width - width) / 2, (canvas.height - height) / 2);
  const unit = Math.max(2, height / 180);
  for (const person of people.people) drawPerson(pen, person, video.currentTime, width / 1000, height / 1000, unit);
  requestAnimationFrame(draw);
}

// Places between two moments lie on the straight line between them.
function between(person, time) {
  const times = person.seconds, last = times.length - 1;
  if (time < times[0] - 0.1 || time > times[last] + 0.15) return null;
  let after = times.findIndex((moment) => moment >= time);
  if (after < 0) after = last;
  const before = Math.max(0, after - 1), gap = times[after] - times[before];
  if (gap > 1.5 && time > times[before] + 0.6 && time < times[after] - 0.6) return null;
  const share = gap > 0 ? Math.min(1, Math.max(0, (time - times[before]) / gap)) : 0;
  const mix = (a, b) => a + share * (b - a);
  return {
    box: person.boxes[before].map((value, i) => mix(value, person.boxes[after][i])),
    points: person.keypoints.length ? person.keypoints[before].map((point, i) => point.map((value, j) => mix(value, person.keypoints[after][i][j]))) : [],
  };
}

function drawPerson(pen, person, time, x, y, unit) {
  const now = between(person, time);
  if (!now) return;
  const colour = COLOURS[person.track % COLOURS.length];
  const [left, top, right, bottom] = now.box;
  const stroke = (path) => { pen.strokeStyle = "rgba(0,0,0,.65)"; pen.lineWidth = unit * 2; path(); pen.strokeStyle = colour; pen.lineWidth = unit; path(); };
  pen.lineCap = "round";
  stroke(() => pen.strokeRect(left * x, top * y, (right - left) * x, (bottom - top) * y));
  for (const [a, b] of people.bones) {
    const first = now.points[a], second = now.points[b];
    if (!first || Math.min(first[2], second[2]) < 20) continue;
    stroke(() => { pen.beginPath(); pen.moveTo(first[0] * x, first[1] * y); pen.lineTo(second[0] * x, second[1] * y); pen.stroke(); });
  }
  const text = person.says ? `${person.track}: ${sentence(person.says.label)}` : String(person.track);
  const size = Math.max(13, unit * 8);
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + size;
  const up = top * y > size * 1.5 ? top * y - size * 1.5 : top * y;
  const from = Math.max(0, Math.min(left * x, 1000 * x - wide)); // inside the picture
  pen.fillStyle = "rgba(0,0,0,.75)";
  pen.fillRect(from, up, wide, size * 1.5);
  pen.fillStyle = "#fff";
  pen.fillText(text, from + size / 2, up + size * 1.1);
}
