"""Which head breaks least when the video changes: heads on stored features, with its error bars.

    python -m benchmarks.robustness_features surv_fight ut_interaction --out FOLDER
    python -m benchmarks.robustness_study FOLDER --data DATA --out results/robustness_study.json

Whole scenes (surv_fight) or groups (UT-Interaction) are held out in five folds, drawn anew for each
of ten seeds, together with the heads' first weights. The JSON's "conclusions" are written by hand
and kept when the study runs again.

Legend: N clips, C conditions, S seeds, E = S * folds models, K classes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from benchmarks.robustness_heads import (
    ATTENTIVE,
    DIRECTED,
    FRAME,
    PROBE,
    SEMANTIC,
    Head,
    Sizes,
    adapt,
    standard_of,
    train,
)
from benchmarks.robustness_study_page import page, table
from marey.corruptions import CATEGORIES, KINDS
from marey.files import write_csv, write_json, write_text
from marey.labels.embed import embed_labels
from marey.metrics.calibration import calibration_error, calibration_noise_floor
from marey.metrics.crossed import crossed_bootstrap, crossed_mean
from marey.metrics.robustness import corruption_error
from marey.teaching.controls import metadata_predictions
from marey.teaching.folds import folds_of

SEEDS = 10
FOLDS = 5
TOKEN_WIDTH = 64
"""Channels of a token after a fixed random projection of the 192."""
DRAWS = 2000
FLOOR_DRAWS = 50
GOAL = 0.025
"""Half the width of the interval of a contrast that the study wants to resolve."""
COMPLETE = 0.9
"""The widest set of severities that this share of the clips has decides."""
SEVERITY_SETS = ((1, 2, 3, 4, 5), (1, 3, 5), (3,))

HEADS = (FRAME, PROBE, ATTENTIVE, DIRECTED, SEMANTIC)
AUGMENTED = "augmented"
ADAPTED = "adapted"
HALVES = (
    ("noise", "digital", "temporal", "camera"),
    ("blur", "weather", "codec"),
)
"""Two halves of the categories: "augmented" is trained on one and tested on the other, twice, so
that every kind is answered by a model that saw no kind of its category."""

CONTRASTS = (
    ("attentive", "probe", "does a learned query help under corruption?"),
    ("direcformer", "attentive", "does directed attention over time help against plain pooling?"),
    ("sevitar", "probe", "does the predicted label vector, with its hidden layer, help?"),
    (AUGMENTED, "attentive", "does training on other kinds of corruption help on new ones?"),
    (ADAPTED, "probe", "does adapting to the tested clips without labels help?"),
    ("probe", "one frame", "is more than one frame used under corruption?"),
)
"""(a, b, question): the mean accuracy under corruption of a minus that of b. Written down before
the first run; their intervals are at level 1 - .05 / 6, so that all six hold together."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The stored features of a data set's clips that have the conditions of some passes."""

    name: str
    videos: list[dict[str, Any]]
    class_names: list[str]
    tags: list[str]
    cells: Tensor
    """float32 (N, C, L, d)."""
    motion: Tensor
    """float32 (N, C, m)."""

    @property
    def labels(self) -> Tensor:
        """Return the class numbers, (N,)."""
        return torch.tensor([video["label"] for video in self.videos])

    @property
    def groups(self) -> list[str]:
        """Return scene or group of each clip."""
        return [str(video["group"]) for video in self.videos]


def read_features(folder: Path, passes: Sequence[str]) -> Stored:
    """Read the clips of a data set that have all of these passes."""
    facts = json.loads((folder / "index.json").read_text())
    tags = [tag for name in passes for tag in facts["tags"][name]]
    projection = torch.randn(192, TOKEN_WIDTH, generator=Generator().manual_seed(0)) / 192**0.5
    videos, cells, motion = [], [], []
    for video in facts["videos"]:
        files = [folder / f"{video['file']}.{name}.safetensors" for name in passes]
        if not all(path.is_file() for path in files):
            continue
        parts = [load_file(path) for path in files]
        found = torch.cat([part["cells"] for part in parts]).float() @ projection
        cells.append(found.flatten(1, 2))
        motion.append(torch.cat([part["motion"] for part in parts]).float())
        videos.append(video)
    return Stored(
        name=folder.name,
        videos=videos,
        class_names=facts["class_names"],
        tags=tags,
        cells=torch.stack(cells) if cells else torch.empty(0),
        motion=torch.stack(motion) if motion else torch.empty(0),
    )


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of all heads: right or wrong, and the confidence, each (N, C, S) by head."""

    right: dict[str, Tensor]
    confidence: dict[str, Tensor]


def answer_all(stored: Stored) -> Answers:
    """Train every head for every seed and fold, and answer every condition of every clip."""
    labels, groups = stored.labels, stored.groups
    names = [stored.class_names[label] for label in labels.tolist()]
    folds = torch.stack([folds_of(names, groups, FOLDS, seed) for seed in range(SEEDS)])  # (S, N)
    tested = torch.stack(
        [(folds[seed] == fold).float() for seed in range(SEEDS) for fold in range(FOLDS)]
    )  # (E, N)
    learns = 1 - tested
    clean = stored.tags.index("clean")
    standard = standard_of(stored.cells[:, clean], stored.motion[:, clean], learns)
    vectors = embed_labels([spoken(name) for name in stored.class_names]).vectors
    sizes = Sizes(
        models=len(tested),
        width=TOKEN_WIDTH,
        motion=stored.motion.shape[-1],
        classes=len(stored.class_names),
        label_vectors=torch.nn.functional.normalize(vectors.float(), dim=-1),
    )

    def clean_clips(rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return stored.cells[rows, clean], stored.motion[rows, clean]

    def changed_clips(half: tuple[str, ...]) -> Any:
        columns = [clean] * 8 + [
            i for i, tag in enumerate(stored.tags) if tag != "clean" and category(tag) in half
        ]

        def draw(rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(0, len(columns), (len(rows),), generator=generator)
            wanted = torch.tensor(columns)[chosen]
            return stored.cells[rows, wanted], stored.motion[rows, wanted]

        return draw

    def trained(head: Head, draw: Any) -> Any:
        return train(head, sizes, draw, standard, labels, learns, seed=0)

    parameters = {head.name: trained(head, clean_clips) for head in HEADS}
    halves = [trained(ATTENTIVE, changed_clips(half)) for half in HALVES]

    held = tested.bool().view(SEEDS, FOLDS, -1)
    right: dict[str, list[Tensor]] = {}
    confidence: dict[str, list[Tensor]] = {}
    for column, tag in enumerate(stored.tags):
        inputs = standard(stored.cells[:, column], stored.motion[:, column])
        with torch.no_grad():
            answers = {head.name: head.logits(parameters[head.name], inputs) for head in HEADS}
            both = [ATTENTIVE.logits(half, inputs) for half in halves]
        if tag == "clean":
            chances = [answer.softmax(-1) for answer in both]
            answers[AUGMENTED] = ((chances[0] + chances[1]) / 2).clamp(min=1e-12).log()
        else:
            # The model that was trained on the other half.
            answers[AUGMENTED] = both[1] if category(tag) in HALVES[0] else both[0]
        answers[ADAPTED] = adapt(parameters["probe"], inputs, tested)
        for name, logits in answers.items():
            best = logits.softmax(-1).max(-1)
            of_seed = (best.indices == labels).view(SEEDS, FOLDS, -1)
            sure = best.values.view(SEEDS, FOLDS, -1)
            # Each clip is answered by the model of its seed that never saw its fold.
            right.setdefault(name, []).append((of_seed & held).any(1).T)
            confidence.setdefault(name, []).append((sure * held).sum(1).T)
    return Answers(
        right={name: torch.stack(found, dim=1).double() for name, found in right.items()},
        confidence={name: torch.stack(found, dim=1) for name, found in confidence.items()},
    )


def spoken(name: str) -> str:
    """Return a class name as words: "noFight" is "no fight"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name)


def category(tag: str) -> str:
    """Return the category of a condition such as "model/fog/3"."""
    return KINDS[tag.split("/")[1]].category


def scene_table(values: Tensor, groups: Sequence[str]) -> Tensor:
    """Average values (N, S) over the clips of each scene, (G, S)."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    places = torch.tensor([numbers[name] for name in groups])
    total = torch.zeros(len(numbers), values.shape[1], dtype=torch.double)
    total.index_add_(0, places, values.double())
    return total / places.bincount(minlength=len(numbers))[:, None]


def estimate(values: Tensor, groups: Sequence[str], level: float = 0.95) -> dict[str, Any]:
    """Estimate the mean of values (N, S) by the mixed model over scenes and seeds."""
    found = crossed_mean(scene_table(values, groups), level=level)
    return {**{key: round(value, 5) for key, value in asdict(found).items()}}


def measure(stored: Stored, answers: Answers) -> dict[str, Any]:
    """Compute every number of one data set and one set of severities."""
    groups, tags = stored.groups, stored.tags
    changed = [i for i, tag in enumerate(tags) if tag != "clean"]
    clean = tags.index("clean")
    corrupted = {name: right[:, changed].mean(1) for name, right in answers.right.items()}
    heads: dict[str, Any] = {}
    for name, right in answers.right.items():
        by_kind = kind_accuracies(tags, right)
        of_probe = kind_accuracies(tags, answers.right["probe"])
        errors = [corruption_error(by_kind[kind], of_probe[kind]) for kind in by_kind]
        known = [error for error in errors if error is not None]
        clean_mean, corrupted_mean = float(right[:, clean].mean()), float(corrupted[name].mean())
        heads[name] = {
            "clean": estimate(right[:, clean], groups),
            "corrupted": estimate(corrupted[name], groups),
            "clean_by_clip": round(clean_mean, 4),
            "corrupted_by_clip": round(corrupted_mean, 4),
            "relative": round(corrupted_mean / clean_mean, 4),
            "mce_against_probe": round(sum(known) / len(known), 4),
            "categories": {
                group: estimate(
                    right[:, [i for i in changed if category(tags[i]) == group]].mean(1), groups
                )
                for group in CATEGORIES
            },
            "kinds": {
                kind: {str(s): round(value, 4) for s, value in row.items()}
                for kind, row in by_kind.items()
            },
            "calibration": calibration(answers, name, clean, changed),
        }
    level = 1 - 0.05 / len(CONTRASTS)
    contrasts = []
    for a, b, question in CONTRASTS:
        difference = corrupted[a] - corrupted[b]
        found = estimate(difference, groups, level)
        draws = crossed_bootstrap(
            scene_table(difference, groups), draws=DRAWS, generator=Generator().manual_seed(0)
        )
        edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
        width = (found["high"] - found["low"]) / 2
        contrasts.append(
            {
                "a": a,
                "b": b,
                "question": question,
                **found,
                "half_width": round(width, 5),
                "resolves_goal": width <= GOAL,
                "bootstrap": [round(float(v), 5) for v in draws.quantile(edges)],
                "clean": estimate(
                    answers.right[a][:, clean] - answers.right[b][:, clean], groups, level
                ),
            }
        )
    return {
        "clips": len(stored.videos),
        "scenes": len(set(groups)),
        "conditions": len(changed),
        "majority_share": round(int(stored.labels.bincount().max()) / len(stored.videos), 4),
        "heads": heads,
        "contrasts": contrasts,
        "ranks": ranks(stored, answers, corrupted, clean),
    }


def kind_accuracies(tags: Sequence[str], right: Tensor) -> dict[str, dict[int, float]]:
    """Return kind -> severity -> accuracy over clips and seeds."""
    found: dict[str, dict[int, float]] = {}
    for column, tag in enumerate(tags):
        if tag != "clean":
            _, kind, severity = tag.split("/")
            found.setdefault(kind, {})[int(severity)] = float(right[:, column].mean())
    return found


def calibration(
    answers: Answers, name: str, clean: int, changed: Sequence[int]
) -> dict[str, float]:
    """Return the calibration error of the first seed, beside what a calibrated model has."""
    right, sure = answers.right[name][..., 0], answers.confidence[name][..., 0]

    def both(column: int) -> tuple[float, float]:
        floor = calibration_noise_floor(sure[:, column], draws=FLOOR_DRAWS)
        return calibration_error(sure[:, column], right[:, column]), floor

    of_clean = both(clean)
    pairs = [both(column) for column in changed]
    above = sum(error > floor for error, floor in pairs) / len(pairs)
    return {
        "clean_error": round(of_clean[0], 4),
        "clean_floor": round(of_clean[1], 4),
        "corrupted_error": round(sum(error for error, _ in pairs) / len(pairs), 4),
        "corrupted_floor": round(sum(floor for _, floor in pairs) / len(pairs), 4),
        "share_of_conditions_above_floor": round(above, 4),
    }


def ranks(
    stored: Stored, answers: Answers, corrupted: dict[str, Tensor], clean: int
) -> dict[str, Any]:
    """Return how stable the order of the heads is: over draws of scenes and seeds, from clean to
    corrupted, and from kind to kind."""
    names = list(corrupted)
    tables = torch.stack([scene_table(corrupted[name], stored.groups) for name in names])
    draws = crossed_bootstrap(tables, draws=DRAWS, generator=Generator().manual_seed(0))
    places = draws.argsort(0, descending=True).argsort(0)  # (heads, draws)
    first = (places == 0).double().mean(1)
    clean_order = torch.tensor([float(answers.right[name][:, clean].mean()) for name in names])
    order = torch.tensor([float(corrupted[name].mean()) for name in names])
    kinds = [
        torch.tensor([float(answers.right[name][:, column].mean()) for name in names])
        for column, tag in enumerate(stored.tags)
        if tag != "clean"
    ]
    between = [kendall(one, order) for one in kinds]
    return {
        "share_of_draws_first": {
            name: round(float(share), 4) for name, share in zip(names, first, strict=True)
        },
        "rank_95": {
            name: [1 + int(row.double().quantile(q)) for q in (0.025, 0.975)]
            for name, row in zip(names, places, strict=True)
        },
        "kendall_clean_corrupted": round(kendall(clean_order, order), 4),
        "kendall_one_condition_all": {
            "mean": round(sum(between) / len(between), 4),
            "lowest": round(min(between), 4),
        },
    }


def kendall(a: Tensor, b: Tensor) -> float:
    """Return Kendall's tau-a of two lists of values, in [-1, 1]."""
    i, j = torch.triu_indices(len(a), len(a), offset=1)
    return float(((a[i] - a[j]).sign() * (b[i] - b[j]).sign()).double().mean())


def at_source(folder: Path, answers: Answers, stored: Stored) -> dict[str, Any] | None:
    """Compare clips changed at the video's own size with the same change at the model's."""
    severities = {int(tag.split("/")[2]) for tag in stored.tags if tag != "clean"}
    found: dict[str, Any] = {}
    wide = read_features(folder, ["middle", "outer", "source"])
    if len(wide.videos) < 2 * FOLDS or not severities:
        return None
    result = answer_all(wide)
    for kind in dict.fromkeys(tag.split("/")[1] for tag in wide.tags if tag.startswith("source")):
        found[kind] = {}
        for severity in (1, 3, 5):
            source = wide.tags.index(f"source/{kind}/{severity}")
            model = wide.tags.index(f"model/{kind}/{severity}")
            right = result.right["probe"]
            difference = right[:, source] - right[:, model]
            found[kind][str(severity)] = {
                "source": round(float(right[:, source].mean()), 4),
                "model": round(float(right[:, model].mean()), 4),
                "difference": estimate(difference, wide.groups),
            }
    return {"clips": len(wide.videos), "head": "probe", "kinds": found}


def metadata_control(stored: Stored, data: Path) -> dict[str, Any] | None:
    """Return the accuracy of classifiers that see width, height, rate and frames only."""
    manifest = data / stored.name / "manifest.csv"
    if not manifest.is_file():
        return None
    rows = {}
    for row in csv.DictReader(manifest.open(encoding="utf-8")):
        width, height, frames, fps = (
            float(row[key]) for key in ("width", "height", "frames", "fps")
        )
        facts = [width, height, frames, fps, frames / max(fps, 1e-6), width / height]
        rows[row["path"].split("/", 1)[-1]] = facts
    facts = torch.tensor([rows[video["video"]] for video in stored.videos], dtype=torch.double)
    labels, seeds = stored.labels, 3
    names = [stored.class_names[label] for label in labels.tolist()]
    found: dict[str, list[Tensor]] = {}
    for seed in range(seeds):
        folds = folds_of(names, stored.groups, FOLDS, seed)
        for classifier, predicted in metadata_predictions(facts, labels, folds).items():
            found.setdefault(classifier, []).append((predicted == labels).double())
    return {
        "sees": "width, height, frames, rate; no corruption changes them",
        "seeds": seeds,
        **{
            classifier: estimate(torch.stack(right, dim=1), stored.groups)
            for classifier, right in found.items()
        },
    }


def study(folder: Path, data: Path) -> dict[str, Any]:
    """Run the study on one data set."""
    facts = json.loads((folder / "index.json").read_text())
    passes = {(3,): ["middle"], (1, 3, 5): ["middle", "outer"]}
    passes[1, 2, 3, 4, 5] = ["middle", "outer", "even"]
    found: dict[str, Any] = {"videos_of_the_data_set": len(facts["videos"]), "by_severities": {}}
    for severities in reversed(SEVERITY_SETS):
        stored = read_features(folder, passes[severities])
        if len(stored.videos) < 2 * FOLDS:
            continue
        answers = answer_all(stored)
        key = ",".join(map(str, severities))
        found["by_severities"][key] = measure(stored, answers)
        if severities == (3,):
            found["metadata"] = metadata_control(stored, data)
        if severities == (1, 3, 5):
            found["at_source"] = at_source(folder, answers, stored)
        share = len(stored.videos) / len(facts["videos"])
        if share >= COMPLETE or "decides" not in found:
            found["decides"] = key
    return found


def main() -> None:
    """Run the study and write its JSON, page and CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features", type=Path, help="folder of benchmarks.robustness_features")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; a page and a CSV lie beside"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept: list[str] = []
    if options.out.is_file():
        kept = json.loads(options.out.read_text(encoding="utf-8")).get("conclusions", [])
    sets = {
        folder.name: study(folder, options.data)
        for folder in sorted(options.features.iterdir())
        if (folder / "index.json").is_file()
    }
    report = {
        "command": "python -m benchmarks.robustness_features surv_fight ut_interaction --out "
        "FEATURES; python -m benchmarks.robustness_study FEATURES --data DATA --out "
        "results/robustness_study.json",
        "date": datetime.now(UTC).date().isoformat(),
        "conclusions": kept,
        "design": {
            "features": "EfficientNet-Lite0, stage 6, 4 of 24 frames at 12.5 a second, 96 x 96, "
            f"tokens projected to {TOKEN_WIDTH} channels at random; motion from frame differences",
            "changed_at": "the model's resolution, 96 x 96",
            "profile": "rose",
            "held_out": f"whole scenes or groups, {FOLDS} folds, drawn anew for each seed",
            "seeds": SEEDS,
            "heads": {head.name: head.says for head in HEADS}
            | {
                AUGMENTED: "attentive, trained on the categories that are not tested, twice",
                ADAPTED: "probe, statistics and entropy of the tested clips of a fold, no labels",
            },
            "intervals": "mixed model y = mu + scene + seed + rest (crossed_mean); contrasts at "
            "level 1 - .05 / 6; bootstrap of scenes and seeds beside it",
            "goal_half_width": GOAL,
            "contrasts": [f"{a} - {b}: {question}" for a, b, question in CONTRASTS],
        },
        "data": sets,
    }
    write_json(options.out, report, indent=1)
    table_file = options.out.with_suffix(".csv")
    write_csv(table_file, table(report))
    write_text(options.out.with_suffix(".html"), page(report, table_file.name))


if __name__ == "__main__":
    main()
