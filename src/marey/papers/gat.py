"""`marey reproduce gat`: Tables 1 and 2 and Figs. 1, 3, 5-8 of Sahu et al., beside the paper's
numbers.

Mini scale trains on `marey data render youtube8m-mini`: TFRecords in the YouTube-8M format whose
labels are planted as short local events among decoys. Numbers there are not the paper's; what can
be compared is which effects hold. Full scale trains the paper's settings on the shards given as
`--data`.

A Table 1 cell trains one model and measures it on the test partition, clean and attacked (Fig. 7),
and how far its attention maps move under attack (the paper: 1.23 -> 0.02). Trained models are kept
beside the data, so that the cells of Figs. 6 and 8 and of Table 2 only read them.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m_loading import IndexedExamples
from marey.datasets.youtube8m_shards import FeatureSet, open_feature_set
from marey.errors import UserError
from marey.files import atomic_folder
from marey.layers.gated_attention import global_profile, local_profile
from marey.losses.attention_regularisation import attention_regularisation
from marey.metrics.youtube8m import METRICS, YouTube8MEvaluator, best_and_worst_classes
from marey.papers.cells import Cell, ReproduceOptions
from marey.recipes.gat import VARIANTS, gat_youtube8m, gat_youtube8m_mini, variant_of
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.training.task import Batch
from marey.training.tasks.features import FeatureObjective, collate_videos
from marey.training.terms.adversarial import perturb
from marey.training.terms.classification import MultilabelTerm

PAPER: dict[str, tuple[float, float, float, float]] = {
    "SA-CE": (91.48, 91.29, 89.46, 94.84),
    "GMSA-CE": (92.18, 92.32, 90.03, 95.02),
    "GMSA-Adv": (92.49, 92.68, 90.34, 95.16),
    "GAT-AdvJS": (92.56, 92.70, 90.41, 95.21),
    "GAT-AdvFr": (92.60, 92.80, 90.44, 95.22),
}
"""Table 1: GAP, MAP, PERR, Hit@1 in percent."""
ATTACK_EPS = 0.5
"""Fig. 7 attacks with the radius of training."""
WINDOWS: dict[str, list[int | None]] = {
    "S (two global)": [None, None],
    "T4": [None, 4],
    "T12": [None, 12],
    "T16": [None, 16],
    "T24": [None, 24],
    "T8 16": [None, 8, 16],
    "tree 8-32": [None, 32, 16, 8],
}
"""Fig. 3 at mini scale, whose events last 6 to 8 s (the paper's windows: 10 to 100 of 300 s); "T8"
is GMSA-CE."""
FULL_WINDOWS: dict[str, list[int | None]] = {
    "S (two global)": [None, None],
    "T10": [None, 10],
    "T50": [None, 50],
    "T100": [None, 100],
    "T20 50": [None, 20, 50],
}
EPSILONS, ALPHAS = (0.1, 0.25, 1.0, 2.0), (0.25, 0.5, 2.0, 4.0)
"""Fig. 5; eps 0.5 with alpha 1 is GMSA-Adv."""
STRONG_BETA = 0.1
"""The paper's 0.001 hardly weighs beside the cross-entropy of the mini runs; this one does."""
MINI_SECONDS = {"SA-CE": 15.0, "GMSA-CE": 20.0}
"""Estimates on one core; adversarial cells take about 50 s."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the cells of one run share."""

    options: ReproduceOptions
    config: TrainConfig
    """The recipe of the scale."""

    def data(self) -> Path:
        """Return the data; mini scale renders it once into the cache."""
        if self.options.data is not None:
            return Path(self.options.data)
        folder = self.options.cache / "youtube8m-mini"
        if not (folder / "features.json").is_file():
            with atomic_folder(folder) as temporary:
                render_youtube8m_mini(temporary)
        return folder

    def trained(self, name: str, config: TrainConfig, seed: int) -> Path:
        """Return the checkpoint of a configuration at a seed, trained now if it is not there."""
        out = self.options.cache / "gat-models" / f"{name}-seed{seed}".replace(" ", "_")
        if not (out / "best" / "config.json").is_file() or not (out / "done").is_file():
            shutil.rmtree(out, ignore_errors=True)
            settled = replace(
                config,
                data=replace(config.data, path=str(self.data())),
                train=replace(config.train, seed=seed, device=self.options.train_device),
            )
            train(settled, out, quiet=True)
            (out / "done").touch()
        return out / "best"


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without data."""
    if options.scale == "full" and options.data is None:
        raise UserError(
            "the full scale trains on YouTube-8M; give the folder of its shards as --data, or take "
            "--scale mini, which makes its own"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells of the paper's tables and figures at a scale."""
    full = options.scale == "full"
    study = Study(options=options, config=gat_youtube8m() if full else gat_youtube8m_mini())
    unit = 40 * 3600.0 if full else 1.0
    found = []
    for seed in range(options.seeds):
        for name in VARIANTS:
            found.append(
                _cell(
                    study,
                    name,
                    variant_of(study.config, name),
                    seed,
                    "Table 1",
                    0,
                    unit * (1 if full else MINI_SECONDS.get(name, 50.0)),
                    dict(zip(METRICS, PAPER[name], strict=True)),
                )
            )
        for name, windows in (FULL_WINDOWS if full else WINDOWS).items():
            config = with_windows(
                variant_of(study.config, "GMSA-CE"), windows, "tree" if "tree" in name else "flat"
            )
            found.append(
                _cell(study, f"Fig3 {name}", config, seed, "Fig. 3", 2, unit * (1 if full else 25))
            )
        for eps in EPSILONS:
            found.append(
                _cell(
                    study,
                    f"Fig5 eps={eps:g}",
                    variant_of(study.config, "GMSA-Adv", eps=eps),
                    seed,
                    "Fig. 5",
                    3,
                    unit * (1 if full else 50),
                )
            )
        for alpha in ALPHAS:
            found.append(
                _cell(
                    study,
                    f"Fig5 alpha={alpha:g}",
                    variant_of(study.config, "GMSA-Adv", alpha=alpha),
                    seed,
                    "Fig. 5",
                    3,
                    unit * (1 if full else 50),
                )
            )
        found.append(
            _cell(
                study,
                f"Fr beta={STRONG_BETA:g}",
                variant_of(study.config, "GAT-AdvFr", beta=STRONG_BETA),
                seed,
                "Fig. 6",
                1,
                unit * (1 if full else 50),
                note="not in the paper: a hundred times its beta",
            )
        )
        for name, run, table in (
            ("profiles", profiles, "Figs. 1b, 6"),
            ("classes", class_gains, "Fig. 8"),
            ("listing", listing, "Table 2"),
        ):
            found.append(
                Cell(
                    name=name,
                    seed=seed,
                    run=functools.partial(run, study, seed),
                    estimate_seconds=5.0,
                    table=table,
                    priority=1,
                    note="from the models of Table 1",
                    settings={"config": study.config.to_dict()},
                )
            )
    return found


def _cell(
    study: Study,
    name: str,
    config: TrainConfig,
    seed: int,
    table: str,
    priority: int,
    seconds: float,
    paper: Mapping[str, float] | None = None,
    note: str = "",
) -> Cell:
    return Cell(
        name=name,
        seed=seed,
        run=functools.partial(measure, study, name, config, seed),
        estimate_seconds=seconds,
        paper=dict(paper) if paper else None,
        table=table,
        priority=priority,
        note=note,
        settings={
            "model": config.model.arguments,
            "objective": config.to_dict()["objective"],
            "epochs": config.train.epochs,
            "lr": config.optim.peak_lr,
            "data": study.options.data or "youtube8m-mini",
        },
    )


def with_windows(
    config: TrainConfig, windows: Sequence[int | None], gating: str = "flat"
) -> TrainConfig:
    """Return a recipe with other experts."""
    arguments = {**config.model.arguments, "windows": list(windows), "gating": gating}
    return replace(config, model=replace(config.model, arguments=arguments))


def measure(study: Study, name: str, config: TrainConfig, seed: int) -> dict[str, Any]:
    """Train one model and measure it on the test partition.

    Returns:
        GAP, MAP, PERR, Hit@1 in percent (clean), the same GAP under attack, the distance of
        attention maps under attack, and mean and deviation of the four over five equal parts of the
        test videos.
    """
    checkpoint = load_checkpoint(study.trained(name, config, seed))
    model, data = checkpoint.model, open_feature_set(study.data())
    clean, attacked, moved = evaluate_under_attack(model, data, ATTACK_EPS)
    results: dict[str, Any] = {metric: 100 * clean.compute()[metric] for metric in METRICS}
    results |= {
        "gap_attacked": 100 * attacked.compute()["gap"],
        "map_distance": moved,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    results["five_parts"] = {
        metric: {key: 100 * value for key, value in part.items()}
        for metric, part in clean.partitions(5).items()
    }
    return results


def batches_of_test(data: FeatureSet, batch_size: int = 50) -> DataLoader:
    """Return the test videos in order (validation where there is no test partition)."""
    examples = IndexedExamples(
        data.shards("test", "validate", ""), data.space, features=data.features
    )
    return DataLoader(examples, batch_size=batch_size, collate_fn=collate_videos)


def evaluate_under_attack(
    model: nn.Module, data: FeatureSet, eps: float
) -> tuple[YouTube8MEvaluator, YouTube8MEvaluator, float]:
    """Evaluate on the test videos as they are and on their adversarial counterparts (Fig. 7).

    Returns:
        Both evaluators, and the mean Frobenius distance of the global maps between the two, summed
        over modalities.
    """
    clean, attacked = (YouTube8MEvaluator(len(data.space.class_names)) for _ in range(2))
    objective, distances = FeatureObjective({"class": 1.0}, {"class": MultilabelTerm()}), []
    for batch in batches_of_test(data):
        outputs, moved = answer_clean_and_attacked(model, objective, batch, eps)
        for evaluator, answer in ((clean, outputs), (attacked, moved)):
            evaluator.update(answer["logits"].double().sigmoid().numpy(), batch["targets"].numpy())
        distances.append(
            float(attention_regularisation(outputs, moved, batch["mask"])) * len(batch["ids"])
        )
    return clean, attacked, sum(distances) / clean.num_videos


def answer_clean_and_attacked(
    model: nn.Module, objective: FeatureObjective, batch: Batch, eps: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's outputs, maps included, for a batch and for the batch moved against it."""
    moved = perturb(objective, model, batch, eps)
    with torch.no_grad():
        return tuple(
            model(one["features"], one["mask"], return_attention=True)  # type: ignore[return-value]
            for one in (batch, moved)
        )


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
