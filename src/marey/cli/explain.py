"""`marey explain`: attention maps and frame importance of one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Blur, Json, Model
from marey.cli.output import print_json, say


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(explain)


def explain(
    video: Annotated[Path, typer.Argument(help="Video file or frame folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, the pictures and the numbers.")],
    model: Model = "marey-mini",
    map: Annotated[
        str | None, typer.Option(help="rollout | last | integrated_gradients | saliency.")
    ] = None,
    layer: Annotated[int, typer.Option(help="With --map last: layer, 0 first, -1 last.")] = -1,
    head: Annotated[
        int | None, typer.Option(help="With --map last: one head instead of their mean.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Explain this class instead of the first answer.")
    ] = None,
    blur: Blur = None,
    json: Json = False,
) -> None:
    """Show which patches and frames an answer depends on, with a faithfulness score of the map."""
    from marey.explain.report import explain_video
    from marey.inference.load import load_clip_predictor
    from marey.persons.blur import load_blur

    facts = explain_video(
        load_clip_predictor(model),
        video,
        out,
        blur=load_blur(blur),
        kind=map,
        layer=layer,
        head=head,
        label=label,
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
    say(f"wrote {out / 'index.html'}")
