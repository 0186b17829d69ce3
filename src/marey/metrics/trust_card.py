"""The table of trust in a model card: what was measured out of fold, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marey.metrics.trust import describe_trust

NOT_MEASURED = "not measured"


def trust_table(calibration: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a Markdown table of what `fit_trust` measured.

    Args:
        calibration: of a checkpoint; None, or without "trust", says that nothing was fitted.
    """
    trust = (calibration or {}).get("trust")
    if not trust:
        return ["Trust: nothing was fitted; probabilities are not calibrated."]
    if trust.get("reason"):
        return [f"Trust: {trust['reason']}."]
    measured, unknown = trust["calibration"], trust["unknown"]
    temperature = (calibration or {}).get("temperature")
    rows = [
        ("videos, groups", f"{trust['num_videos']}, {trust['num_groups']}"),
        ("accuracy", f"{measured['accuracy']:.3f}"),
        (
            "calibration error, its noise floor at this size",
            f"{measured['ece']:.3f}, {measured['ece_noise_floor']:.3f}",
        ),
        ("temperature", "none" if temperature is None else f"{temperature:.2f}"),
        ("Brier score, uncalibrated", f"{measured['brier']:.3f}, {measured['brier_before']:.3f}"),
        ("AURC, uncalibrated", f"{measured['aurc']:.3f}, {measured['aurc_before']:.3f}"),
        ("called unknown by mistake", f"{unknown['false_alarm_rate']:.1%}"),
        *_unknown_rows("a class hidden from training", unknown["near_score"], unknown.get("near")),
        *_unknown_rows("other footage", unknown["far_score"], unknown.get("far")),
    ]
    if trust.get("warning"):
        rows.append(("warned of damage by mistake", f"{trust['warning']['false_alarm_rate']:.1%}"))
    sets = trust["set"].get("measured")
    if sets:
        rows.append(
            (
                "sets of 90 %: coverage, mean size",
                f"{sets['coverage']:.1%}, {sets['mean_size']:.2f}",
            )
        )
    return [
        "| trust, out of fold | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]


def _unknown_rows(
    what: str, score: str, measures: Mapping[str, Mapping[str, float]] | None
) -> list[tuple[str, str]]:
    """Return the row of a kind of unknown video: the chosen score beside the baselines."""
    if not measures:
        return [(f"AUROC for {what}", f"{NOT_MEASURED} ({score} decides)")]
    shown = [score, *(n for n in ("max_probability", "energy", "knn") if n != score)]
    values = ", ".join(f"{name} {measures[name]['auroc']:.2f}" for name in shown)
    return [
        (f"AUROC for {what} (the first decides)", values),
        (f"FPR95 for {what}", f"{measures[score]['fpr95']:.2f}"),
    ]


def run_card(title: str, facts: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> str:
    """Return the card of a training run, Markdown.

    Args:
        title: of the page.
        facts: name -> value, shown one a line.
    """
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += trust_table(calibration)
    if (calibration or {}).get("trust"):
        lines += ["", f"In one line: {describe_trust(calibration or {})}."]
    lines += ["", "Measure it on your own videos: `marey trust MODEL --data KNOWN --out REPORT`."]
    return "\n".join(lines) + "\n"
