"""The overview of a robustness report: a card for each model, ranked, ties shown as ties; and the
same numbers as a table of comma-separated values.

A number stands beside the number of videos it is measured on.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any

from marey.evaluation.robustness_figures import number, percent, swatch

TIED_FROM_P = 0.05
"""Models whose paired test gives this p or more share a rank."""


def ranked(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (model, rank), best first, by the mean accuracy under corruption, or by the clean one
    where nothing was corrupted.

    A model's rank is 1 + the number of models that are better by more than chance (paired test), so
    models that cannot be told apart share one, written "1=".
    """
    models = report["models"]
    corrupted = all("mpc" in model for model in models.values())
    score = {
        name: model["mpc"] if corrupted else model["clean_accuracy"]
        for name, model in models.items()
    }
    better = dict.fromkeys(models, 0)
    for pair in report["pairs"]:
        found = pair.get("corrupted") if corrupted else _clean_test(pair["clean"])
        if found is None or found["p"] >= TIED_FROM_P:
            continue
        better[pair["a"] if found["difference"] > 0 else pair["b"]] += 1
    ranks = {name: 1 + count for name, count in better.items()}
    shown = []
    for name in sorted(models, key=lambda name: (ranks[name], -score[name])):
        tie = "=" if list(ranks.values()).count(ranks[name]) > 1 else ""
        shown.append((name, f"{ranks[name]}{tie}"))
    return shown


def _clean_test(clean: dict[str, Any]) -> dict[str, float]:
    p = clean["group_test_p"] if clean["group_test_p"] is not None else clean["mcnemar_p"]
    return {"difference": clean["difference"], "p": p}


Line = tuple[str, float | None, Sequence[float] | None, int | None, str]
"""What, value, interval, videos, unit ("%" of fractions, else a plain number)."""


def card_lines(model: dict[str, Any], videos: int) -> list[Line]:
    """Return the lines of a card: clean, corrupted by family, attacked, calibrated, order."""
    lines: list[Line] = [
        ("clean", model["clean_accuracy"], model["clean_interval"], videos, "%"),
    ]
    if "mpc" in model:
        lines.append(("corrupted, mean", model["mpc"], model["mpc_interval"], videos, "%"))
    for family, numbers in model["categories"].items():
        lines.append((f"corrupted: {family}", numbers.get("mean_accuracy"), None, videos, "%"))
    if threats := model.get("threats"):
        for name, found in threats["models"].items():
            interval = found["robust_interval"]
            shown = f"attacked: {name}"
            lines.append((shown, found["robust_accuracy"], interval, threats["videos"], "%"))
    for name, attacked in model["attacks"].items():
        if attacked:
            lines.append((f"attacked: {name}", attacked["robust_accuracy"], None, videos, "%"))
    lines.append(("calibration error, clean", model["clean_calibration_error"], None, videos, ""))
    floor = model.get("clean_calibration_floor")
    if floor is not None:
        lines.append(("calibration error that chance explains", floor, None, videos, ""))
    if "corrupted_calibration_error" in model:
        error = model["corrupted_calibration_error"]
        lines.append(("calibration error, corrupted", error, None, videos, ""))
    order = model["order"] or {}
    if order.get("order_reliance") is not None:
        interval = order.get("order_reliance_interval")
        lines.append(("order reliance", order["order_reliance"], interval, videos, "%"))
    return lines


def overview_cards(report: dict[str, Any], shown: dict[str, str]) -> str:
    """Return the cards of all models as HTML, the best first."""
    numbers = {name: i for i, name in enumerate(report["models"])}
    cards = []
    for name, rank in ranked(report):
        model = report["models"][name]
        rows = "".join(_row(*line) for line in card_lines(model, report["videos"]))
        cards.append(
            f"<section class='card'><h3><span class='rank'>{rank}</span>{swatch(numbers[name])}"
            f"<span title='{html.escape(name)}'>{html.escape(shown[name])}</span></h3>"
            f"{_warning(model)}<table>{rows}</table></section>"
        )
    tie = (
        ""
        if len(cards) == 1
        else "<p class='small'>Ranked by the accuracy under corruption. The sign = marks models "
        "that share a rank because a paired test cannot tell them apart (p of 0.05 or more).</p>"
    )
    return f"<h2>Overview</h2><div class='cards'>{''.join(cards)}</div>{tie}"


def _warning(model: dict[str, Any]) -> str:
    threats = model.get("threats")
    if not threats or threats["reliable"]:
        return ""
    fired = "; ".join(
        f"{alarm['name']}: {alarm['says']}" for alarm in threats["alarms"] if alarm["fired"]
    )
    return (
        f"<p class='leak'>UNRELIABLE under attack, gradients are masked: {html.escape(fired)}</p>"
    )


def _row(
    what: str,
    value: float | None,
    interval: Sequence[float] | None,
    videos: int | None,
    unit: str,
) -> str:
    shown = f"{percent(value)}%" if unit == "%" else number(value, 3)
    bar = ""
    if unit == "%" and value is not None:
        bar = (
            f"<span class='bar'><i style='width:{max(0.0, min(1.0, value)) * 100:.0f}%'></i></span>"
        )
    span = ""
    if interval is not None:
        span = f"<span>[{percent(interval[0], 0)}, {percent(interval[1], 0)}]</span> "
    return (
        f"<tr><td>{html.escape(what)}</td><td>{bar}</td><td>{shown}</td>"
        f"<td class='small'>{span}<span>n = {videos}</span></td></tr>"
    )


def report_csv(report: dict[str, Any]) -> str:
    """Return one row for every number of every model: model, rank, what, value, low, high, n."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("model", "rank", "what", "value", "low", "high", "videos"))
    for name, rank in ranked(report):
        model = report["models"][name]
        for what, value, interval, videos, _ in card_lines(model, report["videos"]):
            low, high = interval if interval is not None else ("", "")
            writer.writerow((name, rank, what, value, low, high, videos))
        for kind, numbers in model["kinds"].items():
            for severity, accuracy in numbers["accuracy"].items():
                what = f"corrupted: {kind} {severity}"
                writer.writerow((name, rank, what, accuracy, "", "", report["videos"]))
    return out.getvalue()
