"""What a worker process does, by the name of the task in a request."""

from __future__ import annotations

from typing import Any

from marey.errors import UserError
from marey.inference.poses import PosePredictor
from marey.web.answering import answer_video
from marey.web.changed import answer_changed
from marey.web.game import play_order
from marey.web.lessons import teach_videos
from marey.web.limits import Limits
from marey.web.models import ModelShelf
from marey.web.people import TickingFinder, find_people
from marey.web.pictures import write_preview
from marey.web.task import Task, Tell


def run_task(shelf: ModelShelf, request: dict[str, Any], send: Tell) -> dict[str, Any]:
    """Return the answer to a request, JSON types.

    Args:
        request: "task", "limits" and what the task needs: "upload" and "name" (the visitor's file),
            "model" and "model_name", "folder", "options".
        send: is called with what comes before the answer, and ends the work by an exception.
    """
    task = Task(shelf=shelf, request=request, limits=Limits(**request["limits"]), send=send)
    name = request["task"]
    if name == "model":
        return about_model(task)
    if name == "answer":
        return answer_video(task)
    if name == "changed":
        return answer_changed(task)
    if name == "order":
        return play_order(task)
    if name == "people":
        return find_people(task)
    if name == "preview":
        return write_preview(task)
    if name == "teach":
        return teach_videos(task)
    raise UserError(f"unknown task '{name}'")


def about_model(task: Task) -> dict[str, Any]:
    """Return what a model knows; what finds people for it is loaded, too."""
    answerer = task.model()
    if isinstance(answerer, PosePredictor):
        task.shelf.finder(TickingFinder)
    names = getattr(answerer, "class_names", answerer.checkpoint.class_names)
    return {
        "classes": list(names),
        "kind": type(answerer).__name__,
        "architecture": answerer.checkpoint.name,
    }
