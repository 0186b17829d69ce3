"""What trust is worth where users meet it: unknown actions, other footage, sets, calibration.

    python -m benchmarks.trust --data ../shared/data --out results/trust.json [--features FOLDER]

Models are linear probes on frozen EfficientNet-Lite0 features (eight frames, four per second, from
the middle of a video; mean, standard deviation and change over time in 4 x 4 cells). Features are
computed once and kept in FOLDER.

* near: UT-Interaction, all 15 ways to hide two of its six classes. Groups are split into five
  folds; a probe is taught the other four classes, its trust is fitted (the score is chosen by
  hiding each of those four in turn), and the held-out groups hold known and hidden actions.
* far: the videos of the other data set. The nine single clips choose the far score.
* sets, calibration, false alarms: ten splits by group, half the groups to fit and half to measure.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.checkpoints.load import load_checkpoint
from marey.files import write_json
from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.metrics.calibration import (
    brier_score,
    calibration_noise_floor,
    expected_calibration_error,
)
from marey.metrics.conformal import fixed_top_k, prediction_sets, set_measures
from marey.metrics.intervals import difference_interval, proportion_interval
from marey.metrics.selective import aurc, auroc, fpr_at_tpr
from marey.metrics.trust import (
    SCORES,
    combine,
    fit_trust,
    group_folds,
    raw_scores,
    ridge_head,
)
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling

SPLITS = 10
LIMITS = (
    "near: one data set; the 15 ways share classes and videos, so the interval over ways is too "
    "narrow",
    "far: the nine clips that choose the score and the other data set are real footage; no bank is "
    "shipped",
    "not measured: corruptions, renders with classes hidden, the bundled models, zero-shot names",
)


def preprocess() -> Preprocess:
    """Return eight frames at 4 per second from the middle, the whole picture at 160 x 160."""
    return Preprocess(
        sampling=ClipSampling(num_frames=8, stride_frames=1, target_fps=4.0, view_start="offset"),
        short_side=160,
        image_size=160,
        resize_mode="stretch",
        mean=LITE0_MEAN,
        std=LITE0_STD,
    )


def cells_of(paths: list[Path]) -> Tensor:
    """Return the features of some videos, half (N, T, 16, C): 4 x 4 cells of every frame."""
    bundled: Any = load_checkpoint("marey-mini-rgb").model
    trunk, prepare = bundled.patch_embed.trunk.image.eval(), preprocess()
    rows = []
    for path in paths:
        with open_video(path) as reader:
            views, _ = prepare.views(reader, num_temporal=1)
        with torch.inference_mode():
            maps = F.adaptive_avg_pool2d(trunk(views[0]), 4)
        rows.append(maps.flatten(2).transpose(1, 2).half())
    return torch.stack(rows)


def embeddings(name: str, data: Path, folder: Path) -> tuple[Tensor, list[str], list[str]]:
    """Return embeddings (N, D), labels and groups of a data set, computed once.

    Args:
        name: "ut_interaction", "surv_fight", or "clips", the single clips beside the data.
    """
    if name == "clips":
        paths = sorted(path for path in (data.parent / name).iterdir() if path.suffix != ".md")
        labels = groups = [path.stem for path in paths]
    else:
        with (data / name / "manifest.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        paths = [data / row["path"] for row in rows]
        labels, groups = [row["label"] for row in rows], [row["group"] for row in rows]
    stored = folder / f"{name}.pt"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"cells": cells_of(paths)}, stored)
    cells = torch.load(stored, weights_only=True)["cells"].float()
    change = (cells[:, 1:] - cells[:, :-1]).abs().mean(1)
    parts = (cells.mean(1), cells.std(1), change)
    return torch.cat([part.flatten(1) for part in parts], 1), labels, groups


def out_of_fold(embedding: Tensor, labels: Tensor, groups: list[str]) -> Tensor:
    """Return the logits (N, K) of probes that never saw the video's group."""
    fold = group_folds(groups, seed=1)
    logits = torch.zeros(len(labels), int(labels.max()) + 1, dtype=torch.double)
    for number in fold.unique().tolist():
        train = fold != number
        logits[~train] = ridge_head(embedding[train], labels[train])(embedding[~train])
    return logits


def pick(items: list[str], chosen: Tensor) -> list[str]:
    """Return the chosen entries of a list."""
    return [item for item, keep in zip(items, chosen.tolist(), strict=True) if keep]


def near_study(
    embedding: Tensor, labels: Tensor, groups: list[str], others: dict[str, Tensor], bank: Tensor
) -> dict[str, Any]:
    """Hide two classes in all ways; see the head of this file.

    Args:
        others: name -> embeddings of other footage.
        bank: embeddings of other footage that chooses the far score.
    """
    classes = int(labels.max()) + 1
    fold = group_folds(groups)
    rows = []
    alarms: list[Tensor] = []
    alarm_groups: list[str] = []
    for hidden in itertools.combinations(range(classes), 2):
        known = ~torch.isin(labels, torch.tensor(hidden))
        scores = {
            name: torch.zeros(len(labels), dtype=torch.double) for name in (*SCORES, "chosen")
        }
        far_scores: dict[str, list[Tensor]] = {name: [] for name in others}
        far_known: list[Tensor] = []
        alarm = torch.zeros(len(labels))
        chosen_names = []
        for number in range(5):
            train, test = (fold != number) & known, fold == number
            _, own = labels[train].unique(return_inverse=True)
            inner_groups = pick(groups, train)
            inner = out_of_fold(embedding[train], own, inner_groups)
            head = ridge_head(embedding[train], own)
            far = (head(bank), bank)
            calibration, tensors = fit_trust(inner, embedding[train], own, inner_groups, far=far)
            trust = calibration["trust"]

            def all_scores(
                values: Tensor, head: Any = head, tensors: Any = tensors, trust: Any = trust
            ) -> dict[str, Tensor]:
                found = raw_scores(head(values), values, tensors)
                return {**found, "combined": combine(found, trust["standard"])}

            unknown = trust["unknown"]
            found = all_scores(embedding[test])
            mean, std = trust["standard"].get(unknown["near_score"], (0.0, 2.0**0.5))
            found["chosen"] = (found[unknown["near_score"]] - mean) / std
            for name, values in found.items():
                scores[name][test] = values
            alarm[test] = (
                (found[unknown["near_score"]] > unknown["near_threshold"])
                | (found[unknown["far_score"]] > unknown["far_threshold"])
            ).float()
            chosen_names.append(unknown["near_score"])
            far_known.append(found[unknown["far_score"]][known[test]])
            for name, values in others.items():
                far_scores[name].append(all_scores(values)[unknown["far_score"]])
        alarms.append(alarm[known])
        alarm_groups += pick(groups, known)
        row: dict[str, Any] = {
            "hidden": list(hidden),
            "chosen": chosen_names,
            "auroc": {name: auroc(v[known], v[~known]) for name, v in scores.items()},
            "fpr95": {name: fpr_at_tpr(v[known], v[~known]) for name, v in scores.items()},
            "false_alarms": float(alarm[known].mean()),
            "found_unknown": float(alarm[~known].mean()),
            "far_auroc": {
                name: sum(auroc(a, b) for a, b in zip(far_known, parts, strict=True)) / len(parts)
                for name, parts in far_scores.items()
            },
        }
        print(hidden, {k: round(v, 3) for k, v in row["auroc"].items()}, row["false_alarms"])
        rows.append(row)
    gains = torch.tensor([row["auroc"]["chosen"] - row["auroc"]["max_probability"] for row in rows])
    # Two ways share classes; the interval over the 15 ways takes each way for a draw of its own.
    return {
        "ways": rows,
        "near_auroc": {
            name: sum(row["auroc"][name] for row in rows) / len(rows)
            for name in (*SCORES, "chosen")
        },
        "near_fpr95": {
            name: sum(row["fpr95"][name] for row in rows) / len(rows)
            for name in (*SCORES, "chosen")
        },
        "gain_over_max_probability": float(gains.mean()),
        "gain_interval_over_ways": list(difference_interval(gains)),
        "false_alarms": float(torch.cat(alarms).mean()),
        "false_alarm_interval": list(proportion_interval(torch.cat(alarms), alarm_groups)),
        "found_unknown": sum(row["found_unknown"] for row in rows) / len(rows),
        "far_auroc": {
            name: sum(row["far_auroc"][name] for row in rows) / len(rows) for name in others
        },
    }


def split_study(
    embedding: Tensor, labels: Tensor, groups: list[str], others: dict[str, Tensor], bank: Tensor
) -> dict[str, Any]:
    """Fit trust on half the groups, ten times, and measure it on the other half."""
    rows = []
    for seed in range(SPLITS):
        fit = group_folds(groups, 2, seed=seed) == 0
        own_groups = pick(groups, fit)
        inner = out_of_fold(embedding[fit], labels[fit], own_groups)
        head = ridge_head(embedding[fit], labels[fit])
        far = (head(bank), bank)
        calibration, tensors = fit_trust(inner, embedding[fit], labels[fit], own_groups, far=far)
        trust = calibration["trust"]
        truth = labels[~fit]
        logits = head(embedding[~fit])
        probs = (logits / calibration.get("temperature", 1.0)).softmax(-1)
        plain = logits.softmax(-1)
        confidence, predicted = probs.max(1)
        right = predicted == truth
        scores = raw_scores(logits, embedding[~fit], tensors)
        scores["combined"] = combine(scores, trust["standard"])
        unknown = trust["unknown"]
        alarm = (scores[unknown["near_score"]] > unknown["near_threshold"]) | (
            scores[unknown["far_score"]] > unknown["far_threshold"]
        )
        row: dict[str, Any] = {
            "accuracy": float(right.double().mean()),
            "temperature": calibration.get("temperature"),
            "calibrated": calibration["calibrated"],
            "ece": expected_calibration_error(probs, truth),
            "ece_before": expected_calibration_error(plain, truth),
            "ece_noise_floor": calibration_noise_floor(confidence),
            "brier": brier_score(probs, truth),
            "brier_before": brier_score(plain, truth),
            "aurc": aurc(confidence, right),
            "aurc_before": aurc(plain.max(1).values, plain.argmax(1) == truth),
            "false_alarms": float(alarm.double().mean()),
            "far_auroc": {},
            "far_found": {},
        }
        for name, values in others.items():
            other = raw_scores(head(values), values, tensors)
            other["combined"] = combine(other, trust["standard"])
            far = other[unknown["far_score"]]
            row["far_of_scores"] = {key: auroc(scores[key], other[key]) for key in SCORES}
            row["far_auroc"][name] = auroc(scores[unknown["far_score"]], far)
            flagged = (other[unknown["near_score"]] > unknown["near_threshold"]) | (
                far > unknown["far_threshold"]
            )
            row["far_found"][name] = float(flagged.double().mean())
        inside = prediction_sets(probs, trust["set"]["thresholds"]["0.9"])
        row["set"] = set_measures(inside, truth)
        row["set"]["fixed_top_k"] = fixed_top_k(probs, truth, 0.9)
        row["far_score"] = unknown["far_score"]
        rows.append(row)

    def mean(name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    def mean_of(name: str, key: str) -> float:
        return sum(row[name][key] for row in rows) / len(rows)

    summary_far = {
        score: sum(row["far_of_scores"][score] for row in rows) / len(rows) for score in SCORES
    }
    names = ("accuracy", "ece", "ece_before", "ece_noise_floor", "brier", "brier_before", "aurc")
    summary: dict[str, Any] = {name: mean(name) for name in (*names, "aurc_before", "false_alarms")}
    summary["ece_below_its_floor"] = sum(row["ece"] <= row["ece_noise_floor"] for row in rows)
    summary["far_auroc_of_scores"] = summary_far
    summary["far_auroc"] = {name: mean_of("far_auroc", name) for name in others}
    summary["far_found"] = {name: mean_of("far_found", name) for name in others}
    keys = ("coverage", "mean_size", "share_of_one", "fixed_top_k")
    summary["set"] = {key: mean_of("set", key) for key in keys}
    return {"summary": summary, "splits": rows}


def main() -> None:
    """Run every study and write the table."""
    parser = argparse.ArgumentParser(description="What trust is worth on real videos.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--features", type=Path, default=Path("runs/trust_features"))
    parser.add_argument("--out", type=Path, default=Path("results/trust.json"))
    arguments = parser.parse_args()
    data = {
        name: embeddings(name, arguments.data, arguments.features)
        for name in ("ut_interaction", "surv_fight", "clips")
    }
    report: dict[str, Any] = {
        "command": f"python -m benchmarks.trust --data {arguments.data} --out {arguments.out}",
        "what": (__doc__ or "").split("\n\n")[0],
        "num_splits": SPLITS,
        "limits": LIMITS,
    }
    for name in ("ut_interaction", "surv_fight"):
        embedding, names, groups = data[name]
        classes = sorted(set(names))
        labels = torch.tensor([classes.index(label) for label in names])
        bank = data["clips"][0]
        others = {other: data[other][0] for other in data if other not in (name, "clips")}
        report[name] = {"classes": classes, **split_study(embedding, labels, groups, others, bank)}
        print(name, report[name]["summary"])
        if len(classes) > 2:
            report[name]["hidden"] = near_study(embedding, labels, groups, others, bank)
            print({k: v for k, v in report[name]["hidden"].items() if k != "ways"})
    write_json(arguments.out, report)


if __name__ == "__main__":
    main()
