"""`marey detect`: persons, their actions and boxes, second by second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marey.cli.options import Blur, Device, Json, Persons, Videos
from marey.cli.output import print_json, progress, say

if TYPE_CHECKING:
    from marey.inference.crop_detector import CropDetector
    from marey.inference.detector import Detections, Detector
    from marey.inference.kept_results import KeptResults
    from marey.inference.pose_detector import PoseDetector


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(detect)


def detect(
    videos: Videos,
    model: Annotated[
        str,
        typer.Option(
            help="Model of poses, one that detects, or one of clips (your own), which is asked "
            "about each tracked person cut out: a name or a folder."
        ),
    ] = "marey-mini",
    persons: Persons = "auto",
    every: Annotated[float, typer.Option(help="Seconds between key frames.")] = 1.0,
    min_score: Annotated[
        float, typer.Option(help="With own boxes: smallest person score, 0 to 1.")
    ] = 0.3,
    top: Annotated[int, typer.Option(min=1, help="Actions per person.")] = 3,
    device: Device = "auto",
    save_annotated: Annotated[
        Path | None, typer.Option(help="Write the video with boxes, skeletons and actions.")
    ] = None,
    blur: Blur = None,
    ava_csv: Annotated[
        Path | None, typer.Option(help="Write rows in AVA's challenge format.")
    ] = None,
    json: Json = False,
) -> None:
    """Follow every person through the video, and name what each does once a second."""
    from marey.errors import UserError
    from marey.inference.kept_results import KeptResults
    from marey.inference.load import load_detector
    from marey.inference.predictor import videos_in
    from marey.persons.blur import load_blur

    paths = videos_in(videos)
    if save_annotated is not None and len(paths) > 1:
        raise UserError(
            f"--save-annotated names one file, but there are {len(paths)} videos; give one video"
        )
    blurring = load_blur(blur)
    detector = load_detector(model, persons=persons, min_score=min_score, device=device)
    # rows in AVA's format are made of more than what is kept
    kept = KeptResults(
        model,
        0 if ava_csv is not None else len(paths),
        what="detect",
        persons=persons,
        min_score=min_score,
        every=every,
        top=top,
    )
    found = _detect_all(detector, paths, every, top, kept, json)
    kept.remove()
    if json:
        print_json({"model": model, "persons": persons, "results": [entry for _, entry in found]})
    answers = [detections for detections, _ in found if detections is not None]
    if ava_csv is not None:
        _write_ava(detector, answers, ava_csv)
    if save_annotated is not None and answers:
        from marey.inference.annotate import annotate_persons

        annotate_persons(answers[0].video, save_annotated, answers[0], blur=blurring)
        say(f"wrote {save_annotated}")
    if any(entry["error"] for _, entry in found):
        raise typer.Exit(1)


def _detect_all(
    detector: Detector | PoseDetector | CropDetector,
    paths: list[Path],
    every: float,
    top: int,
    kept: KeptResults,
    json: bool,
) -> list[tuple[Detections | None, dict[str, Any]]]:
    from marey.errors import VideoError

    found: list[tuple[Detections | None, dict[str, Any]]] = []
    for path in progress(paths, "detect", len(paths)):
        stored = kept.get(path)
        if stored is not None:
            found.append((None, stored["entry"]))
            if not json:
                print(stored["text"], flush=True)
            continue
        try:
            detections = detector(path, every_seconds=every)
        except VideoError as error:
            say(f"marey: {error}")
            found.append(
                (None, {"video": str(path), "moments": [], "tracks": [], "error": str(error)})
            )
            continue
        found.append((detections, detections.to_dict(top)))
        text = _describe(detections, top)
        kept.put(path, {"entry": found[-1][1], "text": text})
        if not json:
            print(text, flush=True)
    return found


def _describe(detections: Detections, top: int) -> str:
    from marey.video.draw import clock

    lines = [detections.video]
    for moment in detections.moments:
        lines.append(
            f"  {clock(moment.seconds)}  " + ("nobody found" if not moment.persons else "")
        )
        for person in moment.persons:
            x1, y1, x2, y2 = (
                round(v * side)
                for v, side in zip(
                    person.box_xyxy_norm, (detections.width, detections.height) * 2, strict=True
                )
            )
            actions = ", ".join(f"{label} {p:.0%}" for label, p in detections.top(person, top))
            if person.unknown:
                actions = f"unknown (nearest: {actions})"
            elif not actions:
                actions = "seen too briefly to say"
            lines.append(f"    person {person.track:<3} ({x1},{y1})-({x2},{y2})  {actions}")
    return "\n".join(lines)


def _write_ava(
    detector: Detector | PoseDetector | CropDetector, answers: list[Detections], path: Path
) -> None:
    import numpy as np

    from marey.datasets.ava_format import (
        AVA_60_CLASSES,
        rows_from_arrays,
        write_box_rows,
        write_label_map,
    )

    parts = [detections.rows(detector.class_ids) for detections in answers]
    starts = np.cumsum([0, *(len(part.keys) for part in parts)])
    rows = (
        rows_from_arrays(
            [key for part in parts for key in part.keys],
            np.concatenate(
                [part.image + start for part, start in zip(parts, starts, strict=False)]
            ),
            np.concatenate([part.boxes_xyxy_norm for part in parts]),
            np.concatenate([part.class_ids for part in parts]),
            np.concatenate([part.last for part in parts]),
        )
        if parts
        else None
    )
    if rows is None:
        return
    write_box_rows(path, rows)
    say(f"wrote {path}")
    labels = dict(zip(detector.class_ids, detector.class_names, strict=True))
    if not set(labels) <= set(AVA_60_CLASSES) or any(
        AVA_60_CLASSES[n] != name for n, name in labels.items()
    ):
        write_label_map(path.with_suffix(".pbtxt"), labels)
        say(f"wrote {path.with_suffix('.pbtxt')} (the action ids are this model's, not AVA's)")
