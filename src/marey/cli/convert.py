"""`marey convert` and `marey export`: checkpoints in from other layouts, and out to other
runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import Json
from marey.cli.output import print_json, say


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(convert)
    app.command()(export)


def convert(
    file: Annotated[str, typer.Argument(help="The file; for hf and vit also a folder or hub id.")],
    form: Annotated[str, typer.Option("--from", help="timesformer, direcformer, i3d, hf or vit.")],
    out: Annotated[Path, typer.Option(help="Folder to write: model.safetensors and config.json.")],
    num_heads: Annotated[
        int | None, typer.Option(help="Attention heads, where the file does not tell.")
    ] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames per clip, for --from vit.")] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Classes of the fresh head, for --from vit.")
    ] = None,
    class_names: Annotated[Path | None, typer.Option(help="One name per line, or JSON.")] = None,
    model: Annotated[
        str, typer.Option(help="With --from vit: timesformer, direcformer or sevitar.")
    ] = "timesformer",
    overwrite: Annotated[bool, typer.Option(help="Replace a checkpoint that is there.")] = False,
    json: Json = False,
) -> None:
    """Turn a public checkpoint into a checkpoint folder; every tensor must match.

    Pickled files are read as weights only: no code in them is run.
    """
    from marey.checkpoints.convert import read_class_names, read_foreign, write_converted

    names = read_class_names(class_names) if class_names is not None else None
    checkpoint, sentence = read_foreign(
        file,
        form,
        num_heads=num_heads,
        num_frames=num_frames,
        class_names=names,
        architecture=model,
        num_classes=num_classes,
    )
    write_converted(checkpoint, out, overwrite=overwrite)
    say(f"{out}: {checkpoint.name}, {len(checkpoint.class_names)} classes, {sentence}")
    if json:
        print_json(
            {
                "out": str(out),
                "model": checkpoint.name,
                "classes": len(checkpoint.class_names),
                "report": sentence,
            }
        )


def export(
    model: Annotated[str, typer.Argument(help="Bundled name, checkpoint folder, or hf:ID.")],
    out: Annotated[Path, typer.Option(help="File to write (.onnx, .pt2), or folder for hf.")],
    form: Annotated[str, typer.Option("--format", help="onnx, torch-export or hf.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and products (ONNX).")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="With --int8: labelled videos to count its cost on.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use that many videos of --data.")] = None,
    json: Json = False,
) -> None:
    """Write a model for another runtime, and check there that it gives the same answers.

    ONNX and torch.export files keep the batch free and carry class names and preprocessing.
    """
    from marey.checkpoints.export import accuracy_cost, export_checkpoint
    from marey.checkpoints.load import load_checkpoint

    checkpoint = load_checkpoint(model)
    difference = export_checkpoint(checkpoint, form, out, int8=int8)
    say(
        f"{out}: written; its answers differ from the model's by at most {difference:.1e} of "
        "their size"
    )
    answer: dict[str, Any] = {
        "out": str(out),
        "format": form,
        "largest_relative_difference": difference,
    }
    if int8:
        answer["int8"] = True
        if data is None:
            say("what 8 bits cost in accuracy is unknown; measure it on your videos with --data")
        else:
            cost = answer["accuracy"] = accuracy_cost(checkpoint, out, data, limit=limit)
            scores = (
                ""
                if cost["top1_model"] is None
                else f"top-1 {cost['top1_file']:.3f} with 8 bits, {cost['top1_model']:.3f} "
                "without; "
            )
            say(
                f"{data}, {cost['videos']} videos: {scores}the same answer on "
                f"{cost['same_answer']:.1%}"
            )
    if json:
        print_json(answer)
