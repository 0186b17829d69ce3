"""The page of `marey trust`: report.html, report.json and card.md."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marey.files import finite, write_json, write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
td, th { border: 1px solid #bbb; padding: .25rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
svg { max-width: 100%; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
"""
NONE = "–"

Row = Sequence[Any]


def write_trust(report: dict[str, Any], out: Path) -> list[Path]:
    """Write report.html, report.json and card.md, the table for a model card.

    Args:
        report: of `measure_trust`, with "model", "data" and "command".
    """
    written = [out / "report.html", out / "report.json", out / "card.md"]
    write_text(written[0], page(report))
    write_json(written[1], finite(report), indent=1)
    write_text(written[2], "\n".join(card(report)) + "\n")
    return written


def summary(report: dict[str, Any]) -> list[str]:
    """Return what was found, one sentence each."""
    known = report["known"]
    low, high = known["accuracy_interval"]
    lines = [
        f"{known['num_videos']} known videos: accuracy {known['accuracy']:.2f} ({known['interval']}"
        f": {low:.2f} to {high:.2f}), calibration error {known['ece']:.3f} (a perfect model "
        f"stays below {known['ece_noise_floor']:.3f})"
    ]
    if report["training_videos"]:
        lines.append(f"{report['training_videos']} videos that the model was trained on: left out")
    best = known["answers_at_95"]
    lines.append(
        "no share of the videos is answered at 95 % accuracy"
        if best is None
        else f"answers {best['coverage']:.0%} of the videos at {best['accuracy']:.0%} accuracy, "
        f"from probability {best['threshold']:.2f} on"
    )
    sets = known["set"]
    lines.append(
        "no prediction sets are stored with the model"
        if sets is None
        else f"sets of {sets['asked']:.0%}: {sets['coverage']:.0%} hold the true class, "
        f"{sets['mean_size']:.2f} classes in the mean (the {sets['fixed_top_k']} most probable "
        "would be needed for the same)"
    )
    lines.append(f"called unknown by mistake: {known['false_alarms']:.1%} of the known videos")
    for name, what in (("near", "other actions"), ("far", "other footage")):
        part = report[name]
        if part is not None:
            own = part["scores"].get(part["own"])
            tested = "no test of its own" if own is None else f"AUROC {own['auroc']:.2f}"
            lines.append(
                f"{name} ({part['num_videos']} videos, {what}): {tested}, maximum probability "
                f"{part['scores']['max_probability']['auroc']:.2f}; {part['flagged']:.0%} flagged"
            )
    for row in report["severities"]:
        covered = "" if row["set"] is None else f", sets hold {row['set']['coverage']:.0%}"
        lines.append(
            f"corrupted, severity {row['severity']}: accuracy {row['accuracy']:.2f}{covered}, "
            f"warned of {row['warned']:.0%} (clean {known['warned']:.0%})"
        )
    return lines


def card(report: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table for a model card."""
    known = report["known"]
    sets = known["set"]
    rows: list[Row] = [
        ("known videos", known["num_videos"]),
        ("accuracy", _share(known["accuracy"])),
        (
            "calibration error, its noise floor",
            f"{known['ece']:.3f}, {known['ece_noise_floor']:.3f}",
        ),
        ("Brier score, AURC", f"{known['brier']:.3f}, {known['aurc']:.3f}"),
        (
            "sets of 90 %: coverage, mean size",
            NONE if sets is None else f"{_share(sets['coverage'])}, {sets['mean_size']:.2f}",
        ),
        ("known called unknown", _share(known["false_alarms"])),
    ]
    for name, what in (("near", "other actions"), ("far", "other footage")):
        part = report[name]
        if part is not None:
            measured = ", ".join(
                f"{score} {_two(values['auroc'])}" for score, values in part["scores"].items()
            )
            rows.append((f"{name} ({what}): AUROC", measured))
            rows.append((f"{name}: flagged", _share(part["flagged"])))
    for row in report["severities"]:
        covered = NONE if row["set"] is None else _share(row["set"]["coverage"])
        rows.append(
            (
                f"severity {row['severity']}: accuracy, sets hold, warned",
                f"{_share(row['accuracy'])}, {covered}, {_share(row['warned'])}",
            )
        )
    return [
        f"| trust, measured on {report['data']} | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]


def page(report: dict[str, Any]) -> str:
    """Return the page, HTML without scripts or links."""
    known = report["known"]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Trust</title>",
        f"<style>{STYLE}</style><h1>How far {html.escape(report['model'])} can be trusted</h1>",
        f"<p>Known videos: {html.escape(str(report['data']))}.</p>",
        "<ul>" + "".join(f"<li>{html.escape(line)}.</li>" for line in summary(report)) + "</ul>",
        "<h2>Which answers are right: risk and coverage</h2>",
        "<p>The share of wrong answers among the most confident ones. AURC is the area below; a "
        f"confidence without signal has {_two(1 - known['accuracy'])}.</p>",
        _curve(known["risk_coverage"], "share of the videos answered", "share wrong"),
        _table(
            ("confidence", "AURC"),
            [
                ("probability", f"{known['aurc']:.3f}"),
                *((name, f"{value:.3f}") for name, value in known["aurc_of_scores"].items()),
            ],
        ),
        "<h2>Whether a probability means what it says</h2>",
        _table(
            ("probability", "videos", "mean probability", "right", "95% interval"),
            [
                (
                    f"{row['from']:.1f} to {row['to']:.1f}",
                    row["videos"],
                    _two(row["confidence"]),
                    _two(row["accuracy"]),
                    f"{_two(row['low'])} to {_two(row['high'])}",
                )
                for row in known["reliability"]
            ],
        ),
        *_sets(known["set"], report["class_names"]),
    ]
    for name, title in (("near", "Other actions (near)"), ("far", "Other footage (far)")):
        parts += [f"<h2>{title}</h2>", *_unknown(report[name])]
    parts += ["<h2>Corrupted known videos</h2>", *_corruptions(report)]
    unreadable = [
        entry
        for part in (known, report["near"], report["far"], *report["corruptions"])
        if part is not None
        for entry in part["unreadable"]
    ]
    if unreadable:
        lines = "".join(f"<li>{html.escape(entry['error'])}</li>" for entry in unreadable)
        parts.append(f"<h2>Not readable</h2><ul>{lines}</ul>")
    parts.append(f"<p><code>{html.escape(report['command'])}</code></p></html>")
    return "\n".join(parts) + "\n"


def _sets(sets: Mapping[str, Any] | None, class_names: Sequence[str]) -> list[str]:
    if sets is None:
        return ["<h2>Prediction sets</h2><p>None are stored with the model.</p>"]
    rows = [
        (name, NONE if share is None else _share(share))
        for name, share in zip(class_names, sets["per_class"], strict=True)
    ]
    return [
        f"<h2>Prediction sets of {sets['asked']:.0%}</h2>",
        f"<p>{_share(sets['coverage'])} hold the true class; {sets['mean_size']:.2f} classes in "
        f"the mean, {_share(sets['share_of_one'])} are one class.</p>",
        _table(("class", "sets that hold it"), rows),
    ]


def _unknown(part: Mapping[str, Any] | None) -> list[str]:
    if part is None:
        return ["<p>Not measured: no such videos were given.</p>"]
    low, high = part["flagged_interval"]
    return [
        f"<p>{part['num_videos']} videos; {_share(part['flagged'])} are called unknown (95% "
        f"interval {_share(low)} to {_share(high)}), {_share(part['shown_as_calibrated'])} are "
        "shown with a probability called calibrated.</p>",
        _table(
            ("score", "AUROC", "FPR at 95% TPR"),
            [
                (name, _two(values["auroc"]), _two(values["fpr95"]))
                for name, values in part["scores"].items()
            ],
        ),
    ]


def _corruptions(report: dict[str, Any]) -> list[str]:
    if not report["corruptions"]:
        return ["<p>Not measured: no corruptions were named.</p>"]
    known = report["known"]
    head = ("", "accuracy", "ECE", "floor", "sets hold", "set size", "warned", "unknown")
    clean = (
        "as they are",
        _share(known["accuracy"]),
        f"{known['ece']:.3f}",
        f"{known['ece_noise_floor']:.3f}",
        NONE if known["set"] is None else _share(known["set"]["coverage"]),
        NONE if known["set"] is None else _two(known["set"]["mean_size"]),
        _share(known["warned"]),
        _share(known["false_alarms"]),
    )
    rows = [clean, *(_changed(f"all, severity {r['severity']}", r) for r in report["severities"])]
    rows += [
        _changed(f"{row['corruption']}, severity {row['severity']}", row)
        for row in report["corruptions"]
    ]
    scores = list(report["corruptions"][0]["scores"])
    told = [
        (
            f"{row['corruption']}, severity {row['severity']}",
            *(
                f"{_two(row['scores'][name]['auroc'])}, {_two(row['scores'][name]['fpr95'])}"
                for name in scores
            ),
        )
        for row in report["corruptions"]
    ]
    return [
        _table(head, rows),
        "<p>How well each score tells them from the videos as they are: AUROC, FPR at 95% TPR.</p>",
        _table(("", *scores), told),
    ]


def _changed(name: str, row: Mapping[str, Any]) -> Row:
    sets = row["set"]
    return (
        name,
        _share(row["accuracy"]),
        f"{row['ece']:.3f}",
        f"{row['ece_noise_floor']:.3f}",
        NONE if sets is None else _share(sets["coverage"]),
        NONE if sets is None else _two(sets["mean_size"]),
        _share(row["warned"]),
        _share(row["flagged"]),
    )


def _curve(points: Sequence[Sequence[float]], across: str, up: str) -> str:
    """Draw a curve of points in [0, 1] x [0, 1]."""
    width, height, left, bottom = 420, 260, 50, 40
    highest = max(0.1, max((point[1] for point in points), default=0.1))
    room = height - bottom - 10
    path = " ".join(
        f"{left + x * (width - left - 10):.1f},{10 + room * (1 - y / highest):.1f}"
        for x, y in points
    )
    axes = f"{left},10 {left},{height - bottom} {width - 10},{height - bottom}"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' "
        f"aria-label='{html.escape(up)} against {html.escape(across)}'>"
        f"<polyline points='{axes}' fill='none' stroke='#999'/>"
        f"<polyline points='{path}' fill='none' stroke='#1f6fb4' stroke-width='2'/>"
        f"<text x='{left}' y='{height - 22}'>0</text>"
        f"<text x='{width - 16}' y='{height - 22}'>1</text>"
        f"<text x='{left + 80}' y='{height - 8}'>{html.escape(across)}</text>"
        f"<text x='4' y='16'>{highest:.2f}</text><text x='4' y='{height - bottom}'>0</text>"
        f"<text x='{left + 8}' y='20'>{html.escape(up)}</text></svg>"
    )


def _table(head: Row, rows: Sequence[Row]) -> str:
    cells = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _two(value: float) -> str:
    return f"{value:.2f}"
