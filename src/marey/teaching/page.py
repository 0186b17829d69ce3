"""The page and the card of a taught model: what it is worth, beside its controls."""

from __future__ import annotations

import html
from typing import Any

from marey.datasets.index import DatasetIndex
from marey.evaluation.video_strip import video_strip
from marey.metrics.trust import describe_trust
from marey.metrics.trust_card import trust_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border: 1px solid #bbb; padding: .25rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
figure { margin: 1rem 0; } figure img { height: 120px; margin-right: 4px; }
.good { background: #dceefb; } .bad { background: #fbe3dc; }
"""


def headline(report: dict[str, Any]) -> str:
    """Return the expected accuracy with its interval and its control in one sentence."""
    low, high = report["interval"]
    metadata = report["controls"]["metadata"]
    single = report["controls"]["single_frame"]
    return (
        f"Expected accuracy on new {'groups' if report['grouped'] else 'videos'}: "
        f"{report['accuracy']:.2f} (95% interval {low:.2f} to {high:.2f}, over "
        f"{report['interval_over']}); a control that sees only size, length and rate has "
        f"{metadata['accuracy']:.2f} ({p_value(metadata['gain'])}), a control that sees one "
        f"picture {single['accuracy']:.2f} ({p_value(single['gain'])}), always naming "
        f"'{report['controls']['majority']['class']}' "
        f"{report['controls']['majority']['accuracy']:.2f}."
    )


def p_value(gain: dict[str, Any]) -> str:
    """Return a gain with its p-value: over groups where there are enough, else McNemar's."""
    over_groups = gain["group_test_p"] is not None
    value = gain["group_test_p"] if over_groups else gain["mcnemar_p"]
    test = "sign-flip test" if over_groups else "McNemar's exact test"
    shown = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    return f"difference {gain['difference']:+.2f}, {shown}, {test}"


def decided_by(report: dict[str, Any]) -> str:
    """Return what decides the answer, in one sentence."""
    if report["kind"] not in ("ridge", "logistic"):
        return f"The answer is that of {report['method']} ('{report['encoder']}')."
    if len(report.get("averaged", [])) > 1:
        return (
            f"The answer is a linear map of the frozen encoder '{report['encoder']}': the mean of "
            f"ridge regressions of {members_of(report)}, which are equally good within one "
            "standard error."
        )
    return (
        f"The answer is a linear map ({report['kind']} regression, strength "
        f"{report['strength']}) of the "
        f"frozen encoder '{report['encoder']}'."
    )


def members_of(row: dict[str, Any]) -> str:
    """Return the encoders whose regressions are averaged, with their strengths."""
    return ", ".join(f"'{one['encoder']}' ({one['strength']})" for one in row["averaged"])


def model_card(report: dict[str, Any]) -> str:
    """Return the model card, Markdown."""
    classes = ", ".join(f"{name} ({count})" for name, count in report["classes"].items())
    tried = ", ".join(f"{name} {value:.2f}" for name, value in report["candidates"].items())
    lines = [
        "# A taught model",
        "",
        headline(report),
        "",
        decided_by(report),
        "",
        f"- Classes (videos): {classes}",
        f"- Videos: {report['num_videos']} in {report['num_groups']} groups; unreadable: "
        f"{len(report['unreadable'])}",
        f"- Encoders compared by inner cross-validation over all videos: {tried}",
        f"- Method: {report['method_choice']}.",
        "- The stated accuracy is that of outer folds, whose videos took no part in any choice.",
        f"- Trust: {describe_trust(report['calibration'])}.",
        *(f"- Note: {note}." for note in report["notes"]),
        "",
        *trust_table(report["calibration"]),
        "",
        "To record next:",
        "",
        *(f"- {advice}." for advice in report["record_more"]),
        "",
        "The errors, the confusion matrix and the learning curve are in `report.html`, all numbers "
        "in `teach.json`, the out-of-fold answers in `out-of-fold/`.",
    ]
    return "\n".join(lines) + "\n"


def page(report: dict[str, Any], index: DatasetIndex) -> str:
    """Return the page, HTML with its pictures inside."""
    notes = [*report["notes"]]
    notes += [f"not readable: {entry['video']}: {entry['error']}" for entry in report["unreadable"]]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>A taught model</title>",
        f"<style>{STYLE}</style><h1>A taught model</h1>",
        f"<p><strong>{html.escape(headline(report))}</strong></p>",
        f"<p>{html.escape(decided_by(report))}</p>",
        f"<p>Method: {html.escape(report['method_choice'])}.</p>",
        f"<p>Trust: {html.escape(describe_trust(report['calibration']))}.</p>",
        "<h2>To record next</h2>",
        _list(report["record_more"]),
        "<h2>Confusion matrix</h2>",
        _confusion(report["confusion"]),
        "<h2>Learning curve</h2>",
        _table(
            ("examples a class", "accuracy, mean of draws", "standard deviation", "lowest"),
            [
                (
                    row["shots"],
                    f"{row['accuracy']:.2f}",
                    f"{row['std']:.2f}",
                    f"{row['lowest']:.2f}",
                )
                for row in report["learning_curve"]
            ],
        ),
        "<h2>Encoders compared</h2>",
        _table(
            ("encoder", "accuracy, inner folds"),
            [(name, f"{value:.3f}") for name, value in report["candidates"].items()],
        ),
        "<h2>Folds</h2>",
        _table(
            ("groups held out", "videos", "accuracy", "encoder (strength)"),
            [
                (
                    _few(row["groups"]),
                    row["videos"],
                    f"{row['accuracy']:.2f}",
                    members_of(row),
                )
                for row in report["folds"]
            ],
        ),
        "<h2>Worst errors</h2>",
        *(_error(entry, index) for entry in report["errors"]),
    ]
    if not report["errors"]:
        parts.append("<p>None.</p>")
    if notes:
        parts += ["<h2>Notes</h2>", _list(notes)]
    return "\n".join(parts) + "</html>\n"


def _few(groups: list[str]) -> str:
    shown = ", ".join(groups[:4])
    return shown if len(groups) <= 4 else f"{shown} and {len(groups) - 4} more"


def _list(entries: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(entry)}</li>" for entry in entries) + "</ul>"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"


def _confusion(confusion: dict[str, Any]) -> str:
    names = [html.escape(name) for name in confusion["classes"]]
    head = "<th>true, below: answered, right</th>" + "".join(f"<th>{name}</th>" for name in names)
    lines = []
    for k, row in enumerate(confusion["counts"]):
        cells = []
        for j, count in enumerate(row):
            kind = "good" if j == k else ("bad" if count else "")
            cells.append(f"<td class='{kind}'>{count}</td>")
        lines.append(f"<tr><td>{names[k]}</td>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _error(entry: dict[str, Any], index: DatasetIndex) -> str:
    """Return a contact sheet of a wrongly answered video."""
    sample = index.samples[entry["row"]]
    pictures = ""
    if sample.row is None:
        pictures = video_strip(
            sample.path, start_seconds=sample.start_seconds, end_seconds=sample.end_seconds
        )
    caption = f"{entry['video']}: '{entry['label']}' was answered '{entry['answer']}'"
    return f"<figure>{pictures}<figcaption>{html.escape(caption)}</figcaption></figure>"
