"""The explanation of one answer: attention map, its faithfulness, frame importance and temporal
attention on a page."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.explain.attention import KINDS, attention_map, lay_over
from marey.explain.checks import (
    LEVEL,
    RANDOM_MAPS,
    SAME_MAP,
    MapChecks,
    check_map,
    shuffled_weights,
)
from marey.explain.faithfulness import deletion_insertion, frame_importance
from marey.explain.gradients import METHODS, gradient_relevance
from marey.files import write_bytes, write_json, write_text
from marey.inference.predictor import Predictor
from marey.persons.blur import Blur
from marey.persons.nanodet import NanoDetPersons
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.draw import clock, contact_sheet
from marey.video.encode import write_video

STYLE = """body{font-family:system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
body{line-height:1.5} img{max-width:100%} table{border-collapse:collapse}
td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}
.good{color:#1e8449} .bad{color:#c0392b}"""

MIN_ASKED = 0.05
"""An answer below this probability was not given, and is not asked "why"."""
SHOWN_SIDE = 720
"""Short side of the frames shown at most, in pixels."""
MOSTLY = 0.6
"""Share of a map outside the people from which a caution is given."""

BLUE, RED, INK = "#2e86c1", "#c0392b", "#333"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Map, faithfulness and frame importance of one answer."""

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
    checks: MapChecks
    """Whether the map deserves to be believed."""
    decides: bool
    """Whether the map shows the path that decides; an attention map of a model whose answer comes
    from elsewhere does not."""
    temporal: Tensor | None
    """(T, T), mean temporal attention of the last block, row = query frame; None for models without
    it."""


def explain(
    predictor: Predictor,
    clip: Clip,
    *,
    kind: str | None = None,
    layer: int = -1,
    head: int | None = None,
    label: str | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
) -> Explanation:
    """Explain the first answer (or `label`) for a sampled clip.

    Args:
        kind: "rollout", "last", "integrated_gradients" or "saliency"; None takes rollout where the
            model has attention that decides and integrated gradients where it has not.
        layer, head: for "last".
        random_maps: that the map is compared with, see `check_map`.
        seed: of the random maps the map is compared with.

    Raises:
        UserError: if the kind or label is unknown, or the model cannot be explained that way.
    """
    if kind is not None and kind not in (*KINDS, *METHODS):
        raise unknown_name("map", kind, (*KINDS, *METHODS))
    if label is not None and label not in predictor.class_names:
        raise unknown_name("label", label, predictor.class_names)
    views = predictor.preprocess.clip(clip.frames, num_spatial=1).to(predictor.device)
    outputs = _outputs(predictor.model, views)
    probabilities = predictor.probabilities(outputs["logits"])[0]
    target = int(probabilities.argmax()) if label is None else predictor.class_names.index(label)
    has_attention = "attention_space" in outputs or "attention_joint" in outputs
    attention_decides = has_attention and "deciding_embedding" not in outputs
    kind = kind or ("rollout" if attention_decides else "integrated_gradients")

    def map_of(model: nn.Module) -> Tensor:
        if kind in METHODS:
            return gradient_relevance(model, views[0], target, method=kind).cpu()
        found = outputs if model is predictor.model else _outputs(model, views)
        return attention_map(found, clip.num_frames, kind=kind, layer=layer, head=head)[0].cpu()

    relevance = map_of(predictor.model)

    def score(batch: Tensor) -> Tensor:
        return predictor.probabilities(predictor.outputs(batch)["logits"])[:, target]

    generator = torch.Generator().manual_seed(seed)
    scores = deletion_insertion(score, views[0].cpu(), relevance, generator=generator)
    checks = check_map(
        score,
        views[0].cpu(),
        relevance,
        random_maps=random_maps,
        shuffled_map=map_of(shuffled_weights(predictor.model, generator)),
        generator=generator,
    )
    time = outputs.get("attention_time")
    temporal = time[-1].mean((0, 1, 2))[:, -clip.num_frames :].cpu() if time else None
    return Explanation(
        label=predictor.class_names[target],
        probability=float(probabilities[target]),
        kind=kind,
        relevance=relevance,
        importance=frame_importance(score, views[0].cpu()),
        scores=scores.to_dict(),
        checks=checks,
        decides=kind in METHODS or attention_decides,
        temporal=temporal,
    )


@torch.inference_mode()
def _outputs(model: nn.Module, views: Tensor) -> dict[str, Any]:
    """Return the outputs with attention where the model has it."""
    try:
        return model(views, return_attention=True)
    except UserError:
        return model(views)


def explain_video(
    predictor: Predictor,
    video: str | Path,
    out: Path,
    *,
    blur: Blur | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write `index.html`, its pictures, `overlay.mp4` and `explanation.json` for a video into a
    folder.

    Args:
        blur: makes people unrecognisable in the pictures; the model sees them as they are.

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
    shown = clip.frames if blur is None else blur.pictures(clip.frames)
    larger = geometry_of_source(predictor.preprocess, clip)
    seen = larger.geometry(shown, 1)[0]
    tinted = lay_over(seen, found.relevance)
    background = background_share(found.relevance, larger.geometry(clip.frames, 1)[0])
    times = [clock(seconds) for seconds in clip.frame_seconds]
    sheets = {
        "frames.png": contact_sheet(seen, times),
        "attention.png": contact_sheet(tinted, times),
    }
    for name, sheet in sheets.items():
        write_bytes(out / name, png(sheet))
    spacing = (clip.frame_seconds[-1] - clip.frame_seconds[0]) / max(1, clip.num_frames - 1)
    write_video(out / "overlay.mp4", tinted, fps=min(fps, 1 / spacing) if spacing > 0 else fps)
    facts = {
        "video": str(video),
        "model": predictor.name,
        "label": found.label,
        "map": found.kind,
        "probability": round(found.probability, 4),
        "frame_seconds": [round(s, 3) for s in clip.frame_seconds],
        "frame_importance": [round(float(v), 4) for v in found.importance],
        "faithfulness": found.scores,
        "checks": found.checks.to_dict(),
        "shows_what_decides": found.decides,
        "background_share": None if background is None else round(background, 4),
        "caution": caution(background),
        "verdict": describe_checks(found.checks, found.decides),
    }
    write_json(out / "explanation.json", facts, indent=1)
    write_text(out / "index.html", _page(found, facts, times, sheets))
    return facts


def _page(
    found: Explanation, facts: dict[str, Any], times: list[str], sheets: dict[str, Image.Image]
) -> str:
    scores = found.scores
    temporal = (
        ""
        if found.temporal is None
        else (
            "<h2>Temporal attention</h2><p>Temporal attention of the last block, mean over heads "
            "and patches; row = "
            f"the query frame. Red is negative.</p>{matrix(found.temporal.tolist())}"
        )
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title_of(found.label, found.probability))}</title><style>{STYLE}</style>
<h1>{html.escape(title_of(found.label, found.probability))}</h1>
<p>{html.escape(facts["model"])} gave {html.escape(found.label)} a probability of {found.probability:.0%} for
{html.escape(Path(facts["video"]).name)}.</p>
<h2>Attention map ({html.escape(found.kind.replace("_", " "))})</h2>
<p>Warm and coloured: high relevance. One scale for all frames.</p>{_warning(facts["caution"])}{picture_tag(sheets["attention.png"], "attention")}
<h2>Faithfulness of the map</h2>
<table><tr><th></th><th>this map</th><th>random maps</th><th>better is</th></tr>
<tr><td>deletion (marked patches blurred first)</td><td>{scores["deletion"]:.3f}</td>
<td>{scores["random_deletion"]:.3f}</td><td>lower</td></tr>
<tr><td>insertion (marked patches shown first)</td><td>{scores["insertion"]:.3f}</td>
<td>{scores["random_insertion"]:.3f}</td><td>higher</td></tr></table>
<p><b class='{"good" if found.checks.passed and found.decides else "bad"}'>{html.escape(facts["verdict"])}</b></p>
<h2>Importance of the frames</h2><p>By how much the probability falls when a frame is replaced by its neighbour.</p>
{bars(found.importance.tolist(), times)}{temporal}
<h2>The frames</h2>{picture_tag(sheets["frames.png"], "frames")}</html>"""


def title_of(label: str, probability: float) -> str:
    """Return the title of an explanation: "why" is not asked of an answer that was not given.

    >>> title_of("run", 0.62), title_of("run", 0.004)
    ('Why “run”?', 'What speaks for “run” (below 1%)?')
    """
    if probability >= MIN_ASKED:
        return f"Why “{label}”?"
    shown = "below 1%" if probability < 0.01 else f"{probability:.0%}"
    return f"What speaks for “{label}” ({shown})?"


def geometry_of_source(preprocess: Preprocess, clip: Clip) -> Preprocess:
    """Return a preprocessing with the same crop at the source's size, as far as its short side is
    at most `SHOWN_SIDE`: what the model saw, large enough for people to see what is on it."""
    side = min(SHOWN_SIDE, *clip.frames.shape[-2:])
    larger = max(1.0, side / preprocess.short_side)
    return replace(
        preprocess,
        short_side=math.ceil(preprocess.short_side * larger),
        image_size=round(preprocess.image_size * larger),
    )


def background_share(relevance: Tensor, frames: Tensor) -> float | None:
    """Return which share of a map lies outside everybody's box; None where nobody is found.

    Args:
        relevance: (T, h, w), not negative.
        frames: uint8, (T, 3, S, S), of the same crop.
    """
    finder = NanoDetPersons()
    inside = torch.zeros_like(relevance)
    found = False
    h, w = relevance.shape[-2:]
    for number, frame in enumerate(frames):
        for x1, y1, x2, y2 in finder(frame, "", 0.0)[0].tolist():
            found = True
            top, left = math.floor(y1 * h), math.floor(x1 * w)
            inside[number, top : math.ceil(y2 * h), left : math.ceil(x2 * w)] = 1
    total = float(relevance.sum())
    if not found or total <= 0:
        return None
    return 1 - float((relevance * inside).sum()) / total


def caution(background: float | None) -> str | None:
    """Return what to say where a map lies mostly outside the people."""
    if background is None or background < MOSTLY:
        return None
    return (
        f"Caution: {background:.0%} of the map lies outside the people. The answer may rest on the "
        "background; try the same action in another place."
    )


def _warning(text: str | None) -> str:
    return "" if text is None else f"<p><b class='bad'>{html.escape(text)}</b></p>"


def describe_checks(
    checks: MapChecks, decides: bool = True, *, middle: str = "a blob in the middle of the picture"
) -> str:
    """Say in words whether a map deserves to be believed, and why not.

    Args:
        middle: what the map of the middle is.
    """
    against = []
    if not decides:
        against.append("it shows attention that does not decide the answer")
    if checks.p_value > LEVEL:
        against.append(
            f"random maps do as well (p = {checks.p_value:.2f} of {checks.random_maps} maps)"
        )
    if checks.gain <= checks.blob_gain:
        against.append(f"{middle} does as well")
    if checks.weights_correlation is not None and checks.weights_correlation >= SAME_MAP:
        against.append(
            "a model that learned nothing gives nearly the same map (rank correlation "
            f"{checks.weights_correlation:.2f})"
        )
    frames = (
        f"Leaving out its frames first changes the answer more than other orders do (p = "
        f"{checks.p_temporal:.2f})."
        if checks.p_temporal <= LEVEL
        else f"It does not show which frames matter (p = {checks.p_temporal:.2f})."
    )
    if against:
        return f"This map says little about the answer: {'; '.join(against)}. {frames}"
    return (
        f"Changing what it marks changes the answer more than {checks.random_maps} random maps and "
        f"{middle} do (p = {checks.p_value:.2f}), and it depends on what the model "
        f"learned. {frames}"
    )


def picture_tag(sheet: Image.Image, name: str) -> str:
    """Return an HTML image that carries its own data."""
    return f"<img alt='{name}' src='data:image/png;base64,{base64.b64encode(png(sheet)).decode()}'>"


def png(sheet: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def bars(
    values: Sequence[float], labels: Sequence[str], *, width: int = 640, height: int = 180
) -> str:
    """Draw one bar per value above or below a zero line, positive blue, negative red, with its
    number."""
    high, low = max(max(values, default=0.0), 0.0), min(min(values, default=0.0), 0.0)
    span = (high - low) or 1.0
    step = width / max(len(values), 1)
    room = height - 44
    zero = 16 + room * high / span
    parts = [
        _open(width, height),
        f"<line x1='0' x2='{width}' y1='{zero:.1f}' y2='{zero:.1f}' stroke='#999'/>",
    ]
    for number, (value, label) in enumerate(zip(values, labels, strict=True)):
        x, size = number * step + 0.15 * step, room * abs(value) / span
        top = zero - size if value >= 0 else zero
        parts.append(
            f"<rect x='{x:.1f}' y='{top:.1f}' width='{0.7 * step:.1f}' "
            f"height='{max(size, 0.5):.1f}' fill='{BLUE if value >= 0 else RED}'/>"
        )
        parts.append(
            _text(x + 0.35 * step, top - 4 if value >= 0 else top + size + 12, f"{value:+.2f}")
        )
        parts.append(_text(x + 0.35 * step, height - 4, label))
    return "".join([*parts, "</svg>"])


def matrix(values: Sequence[Sequence[float]], *, path: Sequence[int] = (), cell: int = 44) -> str:
    """Draw a signed square matrix, row i attending to column j: blue above zero, red below,
    stronger when larger.

    Args:
        values: T rows of T values.
        path: positions in the order that a path visits them; its steps (row, column) are framed.
    """
    size = len(values)
    largest = max((abs(v) for row in values for v in row), default=1.0) or 1.0
    side = cell * (size + 1)
    steps = set(pairwise(path))
    parts = [_open(side, side)]
    for i, row in enumerate(values):
        parts += [
            _text(cell / 2, (i + 1.6) * cell, str(i)),
            _text((i + 1.5) * cell, 0.6 * cell, str(i)),
        ]
        for j, value in enumerate(row):
            frame = f" stroke='{INK}' stroke-width='2.5'" if (i, j) in steps else ""
            parts.append(
                f"<rect x='{(j + 1) * cell + 1}' y='{(i + 1) * cell + 1}' width='{cell - 2}' "
                f"height='{cell - 2}' fill='{BLUE if value >= 0 else RED}' "
                f"fill-opacity='{0.05 + 0.9 * abs(value) / largest:.2f}'{frame}/>"
            )
            parts.append(_text((j + 1.5) * cell, (i + 1.6) * cell, f"{value:.2f}"))
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' style='max-width:100%' font-family='system-ui, sans-serif' "
        f"font-size='11' text-anchor='middle' fill='{INK}'>"
    )


def _text(x: float, y: float, text: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}'>{html.escape(text)}</text>"
