"""The page of `marey evaluate`: the score beside its baseline, each class, and the videos that were
answered wrongly as contact sheets."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marey.evaluation.classification import Predictions
from marey.evaluation.video_strip import video_strip
from marey.inference.prediction import NO_PERSON
from marey.persons.blur import Blur

MOST_WRONG = 24
"""Wrong answers shown, the most confident ones first."""
MOST_CLASSES = 30
"""With more classes the confusion matrix is left to confusion.csv."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
td, th { border: 1px solid #8888; padding: .25rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; } .right { background: #2e86c133; } .wrong { background: #c0392b33; }
figure { margin: 1.2rem 0; } figure img { height: 120px; margin-right: 4px; }
.bad { border-left: 5px solid #c0392b; padding-left: .8rem; }
"""


def page(
    report: dict[str, Any], answers: Predictions, root: Path | None, blur: Blur | None = None
) -> str:
    """Return the page, HTML with its pictures inside.

    Args:
        report: of `report_of`, with "model".
        answers: the answers behind it.
        root: folder that the names of the videos are relative to; None: there are no pictures.
        blur: makes people unrecognisable in the pictures.
    """
    title = f"Evaluation of {html.escape(str(report.get('model', 'a model')))}"
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1><p><b>{html.escape(headline(report))}</b></p>"
        f"<p>{html.escape(controls_text(report))}</p>"
    ]
    for part in ("unknown", "nobody", "others"):  # of models of poses
        if (report.get(part) or {}).get("num_videos"):
            parts.append(f"<p>{html.escape(sentence(report[part]['text']))}</p>")
    seen = report.get("seen_in_training")
    if seen:
        parts.append(f"<p class='bad'>{html.escape(seen['text'])}</p>")
    parts += [
        "<h2>Classes</h2>",
        _table(
            ("class", "videos", "right", "most often taken for"),
            [
                (
                    row["class"],
                    row["videos"],
                    "" if row["accuracy"] is None else f"{row['accuracy']:.0%}",
                    row["taken_for"] or "",
                )
                for row in report["per_class"]
                if row["videos"]
            ],
        ),
    ]
    unseen = [row["class"] for row in report["per_class"] if not row["videos"]]
    others = [name for name in unseen if name != NO_PERSON]
    if others:
        parts.append(f"<p>No video shows: {html.escape('; '.join(others))}.</p>")
    confusion = occurring(report["confusion"])
    if len(confusion["classes"]) <= MOST_CLASSES:
        parts += ["<h2>What is taken for what</h2>", _confusion(confusion)]
    parts.append("<h2>Wrong answers</h2>")
    wrong = wrong_answers(answers)
    shown = wrong[:MOST_WRONG]
    if len(wrong) > len(shown):
        parts.append(
            f"<p>The {len(shown)} most confident of {len(wrong)}; predictions.jsonl has all.</p>"
        )
    if not wrong:
        parts.append("<p>None.</p>")
    for row in shown:
        path = None if root is None else root / answers.videos[row]
        pictures = video_strip(path, blur=blur) if path is not None and path.exists() else ""
        best = int(answers.probs[row].argmax())
        caption = (
            f"{answers.videos[row]}: '{answers.class_names[answers.labels[row]]}' was answered "
            f"'{answers.class_names[best]}' {float(answers.probs[row, best]):.0%}"
        )
        parts.append(f"<figure>{pictures}<figcaption>{html.escape(caption)}</figcaption></figure>")
    if report["unreadable"]:
        items = "".join(f"<li>{html.escape(row['error'])}</li>" for row in report["unreadable"])
        parts.append(f"<h2>Not readable</h2><ul>{items}</ul>")
    return "\n".join(parts) + "</html>\n"


def headline(report: dict[str, Any]) -> str:
    """Return the score with its interval and its baseline in one sentence."""
    low, high = report["top1_interval"]
    return (
        f"{report['top1']:.1%} of {report['num_videos']} videos are answered rightly "
        f"({report['interval']}: {low:.1%} to {high:.1%}); always naming the most frequent class "
        f"would be right for {report['majority']:.1%}."
    )


def controls_text(report: dict[str, Any]) -> str:
    """Return what is reached without seeing what people do, in one sentence; empty where it was not
    measured."""
    controls = report.get("controls") or {}
    metadata, picture = controls.get("metadata"), controls.get("one_picture")
    beside = []
    if metadata:
        beside.append(
            f"size, length and rate of the file alone {metadata['accuracy']:.1%} "
            f"({metadata['classifier']}, cross-validated on these videos)"
        )
    if picture:
        beside.append(f"the same model on one picture, held still {picture['accuracy']:.1%}")
    return f"Beside it: {'; '.join(beside)}." if beside else ""


def wrong_answers(answers: Predictions) -> list[int]:
    """Return the rows of the wrong answers, the most confident first."""
    confidence, best = answers.probs.max(1)
    wrong = [row for row, label in enumerate(answers.labels) if int(best[row]) != label]
    return sorted(wrong, key=lambda row: -float(confidence[row]))


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop.

    >>> sentence("nobody was found in 0 of 10 videos")
    'Nobody was found in 0 of 10 videos.'
    """
    return f"{text[:1].upper()}{text[1:]}."


def occurring(confusion: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of those classes that are shown or answered at all.

    >>> occurring({"classes": ["a", "b", "c"], "counts": [[1, 0, 2], [0, 0, 0], [0, 0, 0]]})
    {'classes': ['a', 'c'], 'counts': [[1, 2], [0, 0]]}
    """
    counts = confusion["counts"]
    kept = [k for k, row in enumerate(counts) if any(row) or any(other[k] for other in counts)]
    return {
        "classes": [confusion["classes"][k] for k in kept],
        "counts": [[counts[k][j] for j in kept] for k in kept],
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><tr>{cells}</tr>{lines}</table></div>"


def _confusion(confusion: dict[str, Any]) -> str:
    names = [html.escape(name) for name in confusion["classes"]]
    head = "<th>shown, answered:</th>" + "".join(f"<th>{name}</th>" for name in names)
    lines = ""
    for k, row in enumerate(confusion["counts"]):
        cells = ""
        for j, count in enumerate(row):
            kind = "right" if j == k else "wrong" if count else ""
            cells += f"<td class='{kind}'>{count or ''}</td>"
        lines += f"<tr><th>{names[k]}</th>{cells}</tr>"
    return f"<div class='wide'><table><tr>{head}</tr>{lines}</table></div>"
