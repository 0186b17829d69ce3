"""`marey predict`: the actions in video files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marey.cli.options import Blur as BlurOption
from marey.cli.options import Device, Json, Model, Videos
from marey.cli.output import print_json, progress, say
from marey.errors import UserError

if TYPE_CHECKING:
    from marey.inference.kept_results import KeptResults
    from marey.inference.poses import PosePredictor
    from marey.inference.prediction import Prediction
    from marey.inference.predictor import Predictor, VideoPredictor
    from marey.inference.timeline import Segment
    from marey.persons.blur import Blur
    from marey.persons.pose_tracks import PoseTracks


PERSONS_SHOWN = 5
"""People whose own answers are printed."""


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(predict)


def predict(
    videos: Videos,
    model: Model = "marey-mini",
    top: Annotated[int, typer.Option(min=1, help="Answers per video.")] = 5,
    labels: Annotated[
        str | None, typer.Option(help="Rank these comma-separated names, never trained on.")
    ] = None,
    features: Annotated[
        bool, typer.Option(help="Answer from frame and sound features (GAT models).")
    ] = False,
    threshold: Annotated[
        float, typer.Option(help="With --features: smallest score shown, 0 to 1.")
    ] = 0.2,
    timeline: Annotated[
        bool, typer.Option(help="Slide a window over each video: time-stamped segments.")
    ] = False,
    window: Annotated[float, typer.Option(help="With --timeline: window length in seconds.")] = 2.0,
    step: Annotated[float, typer.Option(help="With --timeline: seconds between windows.")] = 1.0,
    trust: Annotated[
        str, typer.Option(help="basic, or full: also stability under mild corruptions.")
    ] = "basic",
    views: Annotated[int, typer.Option(min=1, help="Temporal views averaged per video.")] = 3,
    device: Device = "auto",
    max_pixels: Annotated[
        int | None, typer.Option(help="Refuse frames with more pixels than this.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Refuse videos longer than this, in seconds.")
    ] = None,
    save_annotated: Annotated[
        Path | None, typer.Option(help="Write the video with its answers drawn on it.")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Write a picture of the sampled frames.")
    ] = None,
    blur: BlurOption = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also write the answers (or segments) as CSV.")
    ] = None,
    srt: Annotated[
        Path | None, typer.Option(help="With --timeline on one video: write subtitles.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: spread a folder over workers, into --out.")
    ] = "local",
    out: Annotated[
        Path | None, typer.Option(help="With --engine ray: folder of Parquet files.")
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(help="Copy each video into a folder below this one, named by its answer."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what people do in each video, and how far the answer can be trusted.

    Exit status 1: some videos could not be read (they are named); the others are answered.
    """
    _refuse_ignored({"--srt": srt}, "without --timeline" if not timeline else None)
    _refuse_ignored({"--out": out}, "without --engine ray" if engine != "ray" else None)
    drawn = {"--contact-sheet": contact_sheet, "--sort-into": sort_into}
    clips_only = {
        "--labels": labels,
        "--save-annotated": save_annotated,
        "--csv": csv,
        "--srt": srt,
    }
    _refuse_ignored({**drawn, **clips_only}, "with --features" if features else None)
    _refuse_ignored({**drawn, "--labels": labels}, "with --timeline" if timeline else None)
    if contact_sheet is not None:
        from marey.video.draw import check_picture

        check_picture(contact_sheet)
    if engine == "ray":
        from marey.inference.corpus import predict_corpus

        raise typer.Exit(
            predict_corpus(videos, model=model, out=out, top=top, views=views, say=say)
        )
    if engine != "local":
        raise UserError(f"--engine '{engine}' is neither 'local' nor 'ray'")
    if features:
        raise typer.Exit(_predict_features(videos, model, threshold, top, json))
    from marey.inference.kept_results import KeptResults
    from marey.inference.predictor import Predictor, videos_in

    names = _split_labels(labels)
    paths = videos_in(videos)
    if (srt or save_annotated or contact_sheet) and len(paths) != 1:
        raise UserError(
            f"--srt, --save-annotated and --contact-sheet take one video, got {len(paths)}; "
            "run the command once for each"
        )
    from marey.persons.blur import load_blur

    blurring = load_blur(blur)
    limits = {"max_pixels": max_pixels, "max_seconds": max_seconds}
    if timeline:
        from marey.inference.load import load_window_predictor

        predictor = load_window_predictor(model, device=device)
        kept = KeptResults(
            model,
            0 if save_annotated is not None else len(paths),
            what="timeline",
            window=window,
            step=step,
            **limits,
        )
        status = _timeline(
            predictor, paths, window, step, limits, csv, srt, save_annotated, blurring, kept, json
        )
        kept.remove()
        raise typer.Exit(status)
    answerer = Predictor.load(model, views=views, device=device)
    options = {"labels": names, "trust": trust, **limits}
    kept = KeptResults(model, len(paths), what="predict", top=top, views=views, **options)
    results = _predict_paths(answerer, paths, top, options, kept, json)
    if results[0][0] is not None:
        _draw(paths[0], results[0][0], save_annotated, contact_sheet, blurring)
    if sort_into is not None:
        _sort([entry for _, entry in results], sort_into)
    if csv:
        _write_csv(csv, [entry for _, entry in results])
        say(f"wrote {csv}")
    if json:
        print_json({"model": answerer.name, "results": [entry for _, entry in results]})
    kept.remove()
    if any(entry["error"] for _, entry in results):
        raise typer.Exit(1)


def _refuse_ignored(given: dict[str, Any], where: str | None) -> None:
    """Refuse options that would have no effect.

    Raises:
        UserError: if one of them is given.
    """
    ignored = [name for name, value in given.items() if value is not None]
    if where is not None and ignored:
        raise UserError(f"{', '.join(ignored)} {where} would have no effect; leave it out")


def _split_labels(labels: str | None) -> list[str] | None:
    if labels is None:
        return None
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if not names:
        raise UserError(
            "--labels is empty; give names separated by commas, e.g. --labels 'riding a "
            "bike,juggling'"
        )
    return names


def _predict_paths(
    predictor: VideoPredictor,
    paths: list[Path],
    top: int,
    options: dict[str, Any],
    kept: KeptResults,
    json: bool,
) -> list[tuple[Prediction | None, dict[str, Any]]]:
    from marey.inference.predictor import predict_many

    results = []
    for prediction, entry in progress(
        predict_many(predictor, paths, top=top, kept=kept, **options), "predict", len(paths)
    ):
        results.append((prediction, entry))
        if entry["error"]:
            say(f"marey: {entry['error']}")
        elif not json:
            print(_describe(entry), flush=True)
    return results


def _draw(
    path: Path,
    prediction: Prediction,
    annotated: Path | None,
    sheet: Path | None,
    blur: Blur | None,
) -> None:
    from marey.files import atomic
    from marey.inference.annotate import annotate_video, shown_frames
    from marey.video.draw import clock, contact_sheet

    unknown = bool(prediction.trust.get("unknown"))
    if annotated is not None:
        annotate_video(
            path,
            annotated,
            prediction.top(3),
            "unknown action; nearest guesses:" if unknown else "",
            poses=prediction.poses,
            captions={
                person.track: person.caption(prediction.class_names)
                for person in prediction.persons
            },
            blur=blur,
        )
        say(f"wrote {annotated}")
    if sheet is not None:
        label, probability = prediction.top(1)[0]
        frames, times = shown_frames(path, prediction, blur)
        picture = contact_sheet(
            frames,
            [clock(seconds) for seconds in times],
            title=f"{'unknown; nearest: ' if unknown else ''}{label} {probability:.0%}",
        )
        with atomic(sheet) as temporary:
            picture.save(temporary)
        say(f"wrote {sheet}")


def _describe(entry: dict[str, Any]) -> str:
    from marey.cli.output import counted
    from marey.inference.prediction import NO_PERSON, UNSEEN
    from marey.video.draw import clock

    trust = entry["trust"]
    lines = [
        f"{entry['video']}  ({counted(len(entry['frame_seconds']), 'frame')}, "
        f"{clock(entry['frame_seconds'][0])} to {clock(entry['frame_seconds'][-1])})"
    ]
    if trust.get("still"):
        lines.append(f"  STILL: {trust['not_calibrated']}, so no action can be seen")
    if trust.get("damaged"):
        lines.append(f"  DAMAGED: {trust['damaged']}")
    if trust.get("warning"):
        lines.append(f"  WARNING: the video {trust['warning']}")
    label = entry["predictions"][0]["label"]
    if label in (NO_PERSON, UNSEEN):
        return "\n".join([*lines, f"  {label.upper()}: {trust['reason']}"])
    if trust.get("unknown"):
        lines.append(f"  UNKNOWN: {_why_unknown(trust)}; its nearest guesses:")
    elif trust.get("rejected"):
        lines.append(f"  NOT ANSWERED: {_why_rejected(trust['rejection'])}; its nearest guesses:")
    lines += [
        f"  {answer['probability']:6.1%}  {'#' * round(30 * answer['probability']):<30}  "
        f"{answer['label']}"
        for answer in entry["predictions"]
    ]
    if len(trust.get("set", ())) > 1 and not trust["unknown"]:
        lines.append(f"  one of: {', '.join(trust['set'])}  (nine times in ten)")
    lines += _persons_lines(entry.get("persons", ()))
    of_what = "windows" if "persons" in entry else "views"
    lines.append("  trust: " + ", ".join(_trust_words(trust, of_what)))
    return "\n".join(lines)


def _persons_lines(persons: Sequence[dict[str, Any]]) -> list[str]:
    """Say what each of several people does, the one with most to say first."""
    from marey.video.draw import clock

    if len(persons) < 2:
        return []
    lines = []
    for person in persons[:PERSONS_SHOWN]:
        best = person["predictions"][0]
        does = "unknown" if person["unknown"] else f"{best['label']} {best['probability']:.0%}"
        start, end = clock(person["start_seconds"]), clock(person["end_seconds"])
        lines.append(f"  person {person['track']:<3} {start} to {end}  {does}")
    if len(persons) > PERSONS_SHOWN:
        lines.append(f"  and {len(persons) - PERSONS_SHOWN} more people (--json lists them)")
    return lines


def _why_rejected(rejection: dict[str, Any]) -> str:
    return (
        f"too unsure, below {rejection['threshold']:.2f}; above it {rejection['accuracy']:.0%} of "
        f"{rejection['num_videos']} measured videos are right, {rejection['coverage']:.0%} answered"
    )


def _why_unknown(trust: dict[str, Any]) -> str:
    if trust.get("none_of_these"):
        return f"none of the names given; nearer is '{trust['nearest_other']}'"
    if trust.get("ood_score") is not None and trust["ood_score"] <= trust["ood_threshold"]:
        return str(trust["reason"])
    if "far" not in trust:
        return (
            f"{trust.get('reason') or 'unlike the training data'} (OOD score "
            f"{trust['ood_score']:.2f}, limit {trust['ood_threshold']:.2f})"
        )
    kind = "far" if trust["far"] > trust["far_threshold"] else "near"
    return (
        f"{trust['reason']} ({trust[f'{kind}_score']} {trust[kind]:.2f}, limit "
        f"{trust[f'{kind}_threshold']:.2f})"
    )


def _trust_words(trust: dict[str, Any], of_what: str = "views") -> list[str]:
    probability = f"probability {trust['probability']:.2f}"
    if trust["calibrated"]:
        words = [f"calibrated {probability}"]
    elif trust.get("relative_to_labels"):
        words = [f"{probability} relative to the names given, not calibrated"]
        if trust.get("none_of_these") is None:
            words.append("no test whether none of them is right")
        elif not trust["none_of_these"]:
            words.append(f"nearer than everyday actions such as '{trust['nearest_other']}'")
    else:
        words = [f"{probability}, {trust.get('not_calibrated', 'not calibrated')}"]
    if not trust.get("still"):
        words.append(f"{trust['agreement']:.0%} of the {of_what} agree")
    if trust.get("unknown") is not None:
        words.append("unknown" if trust["unknown"] else "not unlike the training data")
    if "stability" in trust:
        words.append(
            f"same answer under {trust['stability']['kept']:.0%} of three mild corruptions"
        )
    return words


def _timeline(
    predictor: Predictor | PosePredictor,
    paths: list[Path],
    window: float,
    step: float,
    limits: dict[str, Any],
    csv: Path | None,
    srt: Path | None,
    save_annotated: Path | None,
    blur: Blur | None,
    kept: KeptResults,
    json: bool,
) -> int:
    from dataclasses import asdict

    from marey.errors import VideoError
    from marey.inference.timeline import Segment, describe, write_csv, write_srt

    given = {key: value for key, value in limits.items() if value is not None}
    results: list[dict[str, Any]] = []
    for path in progress(paths, "timeline"):
        try:
            if (stored := kept.get(path)) is not None:
                segments, poses = [Segment(**values) for values in stored["segments"]], None
            else:
                segments, poses = _segments(predictor, path, window, step, given)
                kept.put(path, {"segments": [asdict(segment) for segment in segments]})
        except VideoError as error:
            say(f"marey: {error}")
            results.append({"video": str(path), "segments": [], "error": str(error)})
            continue
        results.append(
            {"video": str(path), "segments": [s.to_dict() for s in segments], "error": None}
        )
        if not json:
            print(
                "\n".join([str(path), *("  " + describe(segment) for segment in segments)]),
                flush=True,
            )
        for target, write in ((csv, write_csv), (srt, write_srt)):
            if target is not None:
                _write_text(
                    target if len(paths) == 1 else target.with_name(f"{path.stem}{target.suffix}"),
                    write,
                    segments,
                )
        if save_annotated is not None:
            from marey.inference.annotate import annotate_segments

            annotate_segments(
                path,
                save_annotated,
                [(s.start_seconds, s.end_seconds, s.label, s.probability) for s in segments],
                poses=poses,
                blur=blur,
            )
            say(f"wrote {save_annotated}")
    if json:
        print_json({"model": predictor.name, "results": results})
    return int(any(result["error"] for result in results))


def _segments(
    predictor: Predictor | PosePredictor,
    path: Path,
    window: float,
    step: float,
    limits: dict[str, Any],
) -> tuple[list[Segment], PoseTracks | None]:
    """Return the segments of a video, and the poses they were named from, if any."""
    from marey.inference.poses import PosePredictor
    from marey.inference.timeline import pose_timeline, timeline

    given: dict[str, Any] = {"window_seconds": window, "step_seconds": step}
    if not isinstance(predictor, PosePredictor):
        return timeline(predictor, path, **given, **limits), None
    poses = predictor.read(path, **limits)
    return pose_timeline(predictor, poses, **given), poses


def _sort(entries: list[dict[str, Any]], folder: Path) -> None:
    """Copy each video into folder/<first answer>, or folder/unknown; what is there stays."""
    from marey.inference.sort import place_of, sorted_copy

    counts: dict[str, int] = {}
    for entry in entries:
        if entry["error"]:
            continue
        place = place_of(entry)
        sorted_copy(Path(entry["video"]), folder / place)
        counts[place] = counts.get(place, 0) + 1
    listed = ", ".join(f"{count} {place}" for place, count in sorted(counts.items()))
    say(f"{folder}: {listed or 'nothing to sort'}")


def _write_text(target: Path, write: Any, segments: Any) -> None:
    from marey.files import atomic

    with atomic(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        write(segments, stream)
    say(f"wrote {target}")


def _write_csv(target: Path, entries: list[dict[str, Any]]) -> None:
    from marey.files import write_csv

    rows: list[list[Any]] = [
        [
            "video",
            "rank",
            "label",
            "probability",
            "agreement",
            "unknown",
            "still",
            "damaged",
            "warning",
            "error",
        ]
    ]
    for entry in entries:
        trust = entry["trust"]
        for rank, answer in enumerate(entry["predictions"], start=1):
            rows.append(
                [
                    entry["video"],
                    rank,
                    answer["label"],
                    answer["probability"],
                    trust["agreement"],
                    trust.get("unknown"),
                    trust.get("still", False),
                    trust.get("damaged"),
                    trust.get("warning"),
                    "",
                ]
            )
        if entry["error"]:
            rows.append([entry["video"], *[""] * 8, entry["error"]])
    write_csv(target, rows)


def _predict_features(videos: list[str], model: str, threshold: float, top: int, json: bool) -> int:
    from marey.inference.features import predict_files

    chosen = "marey-mini-gat" if model == "marey-mini" else model
    if chosen != model:
        say(f"--features is answered by {chosen}")
    results = predict_files(videos, chosen, threshold, top)
    if json:
        print_json({"model": chosen, "results": results})
    for result in results:
        if result["error"]:
            say(f"marey: {result['error']}")
        elif not json:
            print(result["video"])
            if result["trust"].get("still"):
                print(f"  STILL: {result['trust']['not_calibrated']}, so no action can be seen")
            if result["trust"].get("damaged"):
                print(f"  DAMAGED: {result['trust']['damaged']}")
            if result["trust"].get("warning"):
                print(f"  WARNING: the video {result['trust']['warning']}")
            if result["trust"].get("unknown"):
                print(f"  UNKNOWN: {_why_unknown(result['trust'])}; its nearest guesses:")
            for answer in result["predictions"]:
                print(f"  {answer['probability']:6.1%}  {answer['label']}")
    return int(any(result["error"] for result in results))
