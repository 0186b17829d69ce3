"""The figures of the robustness report as HTML and SVG: heat maps, severity curves, example
pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

COLOURS = ("#1f6fb4", "#c8501e", "#2f8f5b", "#8456a8", "#9a7b12", "#5b6770")
"""One per model; together with the dashes they can be told apart in print and by colour-blind
readers."""
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")


def percent(value: float | None, digits: int = 1) -> str:
    """Print a fraction as percent, a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 2) -> str:
    """Print a number, a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def videos_of(report: dict[str, Any]) -> str:
    """Say on how many videos every number of a table rests."""
    return f"n&nbsp;= {report['videos']} videos."


def swatch(i: int) -> str:
    style = ("solid", "dashed", "dotted")[i % 3]
    colour = COLOURS[i % len(COLOURS)]
    return f"<span class='swatch' style='border-color:{colour};border-top-style:{style}'></span>"


def heat_colour(drop: float) -> tuple[str, str]:
    """Return background and text colour of an accuracy drop in [-1, 1]: white at none, red at half
    the accuracy lost, green where the change helps."""
    share = max(-1.0, min(1.0, drop / 0.5))
    low, high = ((255, 255, 255), (178, 44, 36)) if share >= 0 else ((255, 255, 255), (60, 140, 90))
    rgb = [round(a + (b - a) * abs(share) ** 0.8) for a, b in zip(low, high, strict=True)]
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})", "#fff" if abs(share) > 0.6 else "#1c2126"


def heat_maps(report: dict[str, Any], shown: dict[str, str]) -> str:
    names = list(report["models"])
    first = report["models"][names[0]]["kinds"]
    severities = list(next(iter(first.values()))["accuracy"])
    head = (
        "<tr><th>corruption</th>"
        + "".join(
            f"<th colspan='{len(severities)}' "
            f"style='text-align:center'>{html.escape(shown[name])}, clean "
            f"{percent(report['models'][name]['clean_accuracy'], 0)}</th><th></th>"
            for name in names
        )
        + "</tr>"
    )
    numbers = (
        "<tr><th></th>"
        + ("".join(f"<th style='text-align:center'>{s}</th>" for s in severities) + "<th></th>")
        * len(names)
        + "</tr>"
    )
    rows, category = [], None
    for kind, numbers_of in first.items():
        if numbers_of["category"] != category:
            category = numbers_of["category"]
            rows.append(f"<tr><td class='cat'><b>{category}</b></td></tr>")
        cells = f"<td>{kind}{_borrowed(report, numbers_of)}</td>"
        for name in names:
            model = report["models"][name]
            for accuracy in model["kinds"][kind]["accuracy"].values():
                background, text = heat_colour(model["clean_accuracy"] - accuracy)
                cells += (
                    f"<td style='background:{background};color:{text}'>{percent(accuracy, 0)}</td>"
                )
            cells += "<td></td>"
        rows.append(f"<tr>{cells}</tr>")
    return (
        "<h2>Accuracy under every change</h2><div class='scroll'><table "
        f"class='heat'>{head}{numbers}{''.join(rows)}</table></div><p class='small'>Percent "
        "correct by severity 1 (mild) to 5; red: lost against the model's own clean accuracy, "
        "green: gained. Jumble disturbs less with every severity, MPEG quantisers stop at 31, as "
        f"in the sources. {videos_of(report)}</p>"
    )


def _borrowed(report: dict[str, Any], numbers: dict[str, Any]) -> str:
    asked = report["settings"]["profile"]
    return "" if numbers["profile"] == asked else f" <small>({numbers['profile']})</small>"


def curve(values: dict[str, list[tuple[int, float]]], clean: dict[str, float], title: str) -> str:
    """Return one small chart as SVG: severity 0 (clean) to 5 across, accuracy 0 to 1 up."""
    width, height, left, bottom, top = 210, 130, 30, 22, 8

    def x(severity: float) -> float:
        return left + severity / 5 * (width - left - 8)

    def y(accuracy: float) -> float:
        return top + (1 - accuracy) * (height - top - bottom)

    lines = "".join(
        f"<line x1='{left}' x2='{width - 8}' y1='{y(v):.1f}' y2='{y(v):.1f}' stroke='#e3e7ea'/>"
        f"<text x='{left - 5}' y='{y(v) + 4:.1f}' text-anchor='end'>{round(100 * v)}</text>"
        for v in (0, 0.5, 1)
    )
    ticks = "".join(
        f"<text x='{x(s):.1f}' y='{height - 7}' text-anchor='middle'>{s}</text>" for s in range(6)
    )
    paths = ""
    for i, (name, points) in enumerate(values.items()):
        run = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in [(0, clean[name]), *points])
        paths += (
            f"<polyline points='{run}' fill='none' stroke='{COLOURS[i % len(COLOURS)]}' "
            f"stroke-width='2' stroke-dasharray='{DASHES[i % len(DASHES)]}'>"
            f"<title>{html.escape(name)}</title></polyline>"
        )
    return (
        f"<figure><svg viewBox='0 0 {width} {height}' role='img' "
        f"aria-label='{html.escape(title)}'>{lines}{ticks}"
        f"{paths}</svg><figcaption>{html.escape(title)}</figcaption></figure>"
    )


def curves(report: dict[str, Any], shown: dict[str, str]) -> str:
    names = list(report["models"])
    clean = {shown[name]: report["models"][name]["clean_accuracy"] for name in names}
    charts = []
    for kind in report["models"][names[0]]["kinds"]:
        values = {
            shown[name]: [
                (int(s), v) for s, v in report["models"][name]["kinds"][kind]["accuracy"].items()
            ]
            for name in names
        }
        charts.append(curve(values, clean, kind))
    legend = " &nbsp; ".join(
        f"{swatch(i)}{html.escape(shown[name])}" for i, name in enumerate(names)
    )
    return (
        f"<h2>Severity curves</h2><p>{legend}</p><div class='grid'>{''.join(charts)}</div>"
        "<p class='small'>Percent correct against severity; 0 is the clean video. "
        f"{videos_of(report)}</p>"
    )


MAX_PICTURE_BYTES = 1_300_000
"""Of all filmstrips together, encoded: with the rest the page stays below 2 MB."""


def examples_table(report: dict[str, Any], folder: Path | None) -> str:
    """Return the filmstrips of each kind and severity; fewer severities where all are too large."""
    if folder is None or not folder.is_dir():
        return ""
    kinds = next(iter(report["models"].values()))["kinds"]
    severities = [str(s) for s in report["settings"]["severities"]]
    for chosen in (severities, severities[::2], severities[len(severities) // 2 :][:1]):
        paths = [folder / f"{kind}-{severity}.jpg" for kind in kinds for severity in chosen]
        total = sum(path.stat().st_size for path in paths if path.is_file())
        if total * 4 / 3 <= MAX_PICTURE_BYTES:
            break

    def image(tag: str, shown: str) -> str:
        path = folder / f"{tag}.jpg"
        if not path.is_file():
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
        return (
            f"<figure><img alt='{tag}' src='data:image/jpeg;base64,{data}'>"
            f"<figcaption>{shown}</figcaption></figure>"
        )

    rows = "".join(
        f"<details><summary>{kind.replace('_', ' ')}</summary><div class='strips'>"
        + "".join(image(f"{kind}-{s}", f"severity {s}") for s in chosen)
        + "</div></details>"
        for kind in kinds
    )
    clean = image("clean", "clean")
    return (
        f"<h2>What the models saw</h2><div class='strips'>{clean}</div>{rows}<p class='small'>Four "
        "frames of one video under each kind and severity; open a kind to see it.</p>"
    )
