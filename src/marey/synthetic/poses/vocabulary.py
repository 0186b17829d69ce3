"""What the bundled pose model names, and where the motions of each action come from.

An action's sources are recordings (CMU, DeepMimic) and compositions. Where an action has several
recordings, whole recordings are held out; where it has one, or is composed, azimuths, bodies and
speeds are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from marey.synthetic.poses import compositions, floor, strikes, whole_body
from marey.synthetic.poses.compositions import Composed

OTHER = "other"
"""Motions without a name in the vocabulary; the model learns to call them that, and says
"unknown"."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the motions of one action come from, with the share of windows of each."""

    cmu: tuple[str, ...] = ()
    """Actions of `read_cmu`."""
    deepmimic: tuple[str, ...] = ()
    """Actions of `read_deepmimic`."""
    backwards: tuple[str, ...] = ()
    """Actions of `read_deepmimic`, played backwards."""
    composed: tuple[Callable[[Generator], Composed], ...] = ()
    """Functions of `compositions` and `whole_body`."""
    shares: tuple[float, float, float] = (0.7, 0.3, 0.0)
    """Of cmu, deepmimic (backwards ones included) and composed."""


VOCABULARY: dict[str, Sources] = {
    "walk": Sources(cmu=("walking", "walking_extra"), deepmimic=("walk",), shares=(0.9, 0.1, 0)),
    "run": Sources(cmu=("running",), deepmimic=("run",), shares=(0.7, 0.3, 0)),
    "jump": Sources(
        cmu=("jumping",), deepmimic=("jump",), composed=(whole_body.jump,), shares=(0.45, 0.15, 0.4)
    ),
    "stand": Sources(
        cmu=("basketball_signal", "directing_traffic"),
        composed=(compositions.stand,),
        shares=(0.15, 0, 0.85),
    ),
    "wave or signal": Sources(
        cmu=("basketball_signal", "directing_traffic"),
        composed=(compositions.wave,),
        shares=(0.5, 0, 0.5),
    ),
    "point": Sources(composed=(compositions.point,), shares=(0, 0, 1)),
    "bend": Sources(composed=(whole_body.bend,), shares=(0, 0, 1)),
    "sit": Sources(composed=(whole_body.sit,), shares=(0, 0, 1)),
    "crawl": Sources(deepmimic=("crawl",), composed=(floor.crawl,), shares=(0, 0.5, 0.5)),
    "fall or lie down": Sources(
        backwards=("get up from the front", "get up from the back"),
        composed=(floor.fall,),
        shares=(0, 0.4, 0.6),
    ),
    "get up": Sources(
        deepmimic=("get up from the front", "get up from the back"),
        composed=(floor.get_up, whole_body.rise_from_seat),
        shares=(0, 0.5, 0.5),
    ),
    "kick": Sources(
        deepmimic=("kick", "spin kick"), composed=(strikes.kick,), shares=(0, 0.35, 0.65)
    ),
    "punch": Sources(deepmimic=("punch",), composed=(strikes.punch,), shares=(0, 0.3, 0.7)),
    "push": Sources(composed=(strikes.push,), shares=(0, 0, 1)),
    "throw or dribble": Sources(
        cmu=("basketball",), composed=(compositions.throw,), shares=(0.5, 0, 0.5)
    ),
    "shake hands": Sources(composed=(compositions.shake_hands,), shares=(0, 0, 1)),
    "hug": Sources(composed=(compositions.hug,), shares=(0, 0, 1)),
    "fight": Sources(composed=(strikes.fight,), shares=(0, 0, 1)),
    "cartwheel": Sources(deepmimic=("cartwheel",), shares=(0, 1, 0)),
    "flip or roll": Sources(
        deepmimic=("backflip", "roll"), backwards=("backflip", "roll"), shares=(0, 1, 0)
    ),
    OTHER: Sources(
        cmu=("soccer", "washwindow"),
        deepmimic=("dance a", "dance b", "spin"),
        composed=(whole_body.anything, whole_body.anything, whole_body.react),
        shares=(0.2, 0.2, 0.6),
    ),
}
"""Action -> sources; the order is that of the model's classes."""

SHOWN_AS: dict[str, str | None] = {
    "wave or signal": "wave, point or signal",
    "point": "wave, point or signal",
    "kick": "fight: kick, punch or push",
    "punch": "fight: kick, punch or push",
    "push": "fight: kick, punch or push",
    "fight": "fight: kick, punch or push",
    "hug": None,
    "sit": None,
}
"""Class of the network -> the answer it counts for, None: "unknown". Chosen after a look at 129
labelled windows of real video (`results/real_people_labels.json`), on which the network does not
tell these apart, and never finds the last two. A class that is not named here is its own answer."""

TWO_PEOPLE = ("kick", "punch", "push", "shake hands", "hug", "fight", "point")
"""Actions that are mostly done to somebody, who then stands in the way of some keypoints."""

STRIKES = ("kick", "punch", "push", "fight")
"""Those of them that count for a fight, in which whoever is struck takes part."""

HELD_OUT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "running": (("running_5_train",), ("running_1_test",)),
    "jumping": (("jumping_5_train",), ("jumping_1_test",)),
    "basketball": (("basketball_5_train",), ("basketball_1_test",)),
    "soccer": (("soccer_5_train",), ("soccer_1_test",)),
    "basketball_signal": (("basketball_signal_5_train",), ("basketball_signal_4_train",)),
    "directing_traffic": ((), ("directing_traffic_4_train",)),
    "washwindow": ((), ("washwindow_1_test",)),
}
"""CMU action -> recordings held out for validation and for the test; walks: see `split_of`."""

OTHER_HELD_OUT = {"val": ("dance a",), "test": ("dance b",)}
"""Recordings of DeepMimic that are in one split only."""


def split_of(recording: str, action: str) -> str:
    """Return the split a CMU recording belongs to.

    Walks: those that the source itself sets apart ("_test") are held out, even numbers for
    validation.

    Args:
        recording: such as "cmu/walking_extra/walking_12_test".
        action: such as "walking_extra".
    """
    name = recording.rsplit("/", 1)[-1]
    if action.startswith("walking"):
        if not name.endswith("_test"):
            return "train"
        return "val" if int(name.split("_")[1]) % 2 == 0 else "test"
    val, test = HELD_OUT.get(action, ((), ()))
    return "val" if name in val else "test" if name in test else "train"
