"""`marey explain`: attention maps and frame importance of one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import Blur, Json, Model
from marey.cli.output import print_json, say
from marey.errors import UserError


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(explain)


def explain(
    video: Annotated[Path, typer.Argument(help="Video file or frame folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, the pictures and the numbers.")],
    model: Model = "marey-mini",
    map: Annotated[
        str | None,
        typer.Option(help="Models of pixels: rollout | last | integrated_gradients | saliency."),
    ] = None,
    layer: Annotated[int, typer.Option(help="With --map last: layer, 0 first, -1 last.")] = -1,
    head: Annotated[
        int | None, typer.Option(help="With --map last: one head instead of their mean.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Explain this class instead of the first answer.")
    ] = None,
    random_maps: Annotated[
        int, typer.Option(min=2, help="Random maps that the map is compared with; fewer is faster.")
    ] = 100,
    blur: Blur = None,
    json: Json = False,
) -> None:
    """Show which joints, patches and moments an answer depends on, with a faithfulness score of the
    map."""
    from marey.explain.poses import explain_pose_video
    from marey.explain.report import explain_video
    from marey.inference.load import load_window_predictor
    from marey.inference.poses import PosePredictor
    from marey.persons.blur import load_blur

    predictor = load_window_predictor(model)
    if isinstance(predictor, PosePredictor):
        if map is not None or head is not None or layer != -1:
            raise UserError(
                f"{model} reads poses, and is explained by leaving out joints and moments: leave "
                "out --map, --layer and --head, or take --model marey-mini-rgb"
            )
        facts = explain_pose_video(predictor, video, out, blur=load_blur(blur), label=label)
        if json:
            print_json(facts)
        else:
            print(_describe(facts))
        say(f"wrote {out / 'index.html'}")
        return
    facts = explain_video(
        predictor,
        video,
        out,
        blur=load_blur(blur),
        kind=map,
        layer=layer,
        head=head,
        label=label,
        random_maps=random_maps,
    )
    if json:
        print_json(facts)
    else:
        score = facts["faithfulness"]
        print(
            f"{facts['label']} {facts['probability']:.0%}; map: {facts['map']}; deletion "
            f"{score['deletion']:.3f} (random {score['random_deletion']:.3f}, lower is better), "
            f"insertion {score['insertion']:.3f} (random {score['random_insertion']:.3f}, higher "
            "is better)"
        )
        print(f"  {facts['verdict']}")
        if facts["caution"]:
            print(f"  {facts['caution']}")
    say(f"wrote {out / 'index.html'}")


def _describe(facts: dict[str, Any]) -> str:
    """Say what a pose model's answer depends on."""
    from marey.video.draw import clock

    score = facts["faithfulness"]
    if score is None:
        return str(facts["headline"])
    joints = sorted(facts["joints"].items(), key=lambda item: -item[1])[:3]
    moment = max(facts["moments"], key=lambda entry: entry["importance"])
    return (
        f"{facts['headline']}\n"
        f"  {facts['label']} {facts['probability']:.0%} rests on "
        + ", ".join(f"{name} ({fall:+.2f})" for name, fall in joints)
        + f"; most on {clock(moment['start_seconds'])} to {clock(moment['end_seconds'])} "
        f"({moment['importance']:+.2f})\n"
        f"  deletion {score['deletion']:.3f} (random {score['random_deletion']:.3f}, lower is "
        f"better), insertion {score['insertion']:.3f} (random {score['random_insertion']:.3f}, "
        "higher is better)"
    )
