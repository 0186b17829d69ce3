"""The answer to an uploaded video: the JSON of the commands for the API; for the page a verdict,
frames, where the model looked and why, the timeline and the people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from torch import Tensor

from marey.errors import UserError
from marey.explain.attention import explain_clip, lay_over
from marey.explain.poses import drawn_moments, explain_poses
from marey.explain.report import background_share, caution
from marey.inference.annotate import draw_persons, poses_at
from marey.inference.condition import condition_of, with_condition
from marey.inference.detector import Detections, Detector
from marey.inference.poses import PosePredictor
from marey.inference.prediction import Prediction
from marey.inference.predictor import Predictor
from marey.inference.timeline import Segment, pose_timeline, timeline
from marey.labels.embed import readable
from marey.metrics.trust import UNLIKE
from marey.persons.blur import Blur
from marey.persons.pose_tracks import PoseTracks
from marey.video.decode import open_video
from marey.web.inspection import Facts
from marey.web.people import follow_people, people_of_detections, people_of_tracks
from marey.web.pictures import shrink, write_picture
from marey.web.task import Task
from marey.web.verdict import Verdict, percent, sentence, verdict

TIMELINE_FROM_SECONDS = 4.0
"""Shorter videos get no timeline."""
SHOWN_SIDE = 320
"""Side of the frames the page shows, in pixels."""
POSE_FRAMES = 8
"""Frames shown of a model that reads poses."""
EXPLAINED_WINDOWS = 16
"""Windows with most to say that are asked again to find what decided; bounds the time."""
CHECKED_MAPS = 40
"""Random maps that the map of joints is checked against: p = 1 / 21 at the least."""
TOP_DETECTED = 3


def answer_video(task: Task) -> dict[str, Any]:
    """Answer with a model; for the page the verdict is handed out before the rest is there."""
    facts = task.facts()
    answerer = task.model()
    task.stage("looking at the video")
    if isinstance(answerer, Detector):
        return _detected(task, answerer, facts)

    found: PoseTracks | None = None
    if isinstance(answerer, PosePredictor):
        # the second reading of the file goes beside the first one
        with ThreadPoolExecutor(1) as beside:
            condition = beside.submit(condition_of, task.upload, max_pixels=task.limits.max_pixels)
            found = follow_people(task, facts.num_frames, facts.fps)
        prediction = with_condition(answerer.predict_tracks(found), condition.result())
    else:
        prediction = answerer(task.upload, max_pixels=task.limits.max_pixels)
    entry = prediction.to_dict(task.options.get("top", 5)) | {"video": task.request["name"]}
    document = {"model": task.request["model_name"], "results": [entry]}
    if not task.options.get("page"):
        return document

    task.part(**_first(prediction, facts))
    if found is not None and isinstance(answerer, PosePredictor):
        people = people_of_tracks(found, prediction.persons, prediction.class_names)
        task.part(**people)
        task.part(frames=_posed_frames(task, found, prediction))
        if facts.seconds >= TIMELINE_FROM_SECONDS:
            task.part(timeline=_named(pose_timeline(answerer, found)))
        if not prediction.nobody:
            task.part(decided=_decided(task, answerer, found, prediction))
    elif isinstance(answerer, Predictor):
        task.part(**_seen_frames(task, answerer, prediction))
        if facts.seconds >= TIMELINE_FROM_SECONDS:
            task.stage("following the time")
            task.part(timeline=_named(timeline(answerer, task.upload)))
    return document


def _named(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return segments as the page writes them."""
    return [segment.to_dict() | {"label": readable(segment.label)} for segment in segments]


def _first(prediction: Prediction, facts: Facts) -> dict[str, Any]:
    """Return the verdict and what belongs beside it."""
    pairs = [(readable(label), p) for label, p in prediction.top(5)]
    nobody = prediction.nobody
    said = verdict(pairs, prediction.trust, len(prediction.class_names), nobody=nobody)
    return {
        "verdict": said.to_dict(),
        "predictions": [] if nobody else [{"label": n, "probability": p} for n, p in pairs],
        "why": reasons(prediction, nobody=nobody),
        "warnings": warnings_of(prediction.trust, facts),
        "seconds": facts.seconds,
    }


def reasons(prediction: Prediction, *, nobody: bool = False) -> list[str]:
    """Return what the verdict rests on, one sentence each."""
    trust = prediction.trust
    if nobody:
        return []  # the verdict says it
    said = []
    agreement, views = trust.get("agreement"), len(prediction.clips)
    if agreement is not None and math.isfinite(agreement) and (views > 1 or prediction.persons):
        what = f"{views} views of the video" if views > 1 else "moments of the video, by weight,"
        said.append(f"{round(100 * agreement)} % of the {what} agree on the first answer.")
    if trust.get("unknown") and trust.get("reason"):
        said.append(f"Unknown: {_of_the_video(trust['reason'])}.")
    elif trust.get("unknown") is False:
        said.append("The video is not unlike those the model was trained on.")
    if len(trust.get("set") or ()) == 1:
        said.append("At nine videos in ten, the one answer in its prediction set is right.")
    if len(prediction.persons) > 1:
        first = prediction.persons[0]
        said.append(
            f"Person {first.track} decides most: larger, clearer and more active people count more."
        )
    return said


def warnings_of(trust: dict[str, Any], facts: Facts) -> list[str]:
    """Return what speaks against any answer to this file or of this model, one sentence each."""
    said = []
    if facts.damaged:
        said.append(
            f"The file is damaged ({facts.damaged}); only the {facts.seconds:.1f} s that can be "
            "read were looked at."
        )
    elif trust.get("damaged"):
        said.append(f"The model's trust data are damaged: {trust['damaged']}.")
    if trust.get("still"):
        said.append("This is one still picture: nothing moves, so no answer can be relied on.")
    elif trust.get("not_calibrated"):
        said.append(f"No trust data for this answer: {trust['not_calibrated']}.")
    if trust.get("warning") and trust.get("reason") != UNLIKE:  # else it is said among the reasons
        said.append(f"{sentence(_of_the_video(str(trust['warning'])))}.")
    return said


def _of_the_video(said: str) -> str:
    """Return what is said of a video as a sentence about it.

    >>> _of_the_video("looks unlike the training videos"), _of_the_video("nothing moves")
    ('the video looks unlike the training videos', 'nothing moves')
    """
    return f"the video {said}" if said.startswith(("looks ", "stands ")) else said


# ---- models of pictures ----


def _seen_frames(task: Task, predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
    """Write the middle view's frames as the model saw them, with and without what it attended to.

    Both have one crop; it is taken from the full frames, so that people can see what is on it.
    """
    clip = prediction.clips[len(prediction.clips) // 2]
    task.stage("drawing the frames")
    preprocess = predictor.preprocess
    larger = max(1.0, SHOWN_SIDE / preprocess.image_size)
    shown = replace(
        preprocess,
        short_side=math.ceil(preprocess.short_side * larger),
        image_size=round(preprocess.image_size * larger),
    )
    frames = shown.geometry(task.blurred(clip.frames), 1)[0]
    try:
        relevance, _ = explain_clip(predictor, clip.frames)
        maps: Tensor | None = lay_over(frames, relevance)
        glow = caution(background_share(relevance, shown.geometry(clip.frames, 1)[0]))
    except UserError:
        maps, glow = None, None
    written = []
    for number, seconds in enumerate(clip.frame_seconds):
        names = {"file": write_picture(frames[number], task.folder / f"frame-{number}.jpg")}
        if maps is not None:
            names["map"] = write_picture(maps[number], task.folder / f"map-{number}.jpg")
        written.append({"seconds": round(seconds, 3), **names})
    looked = (
        "Warm and bright: where the model's attention lies in this frame; dark and grey: where it "
        "does not. One scale for all frames."
        if maps is not None
        else "This model has no attention to show."
    )
    return {"frames": written, "looked": f"{looked} {glow}" if glow else looked}


# ---- models of poses ----


def _posed_frames(task: Task, found: PoseTracks, prediction: Prediction) -> list[dict[str, Any]]:
    """Write frames spread over the video, plain and with the skeletons that the model read."""
    task.stage("drawing the frames")
    with open_video(task.upload, max_pixels=task.limits.max_pixels) as reader:
        count = min(POSE_FRAMES, reader.num_frames)
        wanted = [int((place + 0.5) * reader.num_frames / count) for place in range(count)]
        clip = reader.frames_at(wanted)
    frames = shrink(task.blurred(clip.frames), SHOWN_SIDE)
    decided = {person.track for person in prediction.persons[:1]}
    written: list[dict[str, Any]] = []
    for number, seconds in enumerate(clip.frame_seconds):
        name = write_picture(frames[number], task.folder / f"frame-{number}.jpg")
        written.append({"seconds": round(seconds, 3), "file": name})
        if not found.tracks:
            continue
        people = poses_at(found, seconds)
        first = [person for person in people if person.track in decided] or people
        drawn = draw_persons((frames[number].float() * 0.55).byte(), first)
        written[-1]["map"] = write_picture(drawn, task.folder / f"map-{number}.jpg")
    task.part(
        looked="The skeleton of the person who decides most: the model reads nothing else, no "
        "background and no clothes."
    )
    return written


def _decided(
    task: Task, predictor: PosePredictor, found: PoseTracks, prediction: Prediction
) -> dict[str, Any] | None:
    """Return which parts of the body and which moments the first answer depends on, and pictures of
    them; None where nobody was found."""

    def tick() -> None:
        task.stage("finding what decided")

    explanation = explain_poses(
        predictor, found, max_windows=EXPLAINED_WINDOWS, random_maps=CHECKED_MAPS, tick=tick
    )
    if explanation is None:
        return None
    kind = task.request.get("blur")
    blur = None if kind is None else Blur(kind)
    times, pictures = drawn_moments(task.upload, found, explanation, predictor.sampling.fps, blur)
    parts = sorted(explanation.parts.items(), key=lambda pair: -pair[1])
    return {
        "label": readable(explanation.label),
        "unknown": bool(prediction.trust.get("unknown")),
        "probability": round(explanation.probability, 4),
        "track": explanation.track,
        "parts": [{"name": name, "fall": round(fall, 4)} for name, fall in parts],
        "moments": [
            {"start_seconds": round(start, 3), "end_seconds": round(end, 3), "fall": round(fall, 4)}
            for start, end, fall in explanation.moments
        ],
        "confirmed": explanation.checks.passed,
        "frames": [
            {
                "seconds": round(seconds, 3),
                "file": write_picture(
                    shrink(picture[None], SHOWN_SIDE)[0], task.folder / f"decided-{number}.jpg"
                ),
            }
            for number, (seconds, picture) in enumerate(zip(times, pictures, strict=True))
        ],
    }


# ---- detectors ----


def _detected(task: Task, detector: Detector, facts: Facts) -> dict[str, Any]:
    found = detector(task.upload)
    entry = found.to_dict(min(task.options.get("top", TOP_DETECTED), len(found.class_names)))
    document = {
        "model": task.request["model_name"],
        "results": [entry | {"video": task.request["name"]}],
    }
    if task.options.get("page"):
        people = people_of_detections(found)
        task.part(
            verdict=detection_verdict(found, people["people"]).to_dict(),
            predictions=[],
            why=["Each person is named alone; the probabilities are not calibrated."],
            warnings=warnings_of({}, facts),
            seconds=facts.seconds,
            **people,
        )
    return document


def detection_verdict(found: Detections, people: Sequence[dict[str, Any]]) -> Verdict:
    """Return the headline of a detector: how many people, and what the one seen longest does."""
    if not people:
        return verdict([], {}, len(found.class_names), nobody=True)
    most = max(len(moment.persons) for moment in found.moments)
    longest = max(people, key=lambda person: person["to_seconds"] - person["from_seconds"])
    said = longest["says"]
    who = "1 person" if most == 1 else f"{most} people at once"
    if said is None or said["probability"] < 0.3:
        return Verdict(
            kind="unsure",
            headline=f"{who}; unsure what they do",
            advice="No action is likely for the one seen longest; play the video to see the boxes.",
        )
    return Verdict(
        kind="sure",
        headline=f"{who}: {said['label']}, {percent(said['probability'])}",
        advice="The action is that of the person seen longest; play the video to see everyone.",
    )
