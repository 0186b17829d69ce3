"""`marey pose`: keypoints and skeletons of everyone in a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marey.cli.options import Blur, Json, Persons, Videos
from marey.cli.output import counted, print_json, progress, say

if TYPE_CHECKING:
    from marey.persons.pose_tracks import PoseTracks


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(pose)


def pose(
    videos: Videos,
    persons: Persons = "auto",
    fps: Annotated[float, typer.Option(help="Frames per second to look at.")] = 12.5,
    image_size: Annotated[
        int, typer.Option(help="Long side of the picture the network sees, in pixels.")
    ] = 256,
    tiles: Annotated[
        int, typer.Option(help="Look at N x N parts of each frame too, for small people.")
    ] = 1,
    max_people: Annotated[int, typer.Option(help="Tracks kept, the most present ones.")] = 1000,
    save_annotated: Annotated[
        Path | None, typer.Option(help="Write the video with skeletons and track numbers.")
    ] = None,
    blur: Blur = None,
    json: Json = False,
) -> None:
    """Find the keypoints of everyone in each video and follow them.

    Exit status 1: some videos could not be read (they are named); the others are answered.
    """
    from marey.errors import UserError, VideoError
    from marey.inference.kept_results import KeptResults
    from marey.inference.predictor import videos_in
    from marey.persons.blur import load_blur
    from marey.persons.pose_tracks import read_poses
    from marey.persons.sources import pose_finder
    from marey.transforms.keypoints import KEYPOINT_NAMES

    paths = videos_in(videos)
    if save_annotated is not None and len(paths) > 1:
        raise UserError(
            f"--save-annotated names one file, but there are {len(paths)} videos; give one video"
        )
    # a wrong name is said before the work begins
    blurring = load_blur(blur)
    finder = pose_finder(persons, image_size=image_size, tiles=tiles)

    kept = KeptResults(
        persons,
        len(paths),
        what="pose",
        fps=fps,
        image_size=image_size,
        tiles=tiles,
        max_people=max_people,
    )
    results, found = [], None
    for path in progress(paths, "pose", len(paths)):
        stored = kept.get(path)
        if stored is not None:
            results.append(stored["entry"])
            if not json:
                print(stored["text"], flush=True)
            continue
        try:
            found = read_poses(path, fps=fps, max_people=max_people, finder=finder)
        except VideoError as error:
            say(f"marey: {error}")
            results.append({"video": str(path), "frames": [], "tracks": [], "error": str(error)})
            continue
        results.append(found.to_dict())
        text = _describe(found)
        kept.put(path, {"entry": results[-1], "text": text})
        if not json:
            print(text, flush=True)
    kept.remove()
    if json:
        document = {"persons": persons, "keypoint_names": KEYPOINT_NAMES, "results": results}
        print_json(document)
    if save_annotated is not None and found is not None:
        from marey.inference.annotate import annotate_poses

        annotate_poses(found.video, save_annotated, found, blur=blurring)
        say(f"wrote {save_annotated}")
    if any(result["error"] for result in results):
        raise typer.Exit(1)


def _describe(found: PoseTracks) -> str:
    from marey.video.draw import clock

    lines = [found.video]
    if not found.tracks:
        lines.append("  nobody found")
    for track in found.tracks:
        height = (track.boxes_xyxy[:, 3] - track.boxes_xyxy[:, 1]).mean() * found.height
        lines.append(
            f"  person {track.number:<3} {clock(track.seconds[0])} to {clock(track.seconds[-1])}  "
            f"{counted(len(track.seconds), 'frame')}, {height:.0f} pixels tall, mean score "
            f"{track.scores.mean():.2f}, mean keypoint score {track.keypoints[..., 2].mean():.2f}"
        )
    return "\n".join(lines)
