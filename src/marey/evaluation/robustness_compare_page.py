"""Two robustness reports on one page: differences with their intervals, and a table of the same
numbers."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator
from typing import Any

from marey.evaluation.robustness_report import STYLE

Row = tuple[str, float | None, float | None, float, float | None, float | None, str]
"""What, A, B, B - A, its 95% interval, and a remark; fractions."""

WIDTH, REACH = 150, 69
"""Pixels of a drawn interval, and from its middle to the largest difference."""


def comparison_rows(result: dict[str, Any], model: dict[str, Any]) -> Iterator[Row]:
    """Yield the numbers of one pair of models of `compare_reports`."""
    for what in ("clean", "corrupted"):
        if what in model:
            found = model[what]
            ends = (found["difference"], found["low"], found["high"])
            yield what, found["a"], found["b"], *ends, ""
    own = result["only_a"] or result["only_b"]
    for category, value in model["categories"].items():
        remark = "each on all videos of its own report" if own else ""
        yield category, None, None, value, None, None, remark
    for name, found in model["threats"].items():
        remark = "" if found["reliable"] else "unreliable: gradients are masked"
        yield name, found["a"], found["b"], found["b"] - found["a"], None, None, remark


def comparison_csv(result: dict[str, Any]) -> str:
    """Return one row for every number of every pair of models."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ("model_a", "model_b", "what", "a", "b", "difference", "low", "high", "remark", "videos")
    writer.writerow(head)
    for model in result["models"]:
        for row in comparison_rows(result, model):
            writer.writerow((model["a"], model["b"], *row, result["videos"]))
    return out.getvalue()


def comparison_page(result: dict[str, Any]) -> str:
    """Return the whole page, without outside files."""
    only = f"; {result['only_a']} only in A and {result['only_b']} only in B are left out"
    apart = only if result["only_a"] or result["only_b"] else ""
    unlike = "".join(
        f"<p class='leak'>Not alike: {html.escape(key)} is {html.escape(str(a))} in A and "
        f"{html.escape(str(b))} in B.</p>"
        for key, (a, b) in result["differing_settings"].items()
    )
    tables = "".join(_table(result, model) for model in result["models"])
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, initial-scale=1'><title>Two robustness reports</title>"
        f"<style>{STYLE}</style></head><body><h1>Two robustness reports</h1><p class='lead'>A is "
        f"<code>{html.escape(result['a'])}</code>, B is <code>{html.escape(result['b'])}</code>. "
        f"n&nbsp;= {result['videos']} videos that both measured{apart}.</p>{unlike}{tables}"
        "<p class='small'>Percent right; differences are B − A in points, with 95% intervals over "
        "whole groups where the data set has them. A difference whose interval holds 0 is drawn in "
        "grey. Numbers without an interval say less than those with one.</p></body></html>\n"
    )


def _table(result: dict[str, Any], model: dict[str, Any]) -> str:
    rows = list(comparison_rows(result, model))
    largest = max(abs(value) for row in rows for value in row[3:6] if value is not None)
    lines = "".join(_line(row, max(largest, 0.05)) for row in rows)
    same = model["a"] == model["b"]
    title = model["a"] if same else f"A: {model['a']}, B: {model['b']}"
    return (
        f"<h2>{html.escape(title)}</h2><div class='scroll'><table><tr><th></th><th>A</th>"
        f"<th>B</th><th>B − A</th></tr>{lines}</table></div>"
    )


def _line(row: Row, largest: float) -> str:
    what, a, b, difference, low, high, remark = row

    def x(value: float) -> float:
        return WIDTH / 2 + REACH * value / largest

    ends = (difference, difference) if low is None or high is None else (low, high)
    settled = low is not None and not ends[0] <= 0 <= ends[1]
    colour = "#1f6fb4" if settled else "#8a949c"
    drawn = (
        f"<svg width='{WIDTH}' height='16' aria-hidden='true'><line x1='{WIDTH / 2}' "
        f"x2='{WIDTH / 2}' y1='0' y2='16' stroke='#c5ccd1'/><line x1='{x(ends[0]):.1f}' "
        f"x2='{x(ends[1]):.1f}' y1='8' y2='8' stroke='{colour}' stroke-width='3'/><circle "
        f"cx='{x(difference):.1f}' cy='8' r='4' fill='{colour}'/></svg>"
    )
    interval = "" if low is None or high is None else f"<br><small>[{points(low)}, {points(high)}]"
    said = f"<br><small>{html.escape(remark)}</small>" if remark else ""
    return (
        f"<tr><td>{html.escape(what)}{said}</td><td>{_percent(a)}</td><td>{_percent(b)}</td>"
        f"<td>{points(difference)}{interval}{'</small>' if interval else ''}<br>{drawn}</td></tr>"
    )


def points(value: float) -> str:
    """Print a difference of fractions in points.

    >>> points(0.0123), points(-0.0004), points(-0.05)
    ('+1.2', '0.0', '−5.0')
    """
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
