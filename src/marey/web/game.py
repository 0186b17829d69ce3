"""The order game: shuffled frames for the visitor and the model to sort."""

from __future__ import annotations

from typing import Any

from marey.errors import UserError
from marey.inference.order import order_video
from marey.metrics.order import chance_order_accuracy
from marey.web.pictures import shrink, write_picture
from marey.web.task import ModelError, Task

ORDER_MODEL = "marey-mini-order"
"""What sorts."""
SIDE = 200
"""Short side of the pictures, in pixels."""


def play_order(task: Task) -> dict[str, Any]:
    """Shuffle frames of the visitor's video and let the model sort them.

    Returns:
        "frames": pictures in the shuffled order, each with its true "place"; "model": positions in
        "frames" in the order the model found; "accuracy": share of frames in the right relative
        order (OrderAcc); "chance": its mean over random orders.
    """
    task.facts()
    task.stage("shuffling the frames")
    try:
        checkpoint = task.shelf.checkpoint(ORDER_MODEL)
    except (UserError, OSError) as error:
        raise ModelError(f"the model {ORDER_MODEL} cannot be loaded: {error}") from error
    found = order_video(
        checkpoint, task.upload, shuffle=int(task.options.get("seed", 0)), method="sort"
    )
    frames = shrink(task.blurred(found.frames), SIDE)
    places = found.order.tolist()
    pictures = [
        {
            "file": write_picture(frame, task.folder / f"shuffled-{number}.jpg"),
            "place": places[number],
            "seconds": round(found.frame_seconds[number], 3),
        }
        for number, frame in enumerate(frames)
    ]
    return {
        "frames": pictures,
        "model": found.path.tolist(),
        "accuracy": found.order_accuracy,
        "chance": chance_order_accuracy(len(pictures)),
        "by": ORDER_MODEL,
    }
