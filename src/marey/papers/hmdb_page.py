"""The page of the fine-tuning study: tables, tests, confusion matrix, attention maps, right and
wrong videos (Figs. 3, 5, 6, 7)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from marey.explain.attention import lay_over
from marey.papers.tables import Result, by_table, show
from marey.transforms.functional import resize
from marey.video.decode import open_video
from marey.video.draw import clock, contact_sheet

STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;"
    "line-height:1.45} table{border-collapse:collapse;margin:.6em 0 1.4em} "
    "td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd} "
    "td:first-child,th:first-child{text-align:left} img{max-width:100%} "
    ".control{color:#777} .bar{fill:#2e86c1} .grid td{padding:0;border:0} "
    "figure{margin:1em 0} figcaption{font-size:.9em;color:#333}"
)


@dataclass(frozen=True)
class Answers:
    """The answers of one line at one seed."""

    class_names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    """{"video", "label", "probabilities"}, one per test video."""


def render_page(
    results: Sequence[Result],
    reading: str,
    described: Mapping[str, Any] | None,
    answers: Answers | None,
    maps: Sequence[Mapping[str, Any]],
    paths: Mapping[str, Path],
) -> str:
    """Return the page as HTML.

    Args:
        results: the tables.
        reading: what a person concluded from them.
        described: what `contrasts.describe_lines` returned; None without it.
        answers: of the line whose confusion matrix and videos are shown.
        maps: attention maps, {"video", "label", "attention"}, the shares of T frames of h x h
            cells.
        paths: video name -> file; frames are shown of those that are there.
    """
    body = ["<h1>Fine-tuning study</h1>"]
    body += [f"<p>{html.escape(part)}</p>" for part in reading.split("\n") if part]
    lines = {row["line"]: row for row in (described or {"lines": []})["lines"]}
    for table, members in by_table(results):
        body += [f"<h2>{html.escape(table or 'Results')}</h2>", table_of(members, lines)]
    if answers is not None:
        names, rows = answers.class_names, answers.rows
        body += ["<h2>Confusion matrix (rows: truth)</h2>", confusion_table(rows, names)]
    if maps and answers is not None:
        body += ["<h2>Attention maps</h2>", MAPS_NOTE]
        body += [map_figure(one, answers.class_names, paths.get(one["video"])) for one in maps]
    if answers is not None:
        right = [row for row in rows if best(row) == row["label"]]
        wrong = [row for row in rows if best(row) != row["label"]]
        for title, group in (("Right", spread(right)), ("Wrong", spread(wrong))):
            body.append(f"<h2>{title}</h2>")
            body += [figure(row, names, paths.get(row["video"])) for row in group] or [
                "<p>None.</p>"
            ]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Fine-tuning study</title>"
        f"<style>{STYLE}</style>{''.join(body)}</html>"
    )


MAPS_NOTE = (
    "<p>Attention of the class token rolled out through all blocks, one square per sampled frame, "
    "for the first rightly answered video of each class; darker draws more.</p>"
)


def best(row: Mapping[str, Any]) -> int:
    """Return the class with the highest probability."""
    return max(range(len(row["probabilities"])), key=lambda k: row["probabilities"][k])


def spread(rows: Sequence[Mapping[str, Any]], count: int = 4) -> list[Mapping[str, Any]]:
    """Return up to `count` rows of different classes where there are such."""
    first: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row["label"], row)
    chosen = list(first.values())
    return (chosen + [row for row in rows if row not in chosen])[:count]


def table_of(results: Sequence[Result], lines: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the study: ours with its interval, the paper's number, and the test."""
    head = (
        "<tr><th>line</th><th>seeds</th><th>top-1</th><th>95% interval</th><th></th>"
        "<th>top-5</th><th>study's top-1, top-5</th><th>difference (95% interval), p</th></tr>"
    )
    body = ""
    for result in results:
        line = lines.get(result.name, {})
        low, high = line.get("low"), line.get("high")
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        ours = show(result.mean("top1")) if result.values.get("top1") else "not run"
        quoted = ", ".join(show(result.paper[k]) for k in ("top1", "top5") if k in result.paper)
        fields = [
            str(len(result.seeds_run)),
            ours,
            interval,
            bar(result.mean("top1"), low, high),
            show(result.mean("top5")),
            quoted,
            test_text(line.get("against")),
        ]
        name = html.escape(result.name.partition(": ")[2] or result.name)
        note = f" <small>({html.escape(result.note)})</small>" if result.note else ""
        kind = " class='control'" if "control" in result.name else ""
        cells = "".join(f"<td>{field}</td>" for field in fields)
        body += f"<tr{kind}><td>{name}{note}</td>{cells}</tr>"
    return f"<table>{head}{body}</table>"


def bar(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a small drawing of a percentage with its interval."""
    if mean is None:
        return ""
    drawn = f"<rect class='bar' x='0' y='3' width='{mean:.1f}' height='8'/>"
    if low is not None and high is not None:
        drawn += f"<path d='M{low:.1f} 7H{high:.1f}' stroke='#111' stroke-width='1.5'/>"
    return f"<svg width='100' height='14' role='img' aria-label='{mean:.1f}%'>{drawn}</svg>"


def test_text(against: Mapping[str, Any] | None) -> str:
    """Return a paired difference as text; "" for none."""
    if against is None:
        return ""
    other = html.escape(against["line"].partition(": ")[2] or against["line"])
    return (
        f"{against['difference']:+.1f} ({against['low']:+.1f} to {against['high']:+.1f}) from "
        f"{other}; p {against['p']:.3g}, corrected {against['holm']:.3g}"
    )


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


def map_figure(one: Mapping[str, Any], names: Sequence[str], path: Path | None, T: int = 8) -> str:
    """Return an attention map: laid over the sampled frames where the video is there, else as
    squares."""
    shares = torch.tensor(one["attention"])
    side = round((len(shares) / T) ** 0.5)
    relevance = shares.view(T, side, side)
    caption = f"{html.escape(one['video'])}: {html.escape(names[one['label']])}"
    if path is None:
        drawn = squares(relevance)
    else:
        with open_video(path) as reader:
            places = [round(t * (reader.num_frames - 1) / (T - 1)) for t in range(T)]
            clip = reader.frames_at(places)
        tinted = lay_over(resize(clip.frames, 128, 128, "bilinear"), relevance)
        drawn = sheet(tinted, [clock(seconds) for seconds in clip.frame_seconds])
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def squares(relevance: torch.Tensor, pixels: int = 22) -> str:
    """Return a map (T, h, w) as T drawn grids side by side."""
    T, h, w = relevance.shape
    high = float(relevance.max()) or 1.0
    drawn = ""
    for t in range(T):
        for y in range(h):
            for x in range(w):
                shade = float(relevance[t, y, x]) / high
                place = f"x='{t * (w * pixels + 8) + x * pixels}' y='{y * pixels}'"
                drawn += (
                    f"<rect {place} width='{pixels}' height='{pixels}' fill='#b5410b' "
                    f"fill-opacity='{shade:.2f}' stroke='#eee'/>"
                )
    size = f"width='{T * (w * pixels + 8)}' height='{h * pixels}'"
    return f"<svg {size} role='img' aria-label='attention map'>{drawn}</svg>"


def figure(row: Mapping[str, Any], names: Sequence[str], path: Path | None) -> str:
    """Return one video of a gallery: four frames, where it is there, and the top-5."""
    top = sorted(range(len(names)), key=lambda k: -row["probabilities"][k])[:5]
    answers = ", ".join(f"{html.escape(names[k])} {row['probabilities'][k]:.0%}" for k in top)
    picture = ""
    if path is not None:
        with open_video(path) as reader:
            clip = reader.frames_at([reader.num_frames * (2 * i + 1) // 8 for i in range(4)])
        picture = sheet(clip.frames, [clock(seconds) for seconds in clip.frame_seconds])
    truth = html.escape(names[row["label"]])
    return (
        f"<figure>{picture}<figcaption>{html.escape(row['video'])}: <b>{truth}</b>; "
        f"answers {answers}</figcaption></figure>"
    )


def sheet(frames: torch.Tensor, times: Sequence[str]) -> str:
    """Return frames side by side as a picture inside the page."""
    stream = io.BytesIO()
    contact_sheet(frames, list(times), width=200).save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{data}'>"
