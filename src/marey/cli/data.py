"""`marey data`: check, split, pack and render data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import DataFolder, Dataset, Json, RenderSeed, SplitBy, Workers
from marey.cli.output import bars, counted, print_json, progress, say
from marey.errors import UserError


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    data = typer.Typer(
        name="data", no_args_is_help=True, help="Check, split, pack and render data sets."
    )
    for command in (check, split, pack):
        data.command()(command)
    rendering = typer.Typer(
        name="render", no_args_is_help=True, help="Render data that needs no download."
    )
    rendering.command("mocap")(render_mocap)
    rendering.command("poses")(render_poses)
    rendering.command("youtube8m-mini")(render_youtube8m)
    rendering.command("action-videos")(render_action_videos)
    rendering.callback()(lambda: None)
    data.add_typer(rendering)
    app.add_typer(data)


def check(
    data: DataFolder,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    decode_all: Annotated[
        bool, typer.Option("--decode-all", help="Decode every frame, not three of each video.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option(help="Look for the same pictures in different files.")
    ] = True,
    csv: Annotated[
        Path | None, typer.Option(help="Write the findings to this CSV file too.")
    ] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """List every missing, unreadable, duplicate or mislabelled entry before training.

    Exit status 1 if something would make a training or its result wrong, else 0.
    """
    from marey.datasets.check import MEANING, check_dataset, write_findings
    from marey.datasets.open import open_dataset

    index = open_dataset(data, dataset=dataset, split_by=split_by)
    report = check_dataset(
        index, decode_all=decode_all, pictures=pictures, workers=workers, progress=_bar("checking")
    )
    if csv is not None:
        write_findings(report, csv)
    if json:
        print_json(report.to_dict())
    else:
        for finding in report.findings:
            print(f"{finding.kind:<15}{finding.message}")
        for name, count in index.class_counts.items():
            print(f"{'class':<15}{name}: {counted(count, 'video')}")
        if report.seconds is not None:
            shortest, median, longest = report.seconds
            print(f"{'durations':<15}{shortest:.1f} to {longest:.1f} s, half below {median:.1f} s")
    counts = report.to_dict()["counts"]
    summary = (
        "; ".join(f"{count} {kind} ({MEANING[kind]})" for kind, count in counts.items())
        or "nothing to fix"
    )
    say(
        f"{data}: {counted(len(index), 'entry')}, {counted(len(index.class_names), 'class')}, "
        f"{report.num_readable} readable: {summary}"
    )
    if index.note:
        say(index.note)
    if report.errors:
        raise typer.Exit(1)


def split(
    data: DataFolder,
    val: Annotated[float, typer.Option(help="Share of all videos for validation.")] = 0.18,
    test: Annotated[float, typer.Option(help="Share of all videos for the test.")] = 0.1,
    group: Annotated[
        str | None,
        typer.Option(
            help="What must stay together: a manifest column, or a regular expression such as "
            "'(g[0-9]+)', or none; default: the manifest's groups, else those of file names."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random order.")] = 42,
    out: Annotated[
        Path | None, typer.Option(help="The manifest to write; default DATA/manifest.csv.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Report the same pictures on both sides of a split.")
    ] = True,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Divide a data set into train, val and test: stratified by class, groups kept together.

    Exit status 1: some videos could not be read; they are named, and stay in the list.
    """
    from marey.datasets.check import check_dataset
    from marey.datasets.manifest import write_manifest
    from marey.datasets.open import open_dataset
    from marey.datasets.split import describe_splits, make_splits

    index = open_dataset(data)
    target = out if out is not None else index.root / "manifest.csv"
    if target.exists():
        raise UserError(f"{target}: exists already; give another name with --out, or move it away")
    if group is None and index.note:
        say(f"{index.note}; otherwise: --group")
    index = make_splits(index, val=val, test=test, group=group, seed=seed)
    rows, findings = describe_splits(index), []
    if pictures:
        report = check_dataset(index, workers=workers, progress=_bar("comparing"))
        findings = [
            finding
            for finding in report.findings
            if finding.kind in ("leak", "conflict", "unseen_class", "missing", "unreadable")
        ]
    write_manifest(index, target)
    if json:
        print_json(
            {
                "manifest": str(target),
                "seed": seed,
                "splits": rows,
                "findings": [
                    {"kind": f.kind, "paths": list(f.paths), "message": f.message} for f in findings
                ],
            }
        )
    else:
        for row in rows:
            groups = f", {row['groups']} groups" if row["groups"] else ""
            print(
                f"{row['split']:<6}{row['videos']:>7} videos ({row['share']:.1%}), "
                f"{row['classes']} classes, at least {row['fewest']} of each{groups}"
            )
    for finding in findings:
        say(f"{finding.kind}: {finding.message}")
    say(f"{target} is written; train with --data {target}")
    if any(finding.kind in ("missing", "unreadable") for finding in findings):
        raise typer.Exit(1)


def pack(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder for the copies.")],
    dataset: Dataset = None,
    split_by: SplitBy = None,
    short_side: Annotated[
        int, typer.Option(min=16, help="Short side of the copies, in pixels.")
    ] = 256,
    gop: Annotated[int, typer.Option(min=1, help="A key frame every so many frames.")] = 8,
    crf: Annotated[
        int,
        typer.Option(
            min=0, max=51, help="Quality of x264, lower is better; 0 loses rounding only."
        ),
    ] = 18,
    audio: Annotated[bool, typer.Option(help="Copy the sound.")] = True,
    model: Annotated[
        str | None,
        typer.Option(help="Count how many answers of this model the copies change."),
    ] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Write a small copy with many key frames, for fast random access in training; run again, it
    goes on.

    Exit status 1 if some videos could not be read; they are named and left out.
    """
    from marey.datasets.open import open_dataset
    from marey.datasets.pack import PackSettings, pack_dataset

    index = open_dataset(data, dataset=dataset, split_by=split_by)
    settings = PackSettings(short_side=short_side, gop=gop, crf=crf, audio=audio)
    packing = pack_dataset(index, out, settings, workers=workers, progress=_bar("packing"))
    cost = _cost_of_packing(packing, model)
    if json:
        print_json(
            {
                "manifest": str(packing.manifest),
                "written": packing.num_written,
                "kept": packing.num_kept,
                "unreadable": packing.unreadable,
                "bytes_before": packing.bytes_before,
                "bytes_after": packing.bytes_after,
                "cost": cost,
            }
        )
    for reason in packing.unreadable.values():
        say(reason)
    say(
        f"{packing.manifest}: {packing.num_written} written, {packing.num_kept} kept, "
        f"{len(packing.unreadable)} "
        f"unreadable; {packing.bytes_before / 1e6:.1f} MB became {packing.bytes_after / 1e6:.1f} MB"
    )
    if cost["psnr_db"] is not None:
        say(
            f"what it costs: {cost['psnr_db']:.1f} dB PSNR against the videos at the size of the "
            f"copies (mean of {counted(cost['pictures'], 'picture')})"
        )
    if model is None:
        say("how many answers of a model change is not known; --model M counts them")
    else:
        say(
            f"{model} answers {cost['changed']} of {counted(cost['videos'], 'video')} differently "
            f"from their copies; the probability of its first answer moves by "
            f"{cost['probability_moved']:.3f} on average"
        )
    if packing.unreadable:
        raise typer.Exit(1)


def _cost_of_packing(packing: Any, model: str | None) -> dict[str, Any]:
    from marey.inference.packing_cost import answers_changed, picture_cost

    cost = picture_cost(packing.pairs)
    if model is None:
        return cost
    from marey.checkpoints.sources import best_of_run
    from marey.inference.predictor import Predictor

    predictor = Predictor.load(str(best_of_run(Path(model)) or model))
    with bars() as tick:
        return {**cost, **answers_changed(predictor, packing.pairs, tick)}


def render_mocap(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips in all splits together.")] = 1000,
    size: Annotated[int, typer.Option(min=16, help="Pixels of each side.")] = 64,
    num_frames: Annotated[int, typer.Option(min=1, help="Frames per clip.")] = 8,
    fps: Annotated[float, typer.Option(help="Frames per second of a clip.")] = 4.0,
    reversals: Annotated[
        str, typer.Option(help="Actions played backwards as classes: none, named, all.")
    ] = "named",
    seed: Annotated[int, typer.Option(help="Clip i is rendered from (seed, i).")] = 0,
    videos: Annotated[
        bool, typer.Option("--videos", help="Write video files instead of one packed array.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes.")] = 2,
) -> None:
    """Render captured human motions (15 recordings) with random bodies, views, lights and
    backgrounds."""
    from marey.synthetic.dataset import RenderPlan, render_dataset, render_videos

    plan = replace(
        RenderPlan(), size=size, num_frames=num_frames, fps=fps, reversals=reversals, seed=seed
    )
    if videos:
        render_videos(out, clips, plan)
    else:
        render_dataset(out, clips, plan, workers=workers)
    actions = counted(len(plan.class_names()), "action")
    say(f"{out}: {counted(clips, 'clip')} of {actions}; train with --data {out}")


def render_poses(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")],
    cmu: Annotated[
        Path, typer.Option(help="Folder with joints_mm_60fps.npz and layout.json (CMU recordings).")
    ],
    windows: Annotated[int, typer.Option(min=1, help="Windows in all splits together.")] = 60000,
    recordings: Annotated[
        Path | None, typer.Option(help="Your own: <action>/*.bvh, or <action>/*.amc with an .asf.")
    ] = None,
    filmed: Annotated[
        int,
        typer.Option(
            min=0,
            help="And so many scenes drawn as pictures, in which the pose networks look for "
            "people: about 2 s each.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Window i is drawn from (seed, i).")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes.")] = 2,
) -> None:
    """Draw windows of keypoints as a pose network reports them, from captured and composed
    motions."""
    from marey.synthetic.poses.render import PosePlan
    from marey.synthetic.poses.render import render_poses as render

    own = None if recordings is None else str(recordings)
    plan = PosePlan(cmu=str(cmu), own=own, seed=seed, filmed_scenes=filmed)
    render(out, windows, plan, workers=workers, progress=_bar("windows"))
    drawn = counted(windows, "window")
    if filmed:
        drawn += f" and {counted(filmed, 'filmed scene')}"
    say(f"{out}: {drawn} of 2 s; train with: marey train mini_pose --data {out}")


def render_youtube8m(
    out: Annotated[Path, typer.Option(help="New folder of the data set.")],
    videos: Annotated[
        int, typer.Option(min=7, help="Videos in all: 4/7 train, 1/7 validate, 2/7 test.")
    ] = 2100,
    seed: RenderSeed = 0,
) -> None:
    """Make features in the YouTube-8M format: short planted events among decoys, with sound."""
    from marey.synthetic.youtube8m import render_youtube8m_mini

    parts = {
        "train": videos - 3 * (videos // 7),
        "validate": videos // 7,
        "test": 2 * (videos // 7),
    }
    render_youtube8m_mini(out, videos=parts, seed=seed)
    say(
        f"{out}: {videos} videos of 24 labels; train with: marey train gat_youtube8m_mini --data "
        f"{out}"
    )


def render_action_videos(
    clips: Annotated[Path, typer.Option(help="Folder made by: marey data render mocap.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set.")],
    videos: Annotated[int, typer.Option(min=1, help="Videos in all splits together.")] = 500,
    seed: Annotated[int, typer.Option(help="Video i is drawn from (seed, i).")] = 0,
) -> None:
    """Join rendered clips into longer videos of several actions, with sound: what marey-mini-gat
    learns from."""
    from marey.synthetic.action_videos import make_action_videos

    make_action_videos(clips, out, videos, seed=seed)
    say(f"{out}: {counted(videos, 'video')}; next: marey features {out} --out FEATURES")


def _bar(label: str) -> Any:
    def wrap(results: Iterator[Any], total: int) -> Iterator[Any]:
        yield from progress(results, label, total)

    return wrap
