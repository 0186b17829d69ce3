"""Fine-tune `marey-mini` on real video of two people, and ask whether it beats what the file's metadata gives away.

    python -m benchmarks.finetune_ut_interaction --data ../shared/data/ut_interaction \
        --out results/finetune_ut_interaction.json [--seeds 3] [--work DIR] [--parts control,stems,mini,scratch,groups]

Train on set1, test on set2 (60 videos each, 6 classes), and leave one group (of 20) out over all 120. The control is a
logistic regression that sees only width, height and number of frames of each file: the clips were cut by hand, and the
cut tells. The models see a fixed window at one size and never these numbers. Finished runs in --work are kept.

"stems" asks which half of `marey-mini`'s stem carries over to real video: the convolutions trained on renders alone, or
the image network with ImageNet weights. The same linear read-out is fitted to both, its strength chosen on clips of the
training set.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from marey.checkpoints.load import load_checkpoint
from marey.datasets import open_dataset
from marey.evaluation.classification import EvaluateOptions, Predictions
from marey.evaluation.evaluate import checkpoint_of, evaluate
from marey.evaluation.report import load_predictions, save_predictions
from marey.metrics.comparison import compare
from marey.models.grid_sevitar import RIDGES, grid_statistics, ridge
from marey.recipes import get_recipe
from marey.training.config import TrainConfig, override
from marey.training.feature_cache import plain_views, run_trunk
from marey.training.loop import train

SPLIT = "(?P<train>set1)|(?P<test>set2)"
SCRATCH = ("model.init_from=null", "model.name=sevitar", "model.arguments.freeze_stem_norm=false", "model.freeze=[]",
           "objective.kind=classification", "objective.arguments={}", "optim.lr=0.001", "train.epochs=12",
           "train.precision=bf16")
"""Settings of another network, without trained weights and without the linear map on ImageNet features."""


def read_metadata(data: Path) -> list[dict[str, str]]:
    """Return the rows of the data set's manifest, in its order."""
    with open(data / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def control_answers(rows: list[dict[str, str]], known: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return the class the metadata suggest for the asked rows: softmax regression on width, height and frame count.

    Args:
        rows: of the manifest.
        known, asked: int64, places of the training and the test rows.
    """
    names = sorted({row["label"] for row in rows})
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    values = torch.tensor([[float(row[key]) for key in ("width", "height", "frames")] for row in rows])
    values = (values - values[known].mean(0)) / values[known].std(0)
    weight, bias = torch.zeros(len(names), 3, requires_grad=True), torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = values[known] @ weight.T + bias
        loss = F.cross_entropy(logits, labels[known], reduction="sum") + 0.5 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call,arg-type]
    with torch.no_grad():
        return (values[asked] @ weight.T + bias).argmax(1) == labels[asked]


def compare_stems(data: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the accuracy of a linear read-out of either half of the stem, trained on one set and tested on the other.

    Three plain views per video; the grid is the same for both halves (4 x 4 places).
    """
    index, preprocess = open_dataset(data), get_recipe("finetune_folder").data.preprocess
    stem: Any = load_checkpoint("marey-mini").model.eval().patch_embed
    assert preprocess is not None
    features = torch.stack([run_trunk(stem, plain_views(index, n, preprocess, 3)) for n in range(len(index))])
    names = sorted({row["label"] for row in rows})
    videos = [str(sample.label) for sample in index.samples]
    labels = torch.tensor([names.index(name) for name in videos])
    first = torch.tensor(["set1_" in str(sample.path) for sample in index.samples])
    report: dict[str, Any] = {}
    halves = {"convolutions trained on renders": features[..., :stem.conv_dim],
              "ImageNet, never trained on": stem.image_features(features)}
    for name, half in halves.items():
        values = grid_statistics(half.flatten(0, 1)).double().unflatten(0, half.shape[:2])
        report[name] = {}
        for text, known in (("set1_to_set2", first), ("set2_to_set1", ~first)):
            fold = torch.arange(int(known.sum())) % 5
            strength = max(RIDGES, key=lambda s: sum(
                hits_of(values[known][fold != k], labels[known][fold != k], values[known][fold == k],
                        labels[known][fold == k], s).sum().item() for k in range(5)))
            hits = hits_of(values[known], labels[known], values[~known], labels[~known], strength)
            report[name][text] = hits.double().mean().item()
    return report


def hits_of(known: torch.Tensor, known_labels: torch.Tensor, asked: torch.Tensor, asked_labels: torch.Tensor,
            strength: float) -> torch.Tensor:
    """Return which asked videos (M, V, Q) a ridge regression fitted on the known ones names rightly."""
    views = known.shape[1]
    targets = F.one_hot(known_labels).double().repeat_interleave(views, 0)
    weight, bias = ridge(known.flatten(0, 1), targets, strength)
    return (asked @ weight.T + bias).mean(1).argmax(1) == asked_labels


def run_one(config: TrainConfig, work: Path, name: str, data: Path, split_by: str,
            views: tuple[int, int]) -> Predictions:
    """Train (or find the finished run) and return the answers for the test videos."""
    folder, saved = work / name, work / f"{name}.predictions.jsonl"
    if not saved.is_file():
        train(config, folder, resume=True, quiet=True)
        options = EvaluateOptions(split="test", split_by=split_by, views=views)
        _, answers = evaluate(checkpoint_of(folder), data, options)
        assert answers is not None
        save_predictions(saved, answers)
    return load_predictions(saved)


def correct(answers: Predictions) -> torch.Tensor:
    """Return bool (N,): the first answer is right."""
    return answers.probs.argmax(1) == torch.tensor(answers.labels)


def configure(data: Path, seed: int, split_by: str, settings: Sequence[str]) -> TrainConfig:
    """Return the recipe `finetune_folder` on the data."""
    return override(get_recipe("finetune_folder"),
                    [f"data.path={data}", f"data.split_by={json.dumps(split_by)}", f"train.seed={seed}",
                     "data.val_fraction=0", "train.calibrate=false", "train.tensorboard=false", *settings])


def summary(values: list[float]) -> dict[str, Any]:
    """Return mean and standard deviation over seeds."""
    spread = torch.tensor(values).std().item() if len(values) > 1 else None
    return {"per_seed": values, "mean": sum(values) / len(values), "std": spread}


def main() -> None:
    """Run the parts asked for and merge them into the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/finetune_ut_interaction"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", default="control,stems,mini,scratch,groups")
    parser.add_argument("--views", type=int, default=3, help="temporal views per test video")
    arguments = parser.parse_args()
    data, parts, views = arguments.data, arguments.parts.split(","), (arguments.views, 1)
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    rows = read_metadata(data)
    place = {row["path"].split("/", 1)[1]: n for n, row in enumerate(rows)}
    test = torch.tensor([n for n, row in enumerate(rows) if "set2_" in row["path"]])
    control = torch.zeros(len(rows), dtype=torch.bool)
    known = torch.tensor([n for n, row in enumerate(rows) if "set1_" in row["path"]])
    control[test] = control_answers(rows, known, test)
    groups = sorted({row["group"] for row in rows})
    control_left_out = torch.zeros(len(rows), dtype=torch.bool)
    for group in groups:
        asked = torch.tensor([n for n, row in enumerate(rows) if row["group"] == group])
        known = torch.tensor([n for n, row in enumerate(rows) if row["group"] != group])
        control_left_out[asked] = control_answers(rows, known, asked)
    report["control"] = {"sees": "width, height, number of frames",
                         "set1_to_set2": control[test].double().mean().item(),
                         "leave_one_group_out": control_left_out.double().mean().item()}
    if "stems" in parts:
        report["stems"] = compare_stems(data, rows)
    right: dict[str, list[torch.Tensor]] = {}
    for name, settings in (("mini", ()), ("scratch", SCRATCH)):
        if name not in parts:
            continue
        began, found, sums = time.process_time(), [], None
        for seed in range(arguments.seeds):
            config = configure(data, seed, SPLIT, settings)
            answers = run_one(config, arguments.work, f"{name}-{seed}", data, SPLIT, views)
            order = torch.tensor([place[_key(video)] for video in answers.videos])
            hits = torch.zeros(len(rows), dtype=torch.bool)
            hits[order] = correct(answers)
            found.append(hits)
            sums = answers.probs if sums is None else sums + answers.probs
        right[name] = found
        assert sums is not None
        together = torch.zeros(len(rows), dtype=torch.bool)
        together[order] = sums.argmax(1) == torch.tensor(answers.labels)
        report[name] = {"settings": list(settings), "top1": summary([h[test].double().mean().item() for h in found]),
                        "top1_of_the_mean_answer_of_all_seeds": together[test].double().mean().item(),
                        "cpu_seconds": round(time.process_time() - began),
                        "against_control": [paired(control, h, rows, test) for h in found],
                        "mean_answer_against_control": paired(control, together, rows, test)}
    if "mini" in right and "scratch" in right:
        report["mini_against_scratch"] = [paired(s, m, rows, test)
                                          for s, m in zip(right["scratch"], right["mini"], strict=True)]
    if "groups" in parts:
        hits = torch.zeros(len(rows), dtype=torch.bool)
        for group in groups:
            split_by = f"(?P<test>set[12]_seq{group}_)|(?P<train>set)"
            answers = run_one(configure(data, 0, split_by, ()), arguments.work, f"group-{group}", data, split_by, views)
            hits[torch.tensor([place[_key(video)] for video in answers.videos])] = correct(answers)
        everything = torch.arange(len(rows))
        report["leave_one_group_out"] = {"videos": len(rows), "top1": hits.double().mean().item(),
                                         "against_control": paired(control_left_out, hits, rows, everything)}
    report["command"] = ("python -m benchmarks.finetune_ut_interaction --data ../shared/data/ut_interaction --out "
                         f"results/finetune_ut_interaction.json --seeds {arguments.seeds} --views {arguments.views}")
    report["date"], report["views"] = time.strftime("%Y-%m-%d"), f"{arguments.views}x1"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key in ("control", "mini", "scratch")}, indent=1))


def _key(video: str) -> str:
    return "/".join(Path(video).parts[-2:])


def paired(first: torch.Tensor, second: torch.Tensor, rows: list[dict[str, str]],
           places: torch.Tensor) -> dict[str, Any]:
    """Compare two models on the videos at `places`: accuracies, difference with interval, McNemar's test."""
    chosen = [rows[n] for n in places.tolist()]
    return compare(first[places], second[places], [row["label"] for row in chosen], groups=[r["group"] for r in chosen])


if __name__ == "__main__":
    main()
