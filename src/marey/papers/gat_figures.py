"""Figs. 1b, 6 and 8 and Table 2 of `marey reproduce gat`, from the models of Table 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m_shards import open_feature_set
from marey.layers.gated_attention import global_profile, local_profile
from marey.metrics.youtube8m import YouTube8MEvaluator, best_and_worst_classes
from marey.papers.gat_study import ATTACK_EPS, Study, answer_clean_and_attacked, batches_of_test
from marey.recipes.gat import variant_of
from marey.training.tasks.features import FeatureObjective
from marey.training.terms.classification import MultilabelTerm


def profiles(study: Study, seed: int) -> dict[str, Any]:
    """Overlay attention profiles of one test video, clean and attacked, with L_adv and with L_advFr
    (Fig. 6).

    Returns:
        For each model, over the test videos: the largest attention a frame gets, and the overlap of
        clean and attacked profile (1 is equal); `profiles` holds the curves of the first video. A
        picture is written beside the models.
    """
    data, curves, results = open_feature_set(study.data()), {}, {}
    objective = FeatureObjective({"class": 1.0}, {"class": MultilabelTerm()})
    for name in ("GMSA-CE", "GMSA-Adv", "GAT-AdvFr"):
        model = load_checkpoint(study.trained(name, variant_of(study.config, name), seed)).model
        batch = next(iter(batches_of_test(data)))
        both = [
            profile_of(outputs, batch["mask"])
            for outputs in answer_clean_and_attacked(model, objective, batch, ATTACK_EPS)
        ]
        results[f"{name} largest"] = float(both[0]["global"].amax(1).mean())
        results[f"{name} overlap"] = float(
            torch.minimum(both[0]["global"], both[1]["global"]).sum(1).mean()
        )
        frames = int(batch["mask"][0].sum())
        curves[name] = {
            f"{kind} {level}": both[place][level][0, :frames].tolist()
            for place, kind in enumerate(("clean", "attacked"))
            for level in both[place]
        }
    draw_profiles(curves, study.options.cache / f"gat-profiles-seed{seed}.png")
    return {**results, "profiles": curves}


def profile_of(outputs: Mapping[str, Any], mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the profiles of the visual encoder's last layer: "global" (B, T), and "local" where it
    has a window."""
    layer = outputs["attention"]["rgb"][-1]
    found = {"global": global_profile(layer["global_map"], mask)}
    for local in list(layer["local_maps"].values())[:1]:
        found["local"] = local_profile(local, mask.shape[1], mask)
    return found


def draw_profiles(curves: Mapping[str, Mapping[str, list[float]]], path: Path) -> bool:
    """Draw global profiles, clean over attacked, one panel a model; returns whether matplotlib was
    there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    for place, (name, lines) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), place + 1, title=name, xlabel="second")
        for kind in ("clean global", "attacked global", "clean local"):
            if kind in lines:
                axes.plot(lines[kind], label=kind, linewidth=1)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def class_gains(study: Study, seed: int) -> dict[str, Any]:
    """Compare class by class: average precision of GAT_AdvFr against the baseline (Fig. 8)."""
    data = open_feature_set(study.data())
    per_class = {}
    for name in ("SA-CE", "GAT-AdvFr"):
        model = load_checkpoint(study.trained(name, variant_of(study.config, name), seed)).model
        evaluator = YouTube8MEvaluator(len(data.space.class_names))
        for batch in batches_of_test(data):
            with torch.no_grad():
                logits = model(batch["features"], batch["mask"])["logits"]
            evaluator.update(logits.double().sigmoid().numpy(), batch["targets"].numpy())
        per_class[name] = evaluator.per_class_average_precision()
    gains = [per_class["GAT-AdvFr"][k] - ap for k, ap in per_class["SA-CE"].items()]
    return {
        "classes worse": sum(gain < 0 for gain in gains),
        "classes": len(gains),
        **best_and_worst_classes(
            per_class["GAT-AdvFr"], per_class["SA-CE"], data.space.class_names
        ),
    }


def listing(
    study: Study, seed: int, count: int = 4, threshold: float = 0.2, top: int = 3
) -> dict[str, Any]:
    """List what baseline and GAT say about some test videos beside the truth (Table 2: threshold
    0.2, top 3)."""
    data = open_feature_set(study.data())
    batch = next(iter(batches_of_test(data)))
    names = data.space.class_names
    rows: list[dict[str, Any]] = [
        {
            "id": batch["ids"][row],
            "truth": [names[k] for k in batch["targets"][row].nonzero().flatten()],
        }
        for row in range(min(count, len(batch["ids"])))
    ]
    for name in ("SA-CE", "GAT-AdvFr"):
        model = load_checkpoint(study.trained(name, variant_of(study.config, name), seed)).model
        with torch.no_grad():
            probabilities = model(batch["features"], batch["mask"])["logits"].sigmoid()
        for row in rows:
            best = probabilities[batch["ids"].index(row["id"])].topk(top)
            row[name] = {
                names[int(k)]: round(float(p), 2)
                for p, k in zip(best.values, best.indices, strict=True)
                if p > threshold
            }
    return {"rows": rows}
