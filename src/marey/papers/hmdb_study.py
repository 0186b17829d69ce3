"""`marey reproduce hmdb-study`: Tables 1 to 5 of Kaur's fine-tuning study.

Full scale is the study: the public TimeSformer and ViViT, fine-tuned on the user's HMDB51
(`--data`, drawn as HMDB_simp). The checkpoint that is scored on the test videos is the best epoch
on validation videos, as in the study; the last epoch's score stands beside it.

Mini scale asks the study's questions of small transformers on stored ImageNet features, on every
video of a folder in turn (`hmdb_mini`).
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marey.datasets import open_dataset
from marey.datasets.index import DatasetIndex
from marey.datasets.manifest import write_manifest
from marey.datasets.split import hold_out, labelled
from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.files import write_json, write_text
from marey.papers import hmdb_mini
from marey.papers.cells import (
    Cell,
    ReproduceOptions,
    Row,
    cell_path,
    cells_of,
    read_tables,
    rows_of,
)
from marey.papers.contrasts import Line, describe_lines
from marey.papers.hmdb_mini import MiniRow, Source
from marey.papers.hmdb_page import Answers, render_page
from marey.papers.tables import Result, stored_reading
from marey.recipes.hmdb_study import timesformer_hmdb_simp, vivit_hmdb_simp
from marey.training.config import ModelConfig, TrainConfig
from marey.training.loop import train

SEED = 42
DATA_NAME = "ut_interaction"
"""The folder the mini tables in results/ were made on; assumed where no --data is given, which is
enough to draw the page of stored results again."""

TABLES = read_tables("hmdb_study")
FULL_ROWS = rows_of(TABLES, "full", Row)
MINI_ROWS = rows_of(TABLES, "mini", MiniRow)
CONTROL_ROWS = rows_of(TABLES, "control", MiniRow)
QUOTED_ROWS = rows_of(TABLES, "quoted", Row)
PIXEL_ROWS = rows_of(TABLES, "pixels", Row)
BASE = "Table 1: batch 8, SGD 0.0035"
"""The study's best configuration."""
CONFUSED = "Table 3: equidistant"
"""The mini line whose answers the page shows."""
MAPPED = "Cells: 4 x 4 of every frame"
"""The mini line whose attention maps the page shows."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if no data is given."""
    if options.data is None:
        raise UserError(
            "hmdb-study needs --data: a folder of class folders (mini), or HMDB51 (full)"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: each line of the tables times the seeds."""
    return full_cells(options) if options.scale == "full" else mini_cells(options)


def quoted(options: ReproduceOptions) -> list[Result]:
    """List the study's lines that no cell at this scale can run."""
    if options.scale == "full":
        return []
    return [
        Result(
            name=row.name,
            table=table_of(row.name),
            note="quoted from the study; needs its checkpoints",
            paper=dict(row.paper or {}),
            values={},
            seeds_run=[],
            seeds_planned=[],
            errors=[],
        )
        for row in QUOTED_ROWS
    ]


def table_of(name: str) -> str:
    """Return the table a line belongs to: what its name starts with."""
    return name.partition(":")[0]


# ---- full scale, and the line from pixels --------------------------------------------------------


def full_cells(options: ReproduceOptions) -> list[Cell]:
    """List the study's lines on its checkpoints, its best configuration first."""
    found: list[Cell] = []
    for row in sorted(FULL_ROWS, key=lambda row: row.name[:7]):
        base = vivit_hmdb_simp() if row.base == "ViViT" else timesformer_hmdb_simp()
        config = row.configure(base)
        found += cells_of(
            options,
            row,
            functools.partial(run_line, row.name, config, options),
            estimate_seconds=3600.0,
            table=table_of(row.name),
            settings={"data": options.data_name, "epochs": config.train.epochs, "val": True},
        )
    return found


def pixel_base() -> TrainConfig:
    """Return a small TimeSformer whose image network trains too, on 2 frames of 64 pixels."""
    study = timesformer_hmdb_simp()
    assert study.data.preprocess is not None
    sampling = replace(study.data.preprocess.sampling, kind="equidistant", num_frames=2)
    preprocess = replace(study.data.preprocess, sampling=sampling, image_size=64, short_side=64)
    arguments = {
        "patch_size": 32,
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "stem": "efficientnet_lite0",
        "stem_stage": 6,
        "freeze_stem_norm": True,
    }
    return replace(
        study,
        recipe="hmdb_study pixels",
        model=ModelConfig(name="timesformer", arguments=arguments, imagenet_stem=True),
        data=replace(study.data, preprocess=preprocess),
        optim=replace(study.optim, name="adam", lr=0.001, weight_decay=0.0),
        train=replace(study.train, epochs=3, patience=None, calibrate=False, tensorboard=False),
    )


def run_line(
    name: str, config: TrainConfig, options: ReproduceOptions, seed: int
) -> dict[str, Any]:
    """Train one line and score it on the test videos, in percent; the run stays in the cache.

    The best epoch is chosen on the validation videos, which training does not see.

    Returns:
        "top1" and "top5" of the best epoch, "top1_last" of the last one, and the number of test
        videos.
    """
    manifest = split_manifest(str(options.data), options.cache, options.scale)
    config = options.at_full_scale(config, seed)
    config = replace(config, data=replace(config.data, path=str(manifest)))
    out = run_folder(options.cache, name, seed)
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted cell left
    train(config, out, quiet=True)

    settings = EvaluateOptions(split="test", device=options.device)
    report, answers = evaluate(out / "best", str(manifest), settings)
    last, _ = evaluate(out / "last", str(manifest), settings)
    if answers is not None:
        answered = zip(answers.videos, answers.labels, answers.probs.tolist(), strict=True)
        rows = [
            {"video": video, "label": label, "probabilities": probabilities}
            for video, label, probabilities in answered
        ]
        stored = {"class_names": answers.class_names, "rows": rows}
        write_json(out / "answers.json", stored, indent=None)
    return {
        "top1": 100 * report["top1"],
        "top5": 100 * report["top5"],
        "top1_last": 100 * last["top1"],
        "run": out.name,
        "test_videos": str(report["num_videos"]),
    }


def run_folder(cache: Path, name: str, seed: int) -> Path:
    """Return where a line's run lies."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return cache / "runs" / f"{slug}-seed{seed}"


def split_manifest(data: str, cache: Path, scale: str) -> Path:
    """Write the train, val and test videos that the cells share.

    Splits that the data has are kept. HMDB_simp has 900, 225 and 125 videos. Without a test split
    the first of the mini scale's folds is tested; without a val split a fifth of the training
    videos is held out, as in the study ("80:20 for train:val of the remaining 90").
    """
    manifest = cache / "manifest.csv"
    if manifest.is_file():
        return manifest
    index = open_dataset(data, dataset="hmdb_simp" if scale == "full" else None)
    if not {"train", "test"} <= set(index.splits):
        rest, test = hold_out(labelled(index), 1 / hmdb_mini.FOLDS, SEED)
        index = joined(index, rest, "train", test, "test", data)
    if "val" not in index.splits:
        rest, val = hold_out(labelled(index.split("train")), 0.2, SEED)
        kept = joined(index, rest, "train", val, "val", data)
        index = replace(index, samples=kept.samples + index.split("test").samples)

    used = [sample for sample in index.samples if sample.split in ("train", "val", "test")]
    placed = tuple(replace(sample, path=sample.path.resolve()) for sample in used)
    cache.mkdir(parents=True, exist_ok=True)
    write_manifest(replace(index, samples=placed), manifest)
    return manifest


def joined(
    index: DatasetIndex,
    rest: DatasetIndex,
    name: str,
    held: DatasetIndex | None,
    held_name: str,
    data: str,
) -> DatasetIndex:
    """Return the index with two parts of its samples under their split names.

    Raises:
        UserError: if nothing was held out.
    """
    if held is None:
        raise UserError(
            f"{data}: cannot hold out {held_name} videos; give every class at least three groups"
        )
    parts = (rest.samples, name), (held.samples, held_name)
    samples = [replace(sample, split=split) for part, split in parts for sample in part]
    return replace(index, samples=tuple(samples))


# ---- mini scale ---------------------------------------------------------------------------------


def mini_cells(options: ReproduceOptions) -> list[Cell]:
    """List the mini lines, the controls of every table of the videos, and the line from pixels."""
    data = DATA_NAME if options.data is None else options.data_name
    rows = list(MINI_ROWS)
    for table in dict.fromkeys(table_of(row.name) for row in rows if row.data == "videos"):
        rows += [replace(row, name=f"{table}: {row.name}") for row in CONTROL_ROWS]
    rows.sort(key=lambda row: table_of(row.name))

    found: list[Cell] = []
    for row in rows:
        on_renders = row.data == "renders"
        depends_on: dict[str, Any] = {
            "data": "renders" if on_renders else data,
            "epochs": hmdb_mini.RENDER_EPOCHS if on_renders else hmdb_mini.EPOCHS,
            "folds": 1 if on_renders else hmdb_mini.FOLDS,
            "set": dict(row.set),
            "rates": list(row.rates),
            "start": row.start,
        }
        seeds = replace(options, seeds=1) if row.control else options
        found += cells_of(
            seeds,
            row,
            functools.partial(run_mini, row, options),
            estimate_seconds=30.0 * max(1, len(row.rates)),
            table=table_of(row.name),
            settings=depends_on,
            needs_data=not on_renders,
        )
    for pixels in PIXEL_ROWS:
        config = pixels.configure(pixel_base())
        found += cells_of(
            replace(options, seeds=1),
            pixels,
            functools.partial(run_line, pixels.name, config, options),
            estimate_seconds=60.0,
            table=table_of(pixels.name),
            settings={"data": data, "epochs": config.train.epochs},
        )
    return found


def run_mini(row: MiniRow, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Answer every clip by a line and return its scores in percent, with the answers.

    All seeds are trained together, when the first is asked for.

    Returns:
        "top1", "top5", "top1_last" (the last epoch instead of the best), "train_top1"; and as text
        "answers", "labels" and "groups" of the clips.
    """
    cache, base = options.cache, hmdb_mini.mini_base()
    if row.control:
        videos = hmdb_mini.videos(str(options.data), cache)
        guesses = hmdb_mini.control_answers(row.control, videos, cache)
        return scores_of(videos, list(range(len(guesses))), guesses)

    source: Source
    if row.data == "renders":
        source, base = hmdb_mini.renders(cache), hmdb_mini.render_base()
    else:
        source = hmdb_mini.videos(str(options.data), cache)

    found = hmdb_mini.answer_row(row, source, options.seeds, cache, base)[seed]
    answers = found["rows"]
    numbers = [answer["number"] for answer in answers]
    scores = scores_of(source, numbers, [best(answer["probabilities"]) for answer in answers])
    last = scores_of(source, numbers, [best(answer["last"]) for answer in answers])
    among_five = [
        source.labels[answer["number"]] in ranking(answer["probabilities"])[:5]
        for answer in answers
    ]
    scores["top5"] = 100 * sum(among_five) / len(answers)
    scores["top1_last"] = last["top1"]
    scores["train_top1"] = 100 * sum(found["train_top1"]) / len(found["train_top1"])
    if len(row.rates) > 1:
        scores["rates"] = " ".join(f"{rate:g}" for rate in found["rates"])
    if row.name == CONFUSED:
        scores["videos"] = [source.names[number] for number in numbers]
        scores["probabilities"] = [as_text(answer["probabilities"]) for answer in answers]
    if row.name == MAPPED and "attention" in answers[0]:
        scores["maps"] = maps_of(source, answers)
    return scores


def scores_of(source: Source, numbers: Sequence[int], guesses: Sequence[int]) -> dict[str, Any]:
    """Return the share of right answers in percent, and the answers."""
    labels = [source.labels[number] for number in numbers]
    right = sum(guess == label for guess, label in zip(guesses, labels, strict=True))
    return {
        "top1": 100 * right / len(labels),
        "answers": as_text(guesses),
        "labels": as_text(labels),
        "groups": as_text([source.groups[number].replace(" ", "_") for number in numbers]),
        "class_names": list(source.class_names),
    }


def maps_of(source: Source, answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the attention map of the first video of every class that was answered rightly."""
    found: dict[int, dict[str, Any]] = {}
    for answer in answers:
        label = source.labels[answer["number"]]
        if label not in found and best(answer["probabilities"]) == label:
            name = source.names[answer["number"]]
            shares = as_text(answer["attention"])
            found[label] = {"video": name, "label": label, "attention": shares}
    return [found[label] for label in sorted(found)]


def as_text(values: Sequence[Any]) -> str:
    """Return values side by side, so that a results file has one line for them."""
    return " ".join(str(value) for value in values)


def best(probabilities: Sequence[float]) -> int:
    """Return the class with the highest probability."""
    return ranking(probabilities)[0]


def ranking(probabilities: Sequence[float]) -> list[int]:
    """Return the classes, the most probable first."""
    return sorted(range(len(probabilities)), key=lambda k: -probabilities[k])


# ---- page ---------------------------------------------------------------------------------------


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write contrasts.json and the study's page from the stored results under `out`.

    The frames of the videos are on it where --data gives the videos; the numbers, the confusion
    matrix and the attention maps need only the results.
    """
    if options.scale == "full":
        return full_page(out, results, options)
    lines = stored_lines(out, results)
    described = describe_lines(lines)
    write_json(out / "contrasts.json", described)
    answers, maps = stored_answers(out), stored_maps(out)
    paths = {}
    if options.data is not None:
        index = open_dataset(options.data)
        paths = {index.relative_path(sample): sample.path for sample in index.samples}
    text = render_page(results, stored_reading(out), described, answers, maps, paths)
    write_text(out / "index.html", text)
    return out / "index.html"


def full_page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write the page of the full scale from the first finished run."""
    ran = [result for result in results if result.seeds_run]
    first = next((result for result in ran if result.name == BASE), ran[0])
    path = run_folder(options.cache, first.name, first.seeds_run[0]) / "answers.json"
    answers, paths = None, {}
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        answers = Answers(class_names=stored["class_names"], rows=stored["rows"])
        manifest = open_dataset(options.cache / "manifest.csv")
        paths = {manifest.relative_path(sample): sample.path for sample in manifest.samples}
    text = render_page(results, stored_reading(out), None, answers, [], paths)
    write_text(out / "index.html", text)
    return out / "index.html"


def stored_lines(out: Path, results: Sequence[Result]) -> list[Line]:
    """Return the mini lines of stored results with the answers of every seed, in listed order."""
    against = {row.name: row.against for row in MINI_ROWS}
    found = []
    for result in results:
        stored = [stored_cell(out, result.name, seed) for seed in result.seeds_run]
        stored = [cell for cell in stored if "answers" in cell]
        if stored:
            found.append(
                Line(
                    name=result.name,
                    table=result.table,
                    against=against.get(result.name, ""),
                    answers=[[int(k) for k in cell["answers"].split()] for cell in stored],
                    labels=[int(k) for k in stored[0]["labels"].split()],
                    groups=stored[0]["groups"].split(),
                )
            )
    return found


def stored_cell(out: Path, name: str, seed: int) -> dict[str, Any]:
    """Return the results of a finished cell."""
    text = cell_path(out, name, seed).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)["results"]
    return found


def stored_answers(out: Path) -> Answers | None:
    """Return the answers of the line `CONFUSED` at seed 0, None where it has not run."""
    try:
        cell = stored_cell(out, CONFUSED, 0)
    except FileNotFoundError:
        return None
    labels = [int(k) for k in cell["labels"].split()]
    rows = [
        {"video": video, "label": label, "probabilities": [float(p) for p in text.split()]}
        for video, label, text in zip(cell["videos"], labels, cell["probabilities"], strict=True)
    ]
    return Answers(class_names=cell["class_names"], rows=rows)


def stored_maps(out: Path) -> list[dict[str, Any]]:
    """Return the attention maps of the line `MAPPED`: "video", "label", "attention" (8 x 16)."""
    try:
        maps = stored_cell(out, MAPPED, 0).get("maps", [])
    except FileNotFoundError:
        return []
    return [{**one, "attention": [float(p) for p in one["attention"].split()]} for one in maps]
