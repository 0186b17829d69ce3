"""`marey watch`: continuous predictions for a camera, a stream or a growing file."""

from __future__ import annotations

from json import dumps
from time import monotonic
from typing import Annotated

import typer

from marey.cli.options import Device, Json, Model
from marey.cli.output import counted, say

EVERY_SECONDS = 10.0
"""Frames that were left out are said this often."""


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(watch)


def watch(
    source: Annotated[
        str, typer.Argument(help="Camera number, rtsp:// address, or a file, also a growing one.")
    ],
    model: Model = "marey-mini",
    window: Annotated[float, typer.Option(help="Seconds of video behind each answer.")] = 2.0,
    step: Annotated[float, typer.Option(help="Seconds between answers.")] = 0.5,
    smoothing: Annotated[
        float, typer.Option(help="Weight of the past answers, 0 to below 1.")
    ] = 0.5,
    idle: Annotated[
        float, typer.Option(help="Stop when nothing new has come for so many seconds.")
    ] = 10.0,
    top: Annotated[int, typer.Option(min=1, help="Labels per answer.")] = 3,
    persons: Annotated[
        str, typer.Option(help="With poses: auto, or movenet: faster, misses small people.")
    ] = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Answer a camera, a network stream or a growing file continuously."""
    from marey.inference.live import watch as answers
    from marey.inference.load import load_window_predictor
    from marey.video.draw import clock
    from marey.video.live import is_live, iterate_live, newest

    predictor = load_window_predictor(model, device=device, persons=persons)
    lost = Dropped()
    frames = iterate_live(source, idle_seconds=idle, notice=say)
    for answer in answers(
        predictor,
        newest(frames, lost) if is_live(source) else frames,
        window_seconds=window,
        step_seconds=step,
        smoothing=smoothing,
        top=top,
    ):
        if json:
            print(dumps(answer), flush=True)
        elif answer.get("note"):
            print(f"{clock(answer['seconds']):>8}  (no answer: {answer['note']})", flush=True)
        else:
            best = "  ".join(
                f"{entry['label']} {entry['probability']:.0%}" for entry in answer["predictions"]
            )
            print(
                f"{clock(answer['seconds']):>8}  {'(unknown) ' if answer['unknown'] else ''}{best}",
                flush=True,
            )


class Dropped:
    """Says how many frames were left out to keep up, at most every ten seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.said = monotonic()

    def __call__(self, count: int) -> None:
        """Count frames that were left out."""
        self.count += count
        if monotonic() - self.said >= EVERY_SECONDS:
            say(f"{counted(self.count, 'frame')} left out in the last 10 s, to keep up")
            self.count, self.said = 0, monotonic()
