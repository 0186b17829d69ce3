"""`marey explain`: why a model answered what it did, as pictures that have to earn trust, on one page."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from marey.errors import unknown_name
from marey.explain import svg
from marey.explain.attention import KINDS, attention_map, lay_over
from marey.explain.faithfulness import deletion_insertion, frame_importance
from marey.explain.gradients import METHODS, gradient_relevance
from marey.predictor import Predictor
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.draw import clock, contact_sheet
from marey.video.encode import write_video

STYLE = """body{font-family:system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
body{line-height:1.5} img{max-width:100%} table{border-collapse:collapse}
td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}
.good{color:#1e8449} .bad{color:#c0392b}"""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was found out about one answer."""

    label: str
    probability: float
    kind: str
    """How the map was made."""
    relevance: Tensor
    """(T, h, w), not negative."""
    importance: Tensor
    """(T,): by how much the probability falls without each frame."""
    scores: dict[str, Any]
    """Deletion and insertion beside random maps."""
    temporal: Tensor | None
    """(T, T), mean temporal attention of the last block, row = frame that looks; None for models without it."""


def explain(predictor: Predictor, clip: Clip, *, kind: str | None = None, layer: int = -1, head: int | None = None,
            label: str | None = None, seed: int = 0) -> Explanation:
    """Explain the first answer (or `label`) for a sampled clip.

    Args:
        kind: "rollout", "last", "integrated_gradients" or "saliency"; None takes rollout where the model has attention
            and integrated gradients where it has not.
        layer, head: for "last".
        seed: of the random maps the map is compared with.

    Raises:
        UserError: if the kind or label is unknown, or the model cannot be explained that way.
    """
    if kind is not None and kind not in (*KINDS, *METHODS):
        raise unknown_name("map", kind, (*KINDS, *METHODS))
    if label is not None and label not in predictor.class_names:
        raise unknown_name("label", label, predictor.class_names)
    views = predictor.preprocess.clip(clip.frames, num_spatial=1).to(predictor.device)
    outputs = _outputs(predictor, views)
    probabilities = predictor.probabilities(outputs["logits"])[0]
    target = int(probabilities.argmax()) if label is None else predictor.class_names.index(label)
    has_attention = "attention_space" in outputs or "attention_joint" in outputs
    kind = kind or ("rollout" if has_attention else "integrated_gradients")
    if kind in METHODS:
        relevance = gradient_relevance(predictor.model, views[0], target, method=kind)
    else:
        relevance = attention_map(outputs, clip.num_frames, kind=kind, layer=layer, head=head)[0]

    def score(batch: Tensor) -> Tensor:
        return predictor.probabilities(predictor.outputs(batch)["logits"])[:, target]

    scores = deletion_insertion(score, views[0].cpu(), relevance.cpu(), generator=torch.Generator().manual_seed(seed))
    time = outputs.get("attention_time")
    temporal = time[-1].mean((0, 1, 2))[:, -clip.num_frames:].cpu() if time else None
    return Explanation(label=predictor.class_names[target], probability=float(probabilities[target]), kind=kind,
                       relevance=relevance.cpu(), importance=frame_importance(score, views[0].cpu()),
                       scores=scores.to_dict(), temporal=temporal)


@torch.inference_mode()
def _outputs(predictor: Predictor, views: Tensor) -> dict[str, Any]:
    """Return the outputs with attention where the model has it."""
    from marey.errors import UserError

    try:
        return predictor.model(views, return_attention=True)
    except UserError:
        return predictor.model(views)


def explain_video(predictor: Predictor, video: str | Path, out: Path, **options: Any) -> dict[str, Any]:
    """Write `index.html`, its pictures, `overlay.mp4` and `explanation.json` for a video into a folder.

    Returns:
        What `explanation.json` holds.

    Raises:
        VideoError: if the video cannot be read.
    """
    with open_video(video) as reader:
        clip = predictor.preprocess.sample(reader)
        fps = reader.fps
    found = explain(predictor, clip, **options)
    out.mkdir(parents=True, exist_ok=True)
    seen = predictor.preprocess.geometry(clip.frames, 1)[0]
    tinted = lay_over(seen, found.relevance)
    times = [clock(seconds) for seconds in clip.frame_seconds]
    sheets = {"frames.png": contact_sheet(seen, times), "attention.png": contact_sheet(tinted, times)}
    for name, sheet in sheets.items():
        _write(out / name, _png(sheet))
    spacing = (clip.frame_seconds[-1] - clip.frame_seconds[0]) / max(1, clip.num_frames - 1)
    write_video(out / "overlay.mp4", tinted, fps=min(fps, 1 / spacing) if spacing > 0 else fps)
    facts = {"video": str(video), "model": predictor.name, "label": found.label, "map": found.kind,
             "probability": round(found.probability, 4), "frame_seconds": [round(s, 3) for s in clip.frame_seconds],
             "frame_importance": [round(float(v), 4) for v in found.importance], "faithfulness": found.scores}
    _write(out / "explanation.json", json.dumps(facts, indent=1).encode())
    _write(out / "index.html", _page(found, facts, times, sheets).encode())
    return facts


def _page(found: Explanation, facts: dict[str, Any], times: list[str], sheets: dict[str, Image.Image]) -> str:
    scores = found.scores
    verdict = ("<b class='good'>It beats random maps on both: changing what it marks changes the answer.</b>"
               if scores["better_than_random"] else
               "<b class='bad'>It does not beat random maps on both: do not read much into this picture.</b>")
    temporal = "" if found.temporal is None else (
        "<h2>Which frame looks at which</h2><p>Temporal attention of the last block, mean over heads and places; row = "
        f"the frame that looks. Red is negative.</p>{svg.matrix(found.temporal.tolist())}")
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Why {html.escape(found.label)}?</title><style>{STYLE}</style>
<h1>Why “{html.escape(found.label)}”?</h1>
<p>{html.escape(facts['model'])} gave {html.escape(found.label)} a probability of {found.probability:.0%} for
{html.escape(Path(facts['video']).name)}.</p>
<h2>Where it looked ({html.escape(found.kind.replace('_', ' '))})</h2>
<p>Warm and coloured: what the map marks. One scale for all frames.</p>{_img(sheets['attention.png'], 'attention')}
<h2>Does the map deserve trust?</h2>
<table><tr><th></th><th>this map</th><th>random maps</th><th>better is</th></tr>
<tr><td>deletion (marked patches blurred first)</td><td>{scores['deletion']:.3f}</td>
<td>{scores['random_deletion']:.3f}</td><td>lower</td></tr>
<tr><td>insertion (marked patches shown first)</td><td>{scores['insertion']:.3f}</td>
<td>{scores['random_insertion']:.3f}</td><td>higher</td></tr></table><p>{verdict}</p>
<h2>Which frames mattered</h2><p>By how much the probability falls when a frame is replaced by its neighbour.</p>
{svg.bars(found.importance.tolist(), times)}{temporal}
<h2>The frames</h2>{_img(sheets['frames.png'], 'frames')}</html>"""


def _img(sheet: Image.Image, name: str) -> str:
    return f"<img alt='{name}' src='data:image/png;base64,{base64.b64encode(_png(sheet)).decode()}'>"


def _png(sheet: Image.Image) -> bytes:
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)
