"""Why a pose model gives its answer: the joints and the moments that change it when they are not
seen.

Everything is measured through what decides: windows are answered with some keypoints left out of
attention, as where a pose network does not find them, and fused with the weights they had.

Legend: W windows, T moments of a window, P persons, 13 parts (`transforms.keypoints.PART_NAMES`).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from marey.errors import unknown_name
from marey.explain.checks import RANDOM_MAPS, MapChecks, shuffled_weights
from marey.explain.faithfulness import Faithfulness
from marey.explain.pose_checks import PARTS, check_window_map, with_parts
from marey.explain.report import STYLE, bars, describe_checks, picture_tag, png, title_of
from marey.files import write_bytes, write_json, write_text
from marey.inference.annotate import enlarged
from marey.inference.pose_windows import PoseClips, fuse
from marey.inference.poses import PosePredictor
from marey.inference.prediction import Prediction
from marey.models.outputs import outputs_of
from marey.persons.blur import Blur
from marey.persons.pose_tracks import Pose, PoseTracks
from marey.transforms.keypoints import BONES, NUM_KEYPOINTS, PART_NAMES
from marey.video.decode import open_video
from marey.video.draw import clock, contact_sheet, draw_joint_weights

MAX_WINDOWS = 64
"""Windows with most to say that are asked again; bounds the time for long videos."""

STRETCHES = 12
"""Stretches of time that are left out, one after the other."""

MIN_STRETCH = 0.25
"""Seconds of a stretch, at least."""

NEAR = 1
"""In the map of one window a part is left out at a moment and so many moments before and after."""

FRAMES = 8
"""Frames shown."""

MARGIN = 0.35
"""Around the person in the frames shown, in heights of the box."""

OTHER_PERSON = "other person"


@dataclass(frozen=True, kw_only=True)
class PoseExplanation:
    """What an answer depends on."""

    label: str
    probability: float
    """Of the label, for the whole video."""
    track: int
    """The person of the window with most to say."""
    start_seconds: float
    """Of that window."""
    end_seconds: float
    parts: dict[str, float]
    """By how much the video's probability falls where a part of everybody's body is not seen; with
    a model of two persons also without whoever is near."""
    moments: tuple[tuple[float, float, float], ...]
    """Start, end in seconds, and by how much the probability falls where nobody is seen then."""
    relevance: Tensor
    """(T, 13), of the window: by how much its own probability falls where a part is not seen around
    a moment."""
    faithfulness: Faithfulness
    """Of `relevance`, beside random maps."""
    checks: MapChecks
    """Whether `relevance` deserves to be believed."""


def explain_poses(
    predictor: PosePredictor,
    found: PoseTracks,
    *,
    label: str | None = None,
    seed: int = 0,
    max_windows: int = MAX_WINDOWS,
    random_maps: int = RANDOM_MAPS,
    tick: Callable[[], None] = lambda: None,
) -> PoseExplanation | None:
    """Explain the first answer (or `label`) for the people of a video; None where nobody was found.

    Args:
        seed: of the random maps that the map is compared with.
        max_windows: windows with most to say that are asked again.
        random_maps: that the map is checked against; fewer are faster.
        tick: is called between two questions to the model, of which there are some thirty.

    Raises:
        UserError: if the label is unknown.
    """
    if label is not None and label not in predictor.class_names:
        raise unknown_name("label", label, predictor.class_names)
    answer = predictor.answer(found)
    if not answer.somebody:
        return None
    target = (
        int(answer.probabilities.argmax()) if label is None else predictor.class_names.index(label)
    )
    clips = most_say(answer.clips, max_windows)
    whole = _video_probability(predictor, clips, target)

    parts = {}
    for name, keypoints in zip(PART_NAMES, PARTS, strict=True):
        tick()
        hidden = clips.clips.clone()
        hidden[:, :, list(keypoints)] = 0
        parts[name] = whole - _video_probability(predictor, replace(clips, clips=hidden), target)
    if clips.clips.shape[2] > NUM_KEYPOINTS:
        hidden = clips.clips.clone()
        hidden[:, :, NUM_KEYPOINTS:] = 0
        alone = _video_probability(predictor, replace(clips, clips=hidden), target)
        parts[OTHER_PERSON] = whole - alone

    moments = []
    for start, end in stretches(clips, predictor.sampling.seconds):
        tick()
        hidden = without_stretch(clips, predictor.sampling.fps, start, end)
        rest = _video_probability(predictor, replace(clips, clips=hidden), target)
        moments.append((start, end, whole - rest))

    main = int(clips.weight.argmax())
    window = clips.clips[main]  # (T, P * 17, 3)
    tick()
    relevance = window_relevance(predictor, window, target)
    start = max(0.0, clips.start_seconds[main])
    tick()
    return PoseExplanation(
        label=predictor.class_names[target],
        probability=float(answer.probabilities[target]),
        track=clips.tracks[main],
        start_seconds=start,
        end_seconds=clips.start_seconds[main] + predictor.sampling.seconds,
        parts=parts,
        moments=tuple(moments),
        relevance=relevance,
        faithfulness=window_faithfulness(predictor, window, target, relevance, seed=seed),
        checks=window_checks(
            predictor, window, target, relevance, random_maps=random_maps, seed=seed
        ),
    )


def most_say(clips: PoseClips, count: int) -> PoseClips:
    """Return the windows with most to say, in the order they had."""
    if len(clips) <= count:
        return clips
    kept = clips.weight.topk(count).indices.sort().values
    return PoseClips(
        clips=clips.clips[kept],
        tracks=tuple(clips.tracks[index] for index in kept.tolist()),
        start_seconds=tuple(clips.start_seconds[index] for index in kept.tolist()),
        weight=clips.weight[kept],
    )


def stretches(clips: PoseClips, window_seconds: float) -> list[tuple[float, float]]:
    """Cut the time that windows cover into `STRETCHES` stretches alike, of at least
    `MIN_STRETCH`."""
    start = max(0.0, min(clips.start_seconds))
    end = max(clips.start_seconds) + window_seconds
    count = max(1, min(STRETCHES, int((end - start) / MIN_STRETCH)))
    step = (end - start) / count
    return [(start + n * step, start + (n + 1) * step) for n in range(count)]


def without_stretch(clips: PoseClips, fps: float, start: float, end: float) -> Tensor:
    """Return windows (W, T, P * 17, 3) in which nobody is seen in [start, end) seconds."""
    hidden = clips.clips.clone()
    moments = torch.arange(hidden.shape[1]) / fps
    for row, begin in enumerate(clips.start_seconds):
        inside = (begin + moments >= start) & (begin + moments < end)
        hidden[row, inside] = 0
    return hidden


def window_relevance(
    predictor: PosePredictor, window: Tensor, target: int, model: nn.Module | None = None
) -> Tensor:
    """Return by how much the probability of a window (T, P * 17, 3) falls where a part of the
    person is not seen around a moment, (T, 13).

    Args:
        model: in place of the predictor's own.
    """
    T = len(window)
    changed = []
    for moment in range(T):
        near = slice(max(0, moment - NEAR), moment + NEAR + 1)
        for keypoints in PARTS:
            hidden = window.clone()
            hidden[near, list(keypoints)] = 0
            changed.append(hidden)
    shown = torch.stack([window, *changed])
    probabilities = _window_probabilities(predictor, shown, target, model)
    return (probabilities[0] - probabilities[1:]).view(T, len(PARTS))


def window_checks(
    predictor: PosePredictor,
    window: Tensor,
    target: int,
    relevance: Tensor,
    *,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
) -> MapChecks:
    """Say whether a map (T, 13) of a window (T, P * 17, 3) deserves to be believed.

    Args:
        random_maps: that it is compared with.
        seed: of the random maps and of the shuffled weights.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = shuffled_weights(predictor.model, generator)
    return check_window_map(
        lambda windows: _window_probabilities(predictor, windows, target),
        window,
        relevance,
        random_maps=random_maps,
        shuffled_map=window_relevance(predictor, window, target, shuffled),
        generator=generator,
    )


def window_faithfulness(
    predictor: PosePredictor,
    window: Tensor,
    target: int,
    relevance: Tensor,
    *,
    steps: int = 10,
    random_maps: int = 3,
    seed: int = 0,
) -> Faithfulness:
    """Measure a map (T, 13) of a window (T, P * 17, 3) by leaving parts out in its order, and
    random maps beside it (deletion and insertion, Petsiuk et al., 2018, section 4.3)."""
    generator = torch.Generator().manual_seed(seed)
    maps = [
        relevance,
        *(torch.rand(relevance.shape, generator=generator) for _ in range(random_maps)),
    ]
    areas = []
    for scores in maps:
        order = scores.flatten().argsort(descending=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        curves = []
        for first_out in (True, False):
            shown = []
            for step in range(steps + 1):
                first = (rank < round(step / steps * len(rank))).view(relevance.shape)
                shown.append(with_parts(window, ~first if first_out else first))
            probabilities = _window_probabilities(predictor, torch.stack(shown), target)
            curves.append(float(torch.trapezoid(probabilities.double(), dx=1 / steps)))
        areas.append(curves)
    others = torch.tensor(areas[1:]).mean(0)
    return Faithfulness(
        deletion=areas[0][0],
        insertion=areas[0][1],
        random_deletion=float(others[0]),
        random_insertion=float(others[1]),
    )


def _window_probabilities(
    predictor: PosePredictor, windows: Tensor, target: int, model: nn.Module | None = None
) -> Tensor:
    """Return the probability of a known action for each window, (W,)."""
    network = predictor.model if model is None else model
    logits = outputs_of(network, windows, batch_size=64, device=predictor.device)["logits"]
    known = predictor.probabilities(logits)[:, predictor.known]
    return known[:, target] / known.sum(-1)


def _video_probability(predictor: PosePredictor, clips: PoseClips, target: int) -> float:
    """Return the probability of a known action for the whole video."""
    logits = outputs_of(predictor.model, clips.clips, batch_size=64, device=predictor.device)
    known = fuse(predictor.probabilities(logits["logits"])[:, predictor.known], clips)
    return float(known[target] / known.sum())


def explain_pose_video(
    predictor: PosePredictor,
    video: str | Path,
    out: Path,
    *,
    blur: Blur | None = None,
    label: str | None = None,
) -> dict[str, Any]:
    """Write `index.html`, `joints.png` and `explanation.json` for a video into a folder.

    Args:
        blur: makes people unrecognisable in the pictures; the model sees them as they are.

    Returns:
        What `explanation.json` holds.

    Raises:
        VideoError: if the video cannot be read.
        UserError: if the label is unknown.
    """
    found = predictor.read(video)
    prediction = predictor.predict_tracks(found)
    explanation = explain_poses(predictor, found, label=label)
    facts: dict[str, Any] = {
        "video": str(video),
        "model": predictor.name,
        "headline": prediction.headline,
        "label": prediction.top(1)[0][0],
        "map": "occlusion",
        "probability": 1.0,
        "faithfulness": None,
    }
    out.mkdir(parents=True, exist_ok=True)
    if explanation is None:
        write_json(out / "explanation.json", facts, indent=1)
        write_text(out / "index.html", _page_of_nobody(facts))
        return facts

    facts |= {
        "label": explanation.label,
        "probability": round(explanation.probability, 4),
        "person": explanation.track,
        "window_seconds": [round(explanation.start_seconds, 3), round(explanation.end_seconds, 3)],
        "joints": {name: round(fall, 4) for name, fall in explanation.parts.items()},
        "moments": [
            {
                "start_seconds": round(start, 3),
                "end_seconds": round(end, 3),
                "importance": round(fall, 4),
            }
            for start, end, fall in explanation.moments
        ],
        "faithfulness": explanation.faithfulness.to_dict(),
        "checks": explanation.checks.to_dict(),
        "verdict": describe_checks(explanation.checks, middle="a map of the middle moments"),
    }
    sheet = draw_sheet(video, found, explanation, predictor.sampling.fps, blur)
    write_bytes(out / "joints.png", png(sheet))
    write_json(out / "explanation.json", facts, indent=1)
    write_text(out / "index.html", _page(facts, explanation, prediction, sheet))
    return facts


def draw_sheet(
    video: str | Path,
    found: PoseTracks,
    explanation: PoseExplanation,
    fps: float,
    blur: Blur | None = None,
) -> Image.Image:
    """Draw the person of the window with most to say on one sheet, see `drawn_moments`."""
    times, pictures = drawn_moments(video, found, explanation, fps, blur)
    return contact_sheet(
        pictures,
        [clock(second) for second in times],
        title=f"person {explanation.track}: {explanation.label} {explanation.probability:.0%}",
    )


def drawn_moments(
    video: str | Path,
    found: PoseTracks,
    explanation: PoseExplanation,
    fps: float,
    blur: Blur | None = None,
) -> tuple[list[float], Tensor]:
    """Draw the person of the window with most to say: the larger and warmer a joint, the more the
    answer depends on it then.

    Args:
        fps: moments a second of the window.
        blur: makes people unrecognisable.

    Returns:
        Times in seconds, and a uint8 picture (3, H, W) for each.

    Raises:
        VideoError: if the video cannot be read.
    """
    T = len(explanation.relevance)
    moments = [round(n * (T - 1) / (FRAMES - 1)) for n in range(FRAMES)]
    times = [explanation.start_seconds + moment / fps for moment in moments]
    with open_video(video) as reader:
        wanted = [min(max(second, 0.0), reader.duration_seconds) for second in times]
        indices = reader.indices_at_seconds(wanted)
        chosen = sorted(set(indices))
        clip = reader.frames_at(chosen)
    frames = clip.frames if blur is None else blur.pictures(clip.frames)
    frame_of = dict(zip(chosen, frames, strict=True))

    largest = float(explanation.relevance.clamp_min(0).max().clamp_min(1e-6))
    poses = [
        next((p for p in found.at(second) if p.number == explanation.track), None)
        for second in wanted
    ]
    top, left, side = _region([pose for pose in poses if pose is not None], found)
    pictures = []
    for index, moment, pose in zip(indices, moments, poses, strict=True):
        frame = frame_of[index][:, top : top + side, left : left + side]
        picture = enlarged(frame)
        if pose is not None:
            scale = picture.shape[-1] / frame.shape[-1]
            points = torch.from_numpy(pose.keypoints).float()
            points[:, :2] = (points[:, :2] * found.height - torch.tensor([left, top])) * scale
            weights = explanation.relevance[moment].clamp_min(0) / largest
            of_keypoint = torch.zeros(NUM_KEYPOINTS)
            for number, keypoints in enumerate(PARTS):
                # the head is one part; its weight is drawn at the nose
                of_keypoint[keypoints[0]] = weights[number]
            picture = draw_joint_weights(picture, points, of_keypoint, BONES)
        pictures.append(picture)
    return wanted, torch.stack(pictures)


def _region(poses: Sequence[Pose], found: PoseTracks) -> tuple[int, int, int]:
    """Return top, left and side of a square, in pixels, around one person; all of it lies in the
    frame where the frame is large enough."""
    whole = min(found.height, found.width)
    if not poses:
        return 0, 0, whole
    boxes = torch.stack([torch.from_numpy(pose.box_xyxy).float() for pose in poses]) * found.height
    low, high = boxes[:, :2].amin(0), boxes[:, 2:].amax(0)
    side = min(whole, int(float((high - low).max()) * (1 + 2 * MARGIN)) + 2)
    middle = ((low + high) / 2).tolist()
    left = int(min(max(middle[0] - side / 2, 0), found.width - side))
    top = int(min(max(middle[1] - side / 2, 0), found.height - side))
    return top, left, side


def _page_of_nobody(facts: dict[str, Any]) -> str:
    return _document(
        "No person",
        f"<p>{html.escape(Path(facts['video']).name)}: {html.escape(facts['headline'])}. There is "
        "nothing to explain.</p>",
    )


def _page(
    facts: dict[str, Any], found: PoseExplanation, prediction: Prediction, sheet: Image.Image
) -> str:
    scores = facts["faithfulness"]
    kind = "good" if found.checks.passed else "bad"
    verdict = f"<b class='{kind}'>{html.escape(facts['verdict'])}</b>"
    names = sorted(found.parts, key=lambda name: -found.parts[name])
    return _document(
        title_of(found.label, found.probability),
        f"""<p>{html.escape(facts["model"])} says of {html.escape(Path(facts["video"]).name)}:
<b>{html.escape(prediction.headline)}</b>. Below: what the probability of
“{html.escape(found.label)}” ({found.probability:.0%}) depends on. Parts and moments are left out
as if the pose network had not found them, and the whole video is answered again.</p>
<h2>Which joints</h2>
<p>By how much the probability falls without each part of the body; red: it rises.</p>
{bars([found.parts[name] for name in names], names, width=80 * len(names))}
<h2>Which moments</h2>
<p>By how much it falls when nobody is seen in a stretch of time (starting at).</p>
{bars([fall for _, _, fall in found.moments], [clock(start) for start, _, _ in found.moments])}
<h2>When and where</h2><p>Person {found.track}, in the window that had most to say
({clock(found.start_seconds)} to {clock(found.end_seconds)}): the larger and warmer a joint, the
more the window's answer depends on it around that moment.</p>{picture_tag(sheet, "joints")}
<h2>Faithfulness of the map</h2>
<table><tr><th></th><th>this map</th><th>random maps</th><th>better is</th></tr>
<tr><td>deletion (marked joints left out first)</td><td>{scores["deletion"]:.3f}</td>
<td>{scores["random_deletion"]:.3f}</td><td>lower</td></tr>
<tr><td>insertion (marked joints shown first)</td><td>{scores["insertion"]:.3f}</td>
<td>{scores["random_insertion"]:.3f}</td><td>higher</td></tr></table><p>{verdict}</p>""",
    )


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{body}</html>"
    )
