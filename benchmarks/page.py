"""One self-contained page of bars from the JSON of `python -m benchmarks`."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marey.explain.report import BLUE, INK

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:left}
td{white-space:nowrap}td:first-child{white-space:normal}td.n{text-align:right;font-variant-numeric:tabular-nums}.met{color:#1a7f37}.missed{color:#b3261e;font-weight:600}
h2{margin-top:2em;font-size:1.15em}code{background:#f3f3f3;padding:.1em .3em}.small{color:#555;font-size:.9em}"""


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the page: machine, goals, and one chart per benchmark."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Marey: benchmarks</title>",
        f"<style>{STYLE}</style><h1>Marey: benchmarks</h1>",
        about_machine(report),
        goal_table(report),
    ]
    parts += [section(entry) for entry in report["benchmarks"].values()]
    path.write_text("\n".join([*parts, "</html>"]) + "\n", encoding="utf-8")


def about_machine(report: Mapping[str, Any]) -> str:
    """Return a paragraph on where and with what it was measured."""
    machine, rates = report["machine"], report["rates"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"<p>{html.escape(machine['cpu'])}, {machine['cores']} cores, {report['threads']} "
        "thread(s), load "
        f"{machine['load_1min']}; matrix products {rates['matmul_fp32_gflops']:g} GFLOP/s in fp32, "
        f"{rates['matmul_bf16_gflops']:g} in bf16; copying "
        f"{rates['memory_copy_gigabytes_per_second']:g} GB/s. "
        f"{html.escape(report['date'])}, <code>{html.escape(report['command'])}</code></p>"
        f"<p class='small'>Python {machine['python']}, {html.escape(versions)}</p>"
        f"<p>{html.escape(report['reading'])}</p>"
    )


def goal_table(report: Mapping[str, Any]) -> str:
    """Return every goal with its measured value, met or not."""
    rows = [
        f"<tr><td>{html.escape(goal['what'])}</td><td class='n'>{goal['measured']:g}</td>"
        f"<td class='n'>{goal['bound']} {goal['goal']:g}</td>"
        "<td "
        f"class='{'met' if goal['met'] else 'missed'}'>{'met' if goal['met'] else 'not met'}</td></tr>"
        for entry in report["benchmarks"].values()
        for goal in entry.get("goals", ())
    ]
    return (
        "<h2>Goals</h2><table><tr><th>what</th><th>measured</th><th>goal</th><th></th></tr>"
        + "".join(rows)
        + "</table>"
    )


def section(entry: Mapping[str, Any]) -> str:
    """Return one benchmark: title, bars, reading, growth exponents, command."""
    parts = [f"<h2>{html.escape(entry['title'])}</h2>"]
    if entry.get("bars"):
        parts.append(f"<p class='small'>{html.escape(entry['unit'])}</p>{long_bars(entry['bars'])}")
    if entry.get("reading"):
        parts.append(f"<p>{html.escape(entry['reading'])}</p>")
    if entry.get("exponents"):
        parts.append(
            "<p class='small'>Growth exponents: "
            f"{html.escape(exponents_text(entry['exponents']))}</p>"
        )
    command = (
        f"<code>{html.escape(entry['command'])}</code>, {entry['date']}; "
        if entry.get("command")
        else ""
    )
    return "".join([*parts, f"<p class='small'>{command}{html.escape(entry['status'])}</p>"])


def exponents_text(values: Mapping[str, Any]) -> str:
    """Return nested exponents as "over_N directed time 0.98, ..."."""
    return ", ".join(
        f"{key} {exponents_text(value)}" if isinstance(value, Mapping) else f"{key} {value:g}"
        for key, value in values.items()
    )


def long_bars(values: Mapping[str, float], width: int = 760, row: int = 22) -> str:
    """Draw one horizontal bar per value with its label before and its number after it, as inline
    SVG."""
    longest, left = max([*values.values(), 1e-12]), 8 + 6.6 * max(map(len, values))
    room = width - left - 70
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {row * len(values)}' "
        f"width='{width}' "
        f"style='max-width:100%' font-family='system-ui, sans-serif' font-size='12' fill='{INK}'>"
    ]
    for place, (label, value) in enumerate(values.items()):
        y, size = place * row, room * max(value, 0.0) / longest
        parts.append(
            f"<text x='{left - 6:.0f}' y='{y + 15}' text-anchor='end'>{html.escape(label)}</text>"
            f"<rect x='{left:.0f}' y='{y + 3}' width='{max(size, 0.5):.1f}' height='{row - 6}' "
            f"fill='{BLUE}'/>"
            f"<text x='{left + size + 6:.0f}' y='{y + 15}'>{value:.4g}</text>"
        )
    return "".join([*parts, "</svg>"])
