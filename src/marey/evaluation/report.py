"""The files of an evaluation: report.html, report.json, predictions.jsonl, per_class.csv,
confusion.csv and confusion.png."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from marey.errors import UserError
from marey.evaluation.classification import Predictions
from marey.evaluation.page import page
from marey.files import DAMAGE, finite, write_csv, write_figure, write_json, write_text
from marey.metrics.comparison import compare
from marey.persons.blur import Blur

PREDICTIONS = "predictions.jsonl"
FOLDER = "evaluation"
"""Folder below a run that `marey evaluate RUN` writes and `marey compare` reads."""


def write_report(
    folder: Path,
    report: dict[str, Any],
    answers: Predictions | None,
    *,
    root: Path | None = None,
    blur: Blur | None = None,
) -> None:
    """Write the report and, for classifiers, the answers behind it and a page; files of an earlier
    evaluation are replaced.

    Args:
        root: folder of the videos, for the pictures of the page; None: it has none.
        blur: makes people unrecognisable in them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if answers is not None:
        save_predictions(folder / PREDICTIONS, answers)
        _write_csv(folder / "per_class.csv", report["per_class"])
        classes, counts = report["confusion"]["classes"], report["confusion"]["counts"]
        _write_csv(
            folder / "confusion.csv",
            [
                {"true \\ predicted": name, **dict(zip(classes, row, strict=True))}
                for name, row in zip(classes, counts, strict=True)
            ],
        )
        draw_confusion(folder / "confusion.png", classes, counts)
        write_text(folder / "report.html", page(report, answers, root, blur))
    write_json(folder / "report.json", finite(report), indent=1)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    write_csv(path, [list(rows[0]), *(list(row.values()) for row in rows)])


def save_predictions(path: Path, answers: Predictions) -> None:
    """Write one JSON line for the class names and one per video, unreadable ones included."""
    lines: list[dict[str, Any]] = [{"class_names": answers.class_names}]
    for row, video in enumerate(answers.videos):
        probs, label = answers.probs[row], answers.labels[row]
        best = int(probs.argmax())
        lines.append(
            {
                "video": video,
                "label": answers.class_names[label],
                "predicted": answers.class_names[best],
                "probability": float(probs[best]),
                "correct": best == label,
                "group": answers.groups[row],
                "ood": float(answers.ood[row]) if answers.ood is not None else None,
                "seen_in_training": None if answers.seen is None else answers.seen[row],
                "logits": answers.logits[row].tolist(),
                "probs": probs.tolist(),
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines + answers.unreadable)
    write_text(path, text)


def load_predictions(source: str | Path) -> Predictions:
    """Read saved answers back, from their file, the folder of an evaluation, or a run.

    Raises:
        UserError: if there are none, or the file is damaged.
    """
    path = find_predictions(Path(source))
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        names = lines[0]["class_names"]
        rows = [line for line in lines[1:] if "probs" in line]
        numbers = {name: number for number, name in enumerate(names)}
        return Predictions(
            videos=[row["video"] for row in rows],
            labels=[numbers[row["label"]] for row in rows],
            groups=[row["group"] for row in rows],
            class_names=names,
            logits=torch.tensor([row["logits"] for row in rows]),
            probs=torch.tensor([row["probs"] for row in rows]),
            ood=torch.tensor([row["ood"] for row in rows])
            if rows and rows[0]["ood"] is not None
            else None,
            unreadable=[line for line in lines[1:] if "error" in line],
            seen=[bool(row["seen_in_training"]) for row in rows]
            if rows and rows[0].get("seen_in_training") is not None
            else None,
        )
    except (*DAMAGE, RuntimeError) as error:
        raise UserError(
            f"{path}: not predictions written by 'marey evaluate' ({error!r})"
        ) from error


def find_predictions(source: Path) -> Path:
    """Return the predictions file of a run, of an evaluation's folder, or the file itself."""
    for path in (source, source / PREDICTIONS, source / FOLDER / PREDICTIONS):
        if path.is_file():
            return path
    raise UserError(
        f"{source}: no {PREDICTIONS} there or in {FOLDER}/; run 'marey evaluate {source} --data "
        "DATA' first"
    )


def compare_predictions(
    source_a: str | Path, source_b: str | Path, *, seed: int = 0
) -> dict[str, Any]:
    """Compare two models by their saved answers on the videos both answered.

    Raises:
        UserError: if they share no video, or disagree about a label.
    """
    a, b = load_predictions(source_a), load_predictions(source_b)
    shared = _shared(a.videos, b.videos)
    if not shared:
        raise UserError(
            f"{source_a} and {source_b} have no video in common (first: {a.videos[:1]}, "
            f"{b.videos[:1]}); evaluate both on the same --data and --split"
        )
    labels = [a.class_names[a.labels[n]] for n, _ in shared]
    for (n, m), label in zip(shared, labels, strict=True):
        if b.class_names[b.labels[m]] != label:
            other = b.class_names[b.labels[m]]
            raise UserError(
                f"{a.videos[n]} is '{label}' in {source_a} but '{other}' in {source_b}; evaluate "
                "both on the same data"
            )
    first, second = (
        torch.tensor([pair[0] for pair in shared]),
        torch.tensor([pair[1] for pair in shared]),
    )
    correct_a = a.probs.argmax(1)[first] == torch.tensor(a.labels)[first]
    correct_b = b.probs.argmax(1)[second] == torch.tensor(b.labels)[second]
    groups = [a.groups[n] for n, _ in shared]
    result = {
        "a": str(source_a),
        "b": str(source_b),
        "not_shared": len(a.videos) + len(b.videos) - 2 * len(shared),
        **compare(correct_a, correct_b, labels, groups=groups, seed=seed),
    }
    seen_a, seen_b = _seen_of(a, first), _seen_of(b, second)
    clean = ~(seen_a | seen_b)
    if not bool(clean.all()):
        rows = clean.nonzero()[:, 0].tolist()
        result["seen_in_training"] = {
            "a": int(seen_a.sum()),
            "b": int(seen_b.sum()),
            "clean": None
            if not rows
            else compare(
                correct_a[clean],
                correct_b[clean],
                [labels[row] for row in rows],
                groups=[groups[row] for row in rows],
                seed=seed,
            ),
        }
    return result


def _shared(first: list[str], second: list[str]) -> list[tuple[int, int]]:
    """Return the rows of the videos that both lists name.

    A copy in another format is the same video: where no name is in both lists, names are compared
    without their suffix, as far as they are still distinct.
    """
    row = {video: number for number, video in enumerate(second)}
    shared = [(n, row[video]) for n, video in enumerate(first) if video in row]
    if shared:
        return shared
    stems = [[os.path.splitext(video)[0] for video in videos] for videos in (first, second)]
    if any(len(set(names)) < len(names) for names in stems):
        return []
    row = {stem: number for number, stem in enumerate(stems[1])}
    return [(n, row[stem]) for n, stem in enumerate(stems[0]) if stem in row]


def _seen_of(answers: Predictions, rows: torch.Tensor) -> torch.Tensor:
    """Return which of some videos a model was trained on, bool; False where it does not say."""
    return torch.tensor(answers.seen or [False] * len(answers.videos))[rows]


def draw_confusion(path: Path, classes: list[str], counts: list[list[int]]) -> bool:
    """Draw the confusion matrix, rows as shares of a class's videos; returns False without
    matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matrix = torch.tensor(counts, dtype=torch.double)
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    size = min(24.0, 3.0 + 0.32 * len(classes))
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        xticks=range(len(classes)),
        yticks=range(len(classes)),
        title=f"{int(matrix.diagonal().sum())} of {int(matrix.sum())} right",
    )
    small = 9 if len(classes) <= 30 else 5
    axes.set_xticklabels(classes, rotation=90, fontsize=small)
    axes.set_yticklabels(classes, fontsize=small)
    if len(classes) <= 30:
        for row in range(len(classes)):
            for column in range(len(classes)):
                if counts[row][column]:
                    axes.text(
                        column,
                        row,
                        str(counts[row][column]),
                        ha="center",
                        va="center",
                        fontsize=small,
                        color="white" if shares[row, column] > 0.6 else "black",
                    )
    write_figure(path, figure, dpi=120)
    plt.close(figure)
    return True
