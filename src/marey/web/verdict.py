"""What the page says first: one headline, and one sentence on what to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marey.labels.embed import readable

SURE_FROM = 0.5
"""Without a prediction set, an answer below this probability is called unsure."""

NAMED_MOST = 3
"""More actions than this in a prediction set are counted, not named."""

SURE, UNSURE, UNKNOWN, NOBODY = "sure", "unsure", "unknown", "nobody"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The headline of an answer."""

    kind: str
    """"sure", "unsure", "unknown" or "nobody"."""
    headline: str
    advice: str
    """One sentence."""

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON types."""
        return {"kind": self.kind, "headline": self.headline, "advice": self.advice}


def verdict(
    predictions: Sequence[tuple[str, float]],
    trust: dict[str, Any],
    num_classes: int,
    *,
    nobody: bool = False,
) -> Verdict:
    """Return what an answer amounts to.

    Args:
        predictions: (label as people read it, probability), most probable first.
        trust: of the prediction.
        num_classes: actions the model knows.
        nobody: no person was found, or nobody in enough moments (then `trust["unknown"]`).
    """
    if nobody and trust.get("unknown"):
        return Verdict(
            kind=UNKNOWN,
            headline="Unknown: seen in too few moments",
            advice=f"{str(trust['reason']).capitalize()}; try a video with more pictures a second, "
            "or one in which people stay longer.",
        )
    if nobody or not predictions:
        return Verdict(
            kind=NOBODY,
            headline="Nobody found",
            advice="No person was seen for long enough to say what they do; try a clip in which "
            "somebody is larger or longer in the picture.",
        )
    best, probability = predictions[0]
    if trust.get("unknown"):
        return Verdict(
            kind=UNKNOWN,
            headline=f"Unknown: not one of my {num_classes} actions",
            advice=f"The nearest is {best}, but do not rely on it; teach me this action with a few "
            "videos, or choose a model that knows it.",
        )
    if trust.get("rejected"):
        held = trust["rejection"]
        return Verdict(
            kind=UNSURE,
            headline=f"Unsure: {_either([label for label, _ in predictions[:2]])}",
            advice=f"Below {percent(held['threshold'])} this model holds answers back; above it "
            f"{percent(held['accuracy'])} of {held['num_videos']} measured videos were right.",
        )
    inside = [readable(label) for label in trust.get("set") or ()]
    if len(inside) > NAMED_MOST:
        return Verdict(
            kind=UNSURE,
            headline=f"Unsure: one of {len(inside)} actions",
            advice=f"Most likely {_either([label for label, _ in predictions[:2]])}; a clip that "
            "shows the whole action, closer or longer, helps.",
        )
    if len(inside) > 1:
        return Verdict(
            kind=UNSURE,
            headline=f"Unsure: {_either(inside)}",
            advice="At nine videos in ten the right one is among these; look at the frames to "
            "decide between them.",
        )
    if not inside and probability < SURE_FROM and len(predictions) > 1:
        return Verdict(
            kind=UNSURE,
            headline=f"Unsure: {_either([label for label, _ in predictions[:2]])}",
            advice="No answer is more likely than all others together; a clip that shows the whole "
            "action, closer or longer, helps.",
        )
    return Verdict(
        kind=SURE,
        headline=f"{sentence(best)}, {percent(probability)}",
        advice=_advice(trust),
    )


def _advice(trust: dict[str, Any]) -> str:
    if trust.get("calibrated"):
        return (
            "The probability was measured on videos the model had not seen; it holds for videos "
            "like those."
        )
    if trust.get("unknown") is None:
        return (
            "Nobody has measured how often this model is right when it says so, nor can it say "
            "that an action is none of its own; check it on a few videos of yours."
        )
    return (
        "The percentage was not measured on other videos and may be too high; check it on a few "
        "videos of yours."
    )


def sentence(text: str) -> str:
    """Return a text with a capital first letter and without a full stop."""
    return f"{text[:1].upper()}{text[1:]}".rstrip(". ")


def percent(probability: float) -> str:
    """Return a probability in percent; never 100 or 0, which nobody can know.

    >>> percent(0.999), percent(0.94), percent(0.001)
    ('99 %', '94 %', '1 %')
    """
    return f"{min(99, max(1, round(100 * probability)))} %"


def _either(labels: Sequence[str]) -> str:
    """Join names; in quotation marks where one of them is a list itself.

    >>> _either(["push", "punch"]), _either(["a", "b", "c"])
    ('push or punch', 'a, b or c')
    >>> _either(["kick or punch", "wave"])
    '“kick or punch” or “wave”'
    """
    if len(labels) < 2:
        return labels[0] if labels else ""
    if any(" or " in label or "," in label for label in labels):
        labels = [f"“{label}”" for label in labels]
    return f"{', '.join(labels[:-1])} or {labels[-1]}"
