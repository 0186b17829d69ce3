"""`marey train`, `marey evaluate` and `marey compare`: training, accuracy with intervals, paired
tests."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import (
    BatchSize,
    Blur,
    Dataset,
    Device,
    Json,
    MeasuredSplit,
    SplitBy,
    TrainingData,
)
from marey.cli.output import bars, counted, print_json, say
from marey.errors import UserError

TEACHES = "finetune_folder"
"""A recipe of earlier versions that is now what `marey teach` does by default."""


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(compare)


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe ('marey list recipes'), or a config.json of a run.")
    ],
    data: TrainingData = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: optim.lr=0.01")
    ] = None,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the configuration as JSON and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
    json: Json = False,
) -> None:
    """Train a recogniser; the best and the last checkpoint stay in --out.

    A run that was interrupted goes on with --resume and ends in the same weights, bit for bit on a
    CPU.
    """
    from marey.training.config import override

    if recipe == TEACHES:
        _teach(data, out, settings, dataset, split_by, resume or show, json)
        return
    config = _configuration(recipe, data, dataset, split_by)
    config = override(config, settings or [])
    if show:
        print_json(config.to_dict())
        return
    from marey.training.loop import train as run_training

    folder = out if out is not None else Path("runs") / config.recipe
    result = run_training(config, folder, resume=resume, quiet=quiet)
    if not result.is_main:
        return
    if json:
        print_json(result.to_dict())
    best = (
        "no validation videos"
        if result.best is None
        else f"best {result.best:.4f} at step {result.best_step}"
    )
    say(f"{result.out}: {result.steps} steps in {result.seconds:.0f} s, {best}")
    if result.unreadable:
        say(f"{counted(len(result.unreadable), 'video')} could not be read and took no part")
    say(
        f"score it: {shlex.join(['marey', 'evaluate', str(result.out)])} --data "
        f"{shlex.quote(config.data.path or 'DATA')}    use it: marey predict VIDEO --model "
        f"{shlex.quote(str(result.out))}"
    )


def _teach(
    data: str | None,
    out: Path | None,
    settings: list[str] | None,
    dataset: str | None,
    split_by: str | None,
    other: bool,
    json: bool,
) -> None:
    """Do what `marey teach` does by default, under the name of the recipe it replaces."""
    from marey.cli.teach import teach

    if data is None:
        raise UserError("name the folder of videos with --data DIR")
    if settings or split_by or other:
        raise UserError(
            f"{TEACHES} is `marey teach` and takes --data, --out and --dataset only; for a "
            "network with settings of its own take another recipe, such as sevitar_folder"
        )
    say(f"{TEACHES} is now `marey teach`, with more to choose from: marey teach --help")
    teach(data, Path("runs") / TEACHES if out is None else out, dataset=dataset, json=json)


def _configuration(recipe: str, data: str | None, dataset: str | None, split_by: str | None) -> Any:
    import dataclasses

    from marey.files import read_json, untrusted
    from marey.recipes import get_recipe
    from marey.training.config import TrainConfig

    if recipe.endswith(".json"):
        values = read_json(recipe, remedy="give a recipe or a run's config.json")
        with untrusted(recipe, "a configuration"):
            config = TrainConfig.from_dict(values)
    else:
        config = get_recipe(recipe)
    words: dict[str, Any] = {"path": data, "dataset": dataset, "split_by": split_by}
    given = {key: value for key, value in words.items() if value is not None}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **given))


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="A run, a checkpoint folder, a bundled name, hf:ID, torchvision:NAME."),
    ],
    data: TrainingData = None,
    split: MeasuredSplit = None,
    views: Annotated[
        str, typer.Option(help="Temporal x spatial views per video: 1x1, 1x3, 10x3.")
    ] = "1x1",
    fusion: Annotated[
        str, typer.Option(help="Averaged over views: probabilities or logits.")
    ] = "probabilities",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default RUN/evaluation.")
    ] = None,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="The data has classes never trained on.")
    ] = False,
    hubness: Annotated[
        bool, typer.Option("--hubness", help="With --unseen: correct for names near to everything.")
    ] = False,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Store in MODEL below which probability not to answer: so many right.",
        ),
    ] = None,
    min_coverage: Annotated[
        float | None, typer.Option(min=0, max=1, help="The same: so many videos answered at least.")
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option(
            "--predictions", help="Score saved answers again; MODEL names their file or folder."
        ),
    ] = False,
    batch_size: BatchSize = 8,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 0,
    device: Device = "auto",
    blur: Blur = None,
    seed: Annotated[
        int, typer.Option(help="Seed of what the task draws, for example shuffled frames.")
    ] = 0,
    json: Json = False,
) -> None:
    """Score a model on labelled videos: accuracies with intervals, per class, confusion,
    calibration.

    Videos that cannot be read are counted and named, never replaced; exit status 1 where there are
    any.
    """
    from marey.evaluation.classification import EvaluateOptions, report_of, store_rejection
    from marey.evaluation.evaluate import checkpoint_of
    from marey.evaluation.evaluate import evaluate as run_evaluation
    from marey.evaluation.report import FOLDER, load_predictions, write_report
    from marey.persons.blur import load_blur
    from marey.teaching.beside import metadata_beside

    if predictions:
        answers = load_predictions(model)
        report = {"model": model, **report_of(answers)}
    else:
        if data is None:
            raise UserError("no data: give --data a folder of class folders or a manifest.csv")
        options = EvaluateOptions(
            split=split,
            dataset=dataset,
            split_by=split_by,
            views=parse_views(views),
            fusion=parse_fusion(fusion),
            batch_size=batch_size,
            workers=workers,
            device=device,
            unseen=unseen,
            hubness=hubness,
            seed=seed,
        )
        report, answers = _with_progress(run_evaluation, model, data, options)
        if answers is not None:
            labels = [answers.class_names[number] for number in answers.labels]
            report.setdefault("controls", {})["metadata"] = metadata_beside(
                options.choose_split(data), answers.videos, labels, answers.groups
            )
    if target_accuracy is not None or min_coverage is not None:
        if answers is None or predictions:
            raise UserError(
                "--target-accuracy and --min-coverage need a model of classes and its videos, not "
                "stored answers"
            )
        rejection = store_rejection(
            checkpoint_of(model),
            answers,
            str(data),
            target_accuracy=target_accuracy,
            min_coverage=min_coverage,
        )
        report["rejection"] = rejection
        say(
            f"stored in {checkpoint_of(model)}: no answer below probability "
            f"{rejection['threshold']:.3f}; {rejection['coverage']:.0%} of the videos answered, "
            f"{rejection['accuracy']:.0%} of them rightly"
        )
    is_run = any((Path(model) / name / "config.json").is_file() for name in ("best", "last"))
    folder = (
        out if out is not None else Path(model) / FOLDER if is_run and not predictions else None
    )
    if folder is not None:
        root = None if data is None else folder_of(data)
        write_report(folder, report, answers, root=root, blur=load_blur(blur))
        say(
            f"wrote {folder}/report.json"
            + (", report.html, predictions.jsonl, confusion.csv" if answers is not None else "")
        )
    _say_report(report)
    if json:
        print_json(report)
    if report.get("num_unreadable"):
        raise typer.Exit(1)


def folder_of(data: str) -> Path:
    """Return the folder that names of videos in a report are relative to: the data, or that of its
    list."""
    path = Path(data)
    return path.parent if path.is_file() else path


def _with_progress(run: Any, model: str, data: str, options: Any) -> Any:
    with bars() as tick:
        return run(model, data, options, tick=lambda done, total: tick("videos", done, total))


def parse_views(text: str) -> tuple[int, int]:
    """Return (temporal, spatial) of "10x3".

    Raises:
        UserError: if the text is something else, or asks for other than 1 or 3 spatial views.
    """
    parts = text.lower().split("x")
    if (
        len(parts) != 2
        or not all(part.isdigit() and int(part) > 0 for part in parts)
        or int(parts[1]) not in (1, 3)
    ):
        raise UserError(
            "--views takes TEMPORALxSPATIAL with 1 or 3 spatial views, such as 1x3 or 10x3, got "
            f"'{text}'"
        )
    return int(parts[0]), int(parts[1])


def parse_fusion(text: str) -> str:
    """Return the text if it names a fusion.

    Raises:
        UserError: if not.
    """
    if text not in ("probabilities", "logits"):
        raise UserError(f"--fusion takes 'probabilities' or 'logits', got '{text}'")
    return text


def _say_report(report: dict[str, Any]) -> None:
    from marey.evaluation.page import controls_text

    seen = report.get("seen_in_training")
    if seen:
        say(seen["text"])
    if "top1" in report and "top1_interval" in report:
        low, high = report["top1_interval"]
        # with five classes or fewer it is always 1
        five = f"top-5 {report['top5']:.3f}  " if len(report["per_class"]) > 5 else ""
        say(
            f"top-1 {report['top1']:.3f} [{low:.3f}, {high:.3f}]  {five}"
            f"mean class accuracy {report['mean_class_accuracy']:.3f}  calibration error "
            f"{report['calibration_error']:.3f}  on {counted(report['num_videos'], 'video')}"
            + (f", {seen['num_videos']} of them trained on" if seen else "")
            + f"; always the most frequent class: {report['majority']:.3f}"
        )
        if beside := controls_text(report):
            say(beside)
        if "too few groups" in report["interval"]:
            say(f"interval over {report['interval'].removeprefix('95% over ')}")
        absent = 0
        for row in report["per_class"]:
            if row["accuracy"] is None:
                absent += 1
                continue
            say(
                f"  {row['class']}: {row['accuracy']:.0%} of {counted(row['videos'], 'video')}"
                + (f", most often taken for {row['taken_for']}" if row["taken_for"] else "")
            )
        if absent:
            say(f"  without a video: {absent} of {counted(len(report['per_class']), 'class')}")
    else:
        for name, value in report.items():
            if isinstance(value, (int, float)):
                say(f"  {name}: {value:.4f}" if isinstance(value, float) else f"  {name}: {value}")
    for value in report.values():
        if isinstance(value, dict) and "text" in value and value is not seen:
            say(str(value["text"]))
    for entry in report.get("unreadable", ()):
        say(f"unreadable: {entry['error'] if isinstance(entry, dict) else entry}")


def compare(
    run_a: Annotated[
        str,
        typer.Argument(
            help="An evaluated run, an evaluation's folder, predictions.jsonl, or a report.json of "
            "'marey robustness'."
        ),
    ],
    run_b: Annotated[str, typer.Argument(help="The other one, evaluated on the same videos.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the comparison as JSON; of two robustness reports a page and a CSV "
            "beside it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the permutation test over groups.")] = 0,
    json: Json = False,
) -> None:
    """Say whether B is better than A on the same videos: interval of the difference, McNemar's
    exact test, gains per class; of two robustness reports, clean, corrupted and attacked."""
    from marey.evaluation.report import compare_predictions
    from marey.evaluation.robustness_compare import compare_reports, comparison_text
    from marey.evaluation.robustness_compare_page import comparison_csv, comparison_page
    from marey.files import write_json, write_text

    if run_a.endswith(".json") and run_b.endswith(".json"):
        result = compare_reports(Path(run_a), Path(run_b))
        if out is not None:
            write_json(out, result)
            write_text(out.with_suffix(".html"), comparison_page(result))
            write_text(out.with_suffix(".csv"), comparison_csv(result))
        if json:
            print_json(result)
        else:
            print(comparison_text(result))
        return
    result = compare_predictions(run_a, run_b, seed=seed)
    if out is not None:
        write_json(out, result)
    if json:
        print_json(result)
        return
    print(
        f"A {result['top1_a']:.3f}   B {result['top1_b']:.3f}   on {result['num_videos']} shared "
        "videos"
    )
    if seen := result.get("seen_in_training"):
        clean = seen["clean"]
        others = "no video is left that neither was trained on"
        if clean is not None:
            others = (
                f"on the {clean['num_videos']} others: A {clean['top1_a']:.3f}   B "
                f"{clean['top1_b']:.3f}   B - A = {clean['difference']:+.3f} "
                f"[{clean['low']:+.3f}, {clean['high']:+.3f}]"
            )
        print(f"LEAKED: A was trained on {seen['a']} of them, B on {seen['b']}; {others}")
    print(
        f"B - A = {result['difference']:+.3f} [{result['low']:+.3f}, {result['high']:+.3f}] "
        f"({result['interval']})"
    )
    print(
        f"right only in A: {result['only_a']}, only in B: {result['only_b']}, McNemar p = "
        f"{result['mcnemar_p']:.4f}"
    )
    if result["group_test_p"] is not None:
        print(f"swapping whole groups: p = {result['group_test_p']:.4f}")
    for row in result["per_class"]:
        print(
            f"  {row['class']}: {row['a']:.2f} -> {row['b']:.2f} ({row['gain']:+.2f}, "
            f"{counted(row['videos'], 'video')})"
        )
