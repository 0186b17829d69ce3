"""The page of the fine-tuning study: tables, confusion matrix, right and wrong videos (Figs. 3, 6,
7)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from marey.papers.tables import Result, text_table
from marey.video.decode import open_video
from marey.video.draw import clock, contact_sheet

STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em} "
    "td,th{padding:.2em .6em;text-align:right} img{max-width:100%}"
)


def render_page(
    results: Sequence[Result], reading: str, answers: Mapping[str, Any], paths: Mapping[str, Path]
) -> str:
    """Return the page as HTML.

    Args:
        results: the tables.
        reading: what a person concluded from them.
        answers: "class_names", and "rows" of {"video", "label", "probabilities"}.
        paths: video name in `answers` -> file.
    """
    names, rows = answers["class_names"], answers["rows"]
    right = [row for row in rows if best(row) == row["label"]]
    wrong = [row for row in rows if best(row) != row["label"]]
    body = [
        f"<h1>Fine-tuning study</h1><pre>{html.escape(text_table(results))}</pre>",
        f"<p>{html.escape(reading)}</p>" if reading else "",
        "<h2>Confusion matrix (rows: truth)</h2>",
        confusion_table(rows, names),
    ]
    for title, group in (("Right", right[:4]), ("Wrong", wrong[:4])):
        body.append(f"<h2>{title}</h2>")
        figures = [figure(row, names, paths.get(row["video"])) for row in group]
        body += figures or ["<p>None.</p>"]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Fine-tuning study</title>"
        f"<style>{STYLE}</style>{''.join(body)}</html>"
    )


def best(row: Mapping[str, Any]) -> int:
    """Return the class with the highest probability."""
    return max(range(len(row["probabilities"])), key=lambda k: row["probabilities"][k])


def confusion_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return the confusion matrix as an HTML table, counts shaded by their share of the row."""
    K = len(names)
    counts = torch.zeros(K, K, dtype=torch.long)
    for row in rows:
        counts[row["label"], best(row)] += 1
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)

    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ""
    for truth, name in enumerate(names):
        fields = ""
        for answer in range(K):
            shade = f"background:rgba(46,134,193,{float(shares[truth, answer]):.2f})"
            fields += f"<td style='{shade}'>{int(counts[truth, answer])}</td>"
        body += f"<tr><th>{html.escape(name)}</th>{fields}</tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def figure(row: Mapping[str, Any], names: Sequence[str], path: Path | None) -> str:
    """Return one video of a gallery: four frames and the top-5."""
    top = sorted(range(len(names)), key=lambda k: -row["probabilities"][k])[:5]
    answers = ", ".join(f"{html.escape(names[k])} {row['probabilities'][k]:.0%}" for k in top)
    picture = ""
    if path is not None:
        with open_video(path) as reader:
            clip = reader.frames_at([reader.num_frames * (2 * i + 1) // 8 for i in range(4)])
        times = [clock(seconds) for seconds in clip.frame_seconds]
        stream = io.BytesIO()
        contact_sheet(clip.frames, times, width=200).save(stream, "JPEG", quality=80)
        data = base64.b64encode(stream.getvalue()).decode()
        picture = f"<img alt='' src='data:image/jpeg;base64,{data}'>"
    truth = html.escape(names[row["label"]])
    return (
        f"<figure>{picture}<figcaption>{html.escape(row['video'])}: <b>{truth}</b>; "
        f"answers {answers}</figcaption></figure>"
    )
