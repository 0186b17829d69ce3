"""The pictures of `marey reproduce gat`, drawn from the cells' JSON files: no model is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marey.errors import UserError, import_extra
from marey.files import atomic, write_text

Cells = Mapping[str, Mapping[int, dict[str, Any]]]
"""Name of a cell -> seed -> its results."""
SPREAD = "Bars are means over seeds, dots the seeds."


def read_cells(out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the stored results under `out`/cells."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted((out / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(cell["cell"], {})[cell["seed"]] = cell["results"]
    return found


def write_figures(out: Path) -> Path:
    """Draw every figure whose cells are stored, and write the page that shows them.

    Without matplotlib (the extra 'plots') the page has Table 2 alone.
    """
    cells = read_cells(out)
    parts = ["# Figures of `marey reproduce gat`", ""]
    for name, (needs, draw, caption) in FIGURES.items():
        if not all(cell in cells for cell in needs):
            continue
        try:
            module = import_extra("matplotlib.figure", "plots", "drawing the figures")
        except UserError as error:
            parts += [f"Figures are not drawn: {error}", ""]
            break
        figure = module.Figure(layout="constrained", dpi=100)
        draw(figure, cells)
        with atomic(out / f"{name}.png") as temporary:
            figure.savefig(temporary)
        parts += [f"![{caption}]({name}.png)", "", caption, ""]
    if "listing" in cells:
        parts += table_2(cells["listing"][min(cells["listing"])]["rows"])
    page = out / "figures.md"
    write_text(page, "\n".join(parts) + "\n")
    return page


def table_2(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return Table 2 as Markdown."""

    def told(answers: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {p:.2f}" for name, p in answers.items()) or "–"

    lines = [
        "**Table 2**: at most three classes above 0.2, at seed 0.",
        "",
        "| video | chosen | truth | GAT | baseline | right |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        fields = (
            row["id"],
            row["chosen"],
            ", ".join(row["truth"]),
            told(row["GAT-AdvFr"]),
            told(row["SA-CE"]),
            row["outcome"],
        )
        lines.append(f"| {' | '.join(fields)} |")
    return lines


def values_of(cells: Cells, name: str, metric: str) -> list[float]:
    """Return a metric of a cell at every stored seed."""
    return [results[metric] for results in cells.get(name, {}).values() if metric in results]


def draw_bars(axes: Any, cells: Cells, bars: Sequence[tuple[str, str, str]]) -> None:
    """Draw means as bars and seeds as dots; a bar is (label, cell, metric)."""
    shown = [(label, values_of(cells, name, metric)) for label, name, metric in bars]
    shown = [(label, values) for label, values in shown if values]
    everything = [value for _, values in shown for value in values]
    room = 0.3 * (max(everything) - min(everything)) or 1.0
    for place, (_, values) in enumerate(shown):
        axes.bar(place, sum(values) / len(values), color="#9ecae1", width=0.7)
        axes.plot([place] * len(values), values, "o", color="#333333", markersize=3)
    axes.set_xticks(range(len(shown)), [label for label, _ in shown], fontsize=8)
    axes.set_ylim(max(0.0, min(everything) - room), min(100.0, max(everything) + room))


def draw_profiles(figure: Any, cells: Cells) -> None:
    """Figs. 1a and 4: global profile of the baseline, local profile of the gated model."""
    videos = cells["profiles"][min(cells["profiles"])]["videos"]
    figure.set_size_inches(9, 3.2 * len(videos))
    for place, video in enumerate(videos):
        axes = figure.add_subplot(len(videos), 1, place + 1)
        axes.plot(video["profiles"]["baseline_global"], label="SA, global", color="#d95f02")
        axes.plot(video["profiles"]["gated_local"], label="GMSA, local", color="#1b9e77")
        said = ", ".join(f"{name} {p}" for name, p in video["SA-CE"].items()) or "nothing"
        gated = ", ".join(f"{name} {p}" for name, p in video["GMSA-CE"].items()) or "nothing"
        title = f"{video['id']}: {', '.join(video['truth'])}\nSA: {said}\nGMSA: {gated}"
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_xlabel("second")
        axes.set_ylabel("attention received")
        axes.legend(fontsize=8)


def draw_maps(figure: Any, cells: Cells) -> None:
    """Fig. 1b: maps of a test video and of its adversarial counterpart."""
    maps = cells["attention under attack"][0]["maps"]
    figure.set_size_inches(7, 3.3 * len(maps))
    for row, (name, pair) in enumerate(maps.items()):
        highest = max(max(map(max, one)) for one in pair)
        for column, (title, one) in enumerate(zip(("clean", "attacked"), pair, strict=True)):
            axes = figure.add_subplot(len(maps), 2, 2 * row + column + 1)
            axes.imshow(one, vmin=0, vmax=highest, cmap="viridis")
            axes.set_title(f"{name}, {title}", fontsize=9)
            axes.set_xlabel("second looked at", fontsize=8)
            axes.set_ylabel("second", fontsize=8)


def draw_windows(figure: Any, cells: Cells) -> None:
    """Fig. 3: validation GAP over windows and experts."""
    figure.set_size_inches(7, 3.2)
    axes = figure.add_subplot(1, 1, 1, ylabel="validation GAP, %")
    windows = [name for name in cells if name.startswith("T") and name[1:2].isdigit()]
    windows.sort(key=lambda name: (" " in name, int(name[1:].split()[0])))
    bars = [("B", "SA-CE", "val_gap"), ("S", "S (two global heads)", "val_gap")]
    own = [("GMSA-CE", "GMSA-CE", "val_gap")]
    draw_bars(axes, cells, [*bars, *own, *((name, name, "val_gap") for name in windows)])


def draw_sweeps(figure: Any, cells: Cells) -> None:
    """Fig. 5: validation GAP over eps (alpha 1) and over alpha (eps of the recipe)."""
    figure.set_size_inches(9, 3.2)
    columns = {"eps": [(0.0, "GMSA-CE")], "alpha": [(0.0, "GMSA-CE"), (1.0, "GMSA-Adv")]}
    for name, seeds in cells.items():
        first = next(iter(seeds.values()))
        if name.startswith("alpha "):
            columns["alpha"].append((float(name.split()[1]), name))
        elif name.startswith(("eps ", "GMSA-Adv")):
            percent = [value for key, value in first.items() if key.startswith("eps_percent")]
            if percent:
                columns["eps"].append((percent[0], name))
    for place, (what, points) in enumerate(columns.items()):
        label = "eps, % of the frame norm" if what == "eps" else "alpha"
        axes = figure.add_subplot(1, 2, place + 1, xlabel=label, ylabel="validation GAP, %")
        points.sort()
        means = []
        for value, name in points:
            found = values_of(cells, name, "val_gap")
            axes.plot([value] * len(found), found, "o", color="#333333", markersize=3)
            means.append(sum(found) / max(1, len(found)))
        axes.plot([value for value, _ in points], means, color="#3182bd")


def draw_attacked_profiles(figure: Any, cells: Cells) -> None:
    """Fig. 6: profiles of a test video and of its adversarial counterpart."""
    curves = cells["attention under attack"][0]["profiles"]
    curves = {name: pair for name, pair in curves.items() if name != "GMSA-CE"}
    figure.set_size_inches(4 * len(curves), 3)
    for place, (name, (clean, attacked)) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), place + 1, xlabel="second")
        axes.set_title(name, fontsize=9)
        axes.plot(clean, label="clean", color="#1f77b4")
        axes.plot(attacked, label="attacked", color="#d62728", linestyle="--")
        axes.legend(fontsize=8)


def draw_attacks(figure: Any, cells: Cells) -> None:
    """Fig. 7: GAP on adversarial counterparts of validation videos."""
    metrics = [
        ("clean", "clean"),
        ("step_2", "one step, 2 %"),
        ("pgd_2", "five steps, 2 %"),
        ("transfer_2", "transfer, 2 %"),
        ("step_14", "one step, 14 %"),
        ("pgd_14", "five steps, 14 %"),
        ("transfer_14", "transfer, 14 %"),
    ]
    names = [name for name in cells if name.endswith(", attacked")]
    figure.set_size_inches(10, 3.4)
    axes = figure.add_subplot(1, 1, 1, ylabel="validation GAP, %")
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        for group, (metric, _) in enumerate(metrics):
            values = values_of(cells, name, metric)
            at = group + (place - (len(names) - 1) / 2) * width
            label = name.removesuffix(", attacked") if group == 0 else None
            axes.bar(at, sum(values) / len(values), width, color=f"C{place}", label=label)
            axes.plot([at] * len(values), values, "o", color="#333333", markersize=2)
    axes.set_xticks(range(len(metrics)), [label for _, label in metrics], fontsize=8)
    axes.legend(fontsize=7, ncols=2)


def draw_classes(figure: Any, cells: Cells) -> None:
    """Fig. 8: average precision of the classes that gain most and least."""
    found = cells["classes"][min(cells["classes"])]
    figure.set_size_inches(10, 3.4)
    for place, kind in enumerate(("best", "worst")):
        axes = figure.add_subplot(1, 2, place + 1, ylabel="average precision, %")
        axes.set_title(f"{kind} five classes", fontsize=9)
        for number, row in enumerate(found[kind]):
            ours, baseline = 100 * row["ours"], 100 * row["baseline"]
            axes.bar(number - 0.2, baseline, 0.4, color="#d95f02")
            axes.bar(number + 0.2, ours, 0.4, color="#1b9e77")
            axes.text(number, max(ours, baseline) + 1, f"{ours - baseline:+.1f}", ha="center")
        names = [row["class"].split(":")[-1] for row in found[kind]]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(0, 110)
        axes.legend(["baseline", "GAT"], fontsize=8, loc="lower right")


FIGURES: dict[str, tuple[tuple[str, ...], Callable[[Any, Cells], None], str]] = {
    "fig1a_4": (
        ("profiles",),
        draw_profiles,
        "Figs. 1a and 4: attention that each second receives, global in the baseline and local in "
        "the gated model, of the first test videos that only the gated model gets right.",
    ),
    "fig1b": (
        ("attention under attack",),
        draw_maps,
        "Fig. 1b: global attention map of the first test video, clean and attacked by 2 % of the "
        "frame norm, without and with the whole method.",
    ),
    "fig3": (
        ("SA-CE", "S (two global heads)", "GMSA-CE"),
        draw_windows,
        f"Fig. 3: validation GAP of the baseline (B), of two global experts (S) and of windows. "
        f"{SPREAD}",
    ),
    "fig5": (
        ("GMSA-CE", "GMSA-Adv", "alpha 4"),
        draw_sweeps,
        "Fig. 5: validation GAP over eps and alpha; dots are seeds, 0 is training without the "
        "adversarial term.",
    ),
    "fig6": (
        ("attention under attack",),
        draw_attacked_profiles,
        "Fig. 6: attention that each second of the first test video receives, clean and attacked.",
    ),
    "fig7": (
        ("GMSA-CE, attacked",),
        draw_attacks,
        f"Fig. 7: GAP on attacked validation videos. {SPREAD}",
    ),
    "fig8": (
        ("classes",),
        draw_classes,
        "Fig. 8: average precision of the classes that gain most and least, at seed 0.",
    ),
}
"""File name -> cells it needs, how it is drawn, caption."""
