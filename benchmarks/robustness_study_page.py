"""The page of the robustness study: what was asked, what came out, with the number of clips beside
every number."""

from __future__ import annotations

import html
from typing import Any

from marey.evaluation.robustness_figures import heat_colour

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2126; margin: 0 auto; max-width: 1060px;
  padding: 20px 16px 60px; }
h1 { font-size: 26px; } h2 { font-size: 20px; margin-top: 36px; } h3 { font-size: 16px; }
table { border-collapse: collapse; font-size: 14px; } .scroll { overflow-x: auto; }
th, td { padding: 4px 9px; text-align: right; border-bottom: 1px solid #e3e7ea;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.heat td { text-align: center; padding: 2px 6px; border: 1px solid #fff; }
.heat td:first-child { text-align: left; }
.heat td:first-child, .heat th:first-child { position: sticky; left: 0; background: #fff; }
.small { font-size: 14px; color: #59626a; } li { margin: 4px 0; overflow-wrap: anywhere; }
svg text { font: 13px system-ui, sans-serif; fill: #1c2126; }
.contrasts { display: block; width: 100%; max-width: 640px; }
@media print { body { max-width: none; padding: 0; font-size: 12px; } .scroll { overflow: visible; }
  th, td { padding: 2px 4px; } table, .small { font-size: 10px; } .heat td { padding: 1px 3px; }
  tr, svg { break-inside: avoid; } h2, h3 { break-after: avoid; } .contrasts { max-width: 420px; } }
"""


def percent(value: float) -> str:
    """Print a fraction in percent."""
    return f"{100 * value:.1f}"


def spread(found: dict[str, Any]) -> str:
    """Print a mean with its interval, in percent."""
    return (
        f"{percent(found['mean'])} <span class='small'>[{percent(found['low'])}, "
        f"{percent(found['high'])}]</span>"
    )


def points(value: float) -> str:
    """Print a difference of fractions in percentage points.

    >>> points(0.0123), points(-0.0004)
    ('+1.2', '0.0')
    """
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


COLUMNS = ("data", "severities", "clips", "what", "name", "mean", "low", "high")


def table(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the numbers of the page as rows of a table, `COLUMNS` first; fractions, not percent.

    "what" is "clean", "corrupted", a category or a kind of corruption of a head, "difference" of
    two heads, or "metadata"; kinds have no interval.
    """
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for data, found in report["data"].items():
        for severities, numbers in found["by_severities"].items():
            place = (data, severities, numbers["clips"])
            for name, head in numbers["heads"].items():
                ranges = {"clean": head["clean"], "corrupted": head["corrupted"]}
                for what, one in (ranges | head["categories"]).items():
                    rows.append((*place, what, name, one["mean"], one["low"], one["high"]))
                for kind, values in head["kinds"].items():
                    mean = sum(values.values()) / len(values)
                    rows.append((*place, kind, name, round(mean, 5), None, None))
            for one in numbers["contrasts"]:
                name = f"{one['a']} - {one['b']}"
                rows.append((*place, "difference", name, one["mean"], one["low"], one["high"]))
        clips = found["by_severities"]["3"]["clips"]
        for name, one in (found.get("metadata") or {}).items():
            if isinstance(one, dict):
                ends = (one["mean"], one["low"], one["high"])
                rows.append((data, None, clips, "metadata", name, *ends))
    return rows


def page(report: dict[str, Any], csv_name: str) -> str:
    """Return the whole page, without outside files.

    Args:
        csv_name: of the file beside it with the numbers of `table`.
    """
    conclusions = "".join(f"<li>{html.escape(text)}</li>" for text in report["conclusions"])
    design = report["design"]
    heads = "".join(
        f"<li><b>{html.escape(name)}</b>: {html.escape(says)}</li>"
        for name, says in design["heads"].items()
    )
    questions = "".join(f"<li>{html.escape(text)}</li>" for text in design["contrasts"])
    sets = "".join(_set(name, found, design) for name, found in report["data"].items())
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, initial-scale=1'><title>Robustness study</title>"
        f"<style>{STYLE}</style></head><body><h1>Robustness study</h1>"
        + (f"<ul>{conclusions}</ul>" if conclusions else "")
        + f"{sets}<h2>Design</h2><p>{html.escape(design['features'])}. Changed at "
        f"{html.escape(design['changed_at'])}, constants of the profile {design['profile']}. Held "
        f"out: {html.escape(design['held_out'])}; {design['seeds']} seeds. Intervals: "
        f"{html.escape(design['intervals'])}.</p><h3>Heads</h3><ul>{heads}</ul><h3>Contrasts, "
        f"written down before the first run</h3><ul>{questions}</ul><p class='small'>"
        f"{html.escape(report['command'])}; {report['date']}. The numbers as a table: "
        f"<a href='{html.escape(csv_name)}'>{html.escape(csv_name)}</a></p></body></html>\n"
    )


def _set(name: str, found: dict[str, Any], design: dict[str, Any]) -> str:
    parts = [f"<h2>{html.escape(name)}</h2>"]
    for severities, numbers in found["by_severities"].items():
        decides = severities == found.get("decides")
        parts.append(
            f"<h3>Severities {severities}: {numbers['clips']} of "
            f"{found['videos_of_the_data_set']} clips, {numbers['scenes']} scenes or groups, "
            f"{numbers['conditions']} conditions"
            f"{' (the set that decides)' if decides else ''}</h3>"
        )
        parts.append(_contrasts(numbers, design))
        parts.append(_heads(numbers))
        if decides:
            parts.append(_heat(numbers))
    if found.get("metadata"):
        parts.append(_metadata(found["metadata"], found["by_severities"]["3"]["clips"]))
    if found.get("at_source"):
        parts.append(_source(found["at_source"]))
    return "".join(parts)


def _contrasts(numbers: dict[str, Any], design: dict[str, Any]) -> str:
    """Draw each contrast below its name and numbers, so that it fits a phone."""
    rows = numbers["contrasts"]
    reach = max(0.05, max(max(abs(row["low"]), abs(row["high"])) for row in rows)) * 1.05
    width, line = 420, 42

    def x(value: float) -> float:
        return width / 2 + value / reach * (width / 2 - 8)

    goal = design["goal_half_width"]
    height = line * len(rows) + 22
    marks = (
        f"<rect x='{x(-goal):.1f}' y='0' width='{x(goal) - x(-goal):.1f}' height='{height - 20}' "
        "fill='#eef2f5'/>"
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='0' y2='{height - 20}' stroke='#8a949c'/>"
    )
    for number, row in enumerate(rows):
        y = line * number + 30
        low, mean, high = (points(row[name]) for name in ("low", "mean", "high"))
        marks += (
            f"<text x='0' y='{y - 13}'>{html.escape(row['a'])} − {html.escape(row['b'])}</text>"
            f"<text x='{width}' y='{y - 13}' text-anchor='end'>{mean} [{low}, {high}]</text>"
            f"<line x1='{x(row['low']):.1f}' x2='{x(row['high']):.1f}' y1='{y}' y2='{y}' "
            "stroke='#1f6fb4' stroke-width='3'/>"
            f"<circle cx='{x(row['mean']):.1f}' cy='{y}' r='5' fill='#1f6fb4'/>"
        )
    edge = reach / 1.05
    ticks = "".join(
        f"<text x='{x(v):.1f}' y='{height - 5}' text-anchor='{anchor}'>{shown}</text>"
        for v, anchor, shown in (
            (-edge, "start", f"{-100 * edge:+.0f}"),
            (0, "middle", "0"),
            (edge, "end", f"{100 * edge:+.0f}"),
        )
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' class='contrasts' "
        f"aria-label='Contrasts with their intervals'>{marks}{ticks}</svg>"
        "<p class='small'>Difference of the mean accuracy under "
        "corruption, in points, with intervals that hold together for all six; grey: the "
        f"{100 * goal:.1f} points that the study wants to resolve. "
        f"{sum(row['resolves_goal'] for row in rows)} of {len(rows)} contrasts are resolved that "
        f"finely here. n&nbsp;= {numbers['clips']} clips.</p>"
    )


def _heads(numbers: dict[str, Any]) -> str:
    rows = []
    order = sorted(numbers["heads"].items(), key=lambda item: -item[1]["corrupted"]["mean"])
    for name, head in order:
        rank = numbers["ranks"]["rank_95"][name]
        errors = head["calibration"]
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{spread(head['clean'])}</td>"
            f"<td>{spread(head['corrupted'])}</td><td>{head['relative']:.3f}</td>"
            f"<td>{head['mce_against_probe']:.2f}</td><td>{rank[0]}–{rank[1]}</td>"
            f"<td>{errors['clean_error']:.2f} / {errors['clean_floor']:.2f}</td>"
            f"<td>{errors['corrupted_error']:.2f} / {errors['corrupted_floor']:.2f}</td></tr>"
        )
    ranks = numbers["ranks"]
    return (
        "<div class='scroll'><table><tr><th>head</th><th>clean %</th><th>corrupted %</th>"
        "<th>relative</th><th>mCE</th><th>rank, 95%</th><th>ECE / floor, clean</th>"
        f"<th>ECE / floor, corrupted</th></tr>{''.join(rows)}</table></div><p class='small'>Means "
        "over scenes and ten seeds; brackets: 95% of the mixed model. The most frequent class has "
        f"{percent(numbers['majority_share'])}% of the clips. mCE is relative to the probe. Floor: "
        "the calibration error that a calibrated model stays below in 95% of samples this small. "
        "Kendall's tau of the ranking, clean against corrupted: "
        f"{ranks['kendall_clean_corrupted']:.2f}; one condition against all: mean "
        f"{ranks['kendall_one_condition_all']['mean']:.2f}. n&nbsp;= {numbers['clips']} clips.</p>"
    )


def _heat(numbers: dict[str, Any]) -> str:
    names = list(numbers["heads"])
    rows = []
    for kind in next(iter(numbers["heads"].values()))["kinds"]:
        cells = ""
        for name in names:
            head = numbers["heads"][name]
            mean = sum(head["kinds"][kind].values()) / len(head["kinds"][kind])
            background, colour = heat_colour(head["clean_by_clip"] - mean)
            cells += f"<td style='background:{background};color:{colour}'>{100 * mean:.0f}</td>"
        rows.append(f"<tr><td>{kind}</td>{cells}</tr>")
    head_row = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return (
        f"<div class='scroll'><table class='heat'><tr><th>kind</th>{head_row}</tr>{''.join(rows)}"
        "</table></div><p class='small'>Percent right, mean over the severities; red: lost against "
        f"the head's own clean accuracy. n = {numbers['clips']} clips x 10 seeds a cell.</p>"
    )


def _metadata(found: dict[str, Any], clips: int) -> str:
    rows = "".join(
        f"<li>{html.escape(name)}: {spread(numbers)}</li>"
        for name, numbers in found.items()
        if isinstance(numbers, dict)
    )
    return (
        f"<h3>Control: metadata alone ({html.escape(found['sees'])})</h3><ul>{rows}</ul>"
        f"<p class='small'>Percent right. n&nbsp;= {clips} clips.</p>"
    )


def _source(found: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{kind}</td><td>{severity}</td><td>{percent(one['source'])}</td>"
        f"<td>{percent(one['model'])}</td><td>{spread(one['difference'])}</td></tr>"
        for kind, severities in found["kinds"].items()
        for severity, one in severities.items()
    )
    return (
        f"<h3>Changed at the video's own size ({found['clips']} clips, {found['head']})</h3>"
        "<div class='scroll'><table><tr><th>kind</th><th>severity</th><th>at source %</th>"
        f"<th>at the model %</th><th>difference, points</th></tr>{rows}</table></div>"
    )
