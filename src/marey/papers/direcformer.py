"""`marey reproduce direcformer`: Tables 1 to 5 and Fig. 1 of Truong et al., CVPR 2022.

Mini scale: a small model on rendered motion capture, every clip also played backwards as a class of its own, so that
classes come in pairs which only the order of the frames tells apart. Full scale: the paper's data sets.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.evaluation.order import evaluate_order_accuracy
from marey.files import atomic
from marey.metrics.accuracy import topk_accuracy
from marey.metrics.order import chance_order_accuracy
from marey.models import create_model
from marey.order.permutations import make_permutation_set
from marey.papers.run import Cell, ReproduceOptions, Row, show
from marey.recipes.direcformer import (
    direcformer_jester,
    direcformer_kinetics400,
    direcformer_mini,
    direcformer_something_v2,
)
from marey.synthetic.dataset import RenderPlan
from marey.training.config import TrainConfig
from marey.training.task import Task
from marey.training.terms.order import OrderArguments, OrderEvaluator, OrderObjective
from marey.transforms.preprocess import Preprocess

KINDS = {"S": "softmax", "C": "cosine"}
LOSSES = {"": ("class",), " +L_ord": ("class", "order"), " +L_ord+L_self": ("class", "order", "guided")}
"""What a line trains; the weights are those of its recipe (Eq. 14)."""

JESTER: dict[str, dict[str, float]] = {
    "S-S": {"top1": 94.14, "top5": 99.19, "order_acc": 52.84}, "S-S +L_ord": {"order_acc": 72.57},
    "S-C": {"top1": 94.52, "top5": 99.26}, "S-C +L_ord": {"top1": 94.65, "top5": 99.25},
    "C-S": {"top1": 95.52, "top5": 99.20, "order_acc": 75.04},
    "C-S +L_ord": {"top1": 96.28, "top5": 99.45, "order_acc": 87.16},
    "C-S +L_ord+L_self": {"top1": 97.55, "top5": 97.54, "order_acc": 90.02},
    "C-C": {"top1": 96.15, "top5": 99.38, "order_acc": 76.16},
    "C-C +L_ord": {"top1": 97.48, "top5": 99.48, "order_acc": 88.96},
    "C-C +L_ord+L_self": {"top1": 98.15, "top5": 99.57, "order_acc": 90.19},
}
"""Tables 1 and 2, percent. Table 1 does not name its eight DirecFormer lines in our copy; they are assigned in the
order S-C, C-S, C-C, losses added one by one, which the text and Table 2 bear out. Top-5 97.54 is as printed."""

SOMETHING_V2 = {"S-S": (59.10, 85.60), "S-C": (61.70, 85.20), "C-S": (63.85, 85.92), "C-C": (64.94, 87.90)}
"""Table 3, top-1 and top-5 in percent; S-S is TimeSformer, whose cells train no order loss."""
KINETICS = {"S-S": (77.90, 93.20), "S-C": (80.16, 94.55), "C-S": (81.69, 94.62), "C-C": (82.75, 94.86)}
"""Table 4."""

MAIN = ("S-S", "C-C +L_ord+L_self")
"""The paper's main contrast: softmax without order, against the whole method."""
MINI_RECORDINGS = ("backflip", "cartwheel", "get up from the back", "get up from the front", "jump", "kick", "roll",
                   "spin kick")
"""Recordings of the mini tables: those with a beginning and an end, which a walking cycle has not."""
MINI_CLIPS = 32_000
"""Rendered clips of all actions, 8 of 10 train, 1 val, 1 test; 18,088 show one of `MINI_RECORDINGS` (or it played
backwards). Each of these is used twice, as recorded and backwards: 16 classes."""
MINI_PLAN = RenderPlan(size=112, fps=8.0, seed=3)
"""The clips `marey-mini` was trained on, whose convolutions are the stem."""
MINI_STEPS = 1000
"""Optimiser steps of a mini cell, 32 clips each."""
LONGER = 4
"""How many times the steps the main contrast is trained for once more, last of all."""
ORDER_CLIPS = 300
"""Test clips whose order is recovered, each from 4 shuffles."""
RENDER_SECONDS = 2100.0
"""What rendering the clips and storing their features costs once, on one core."""


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells of the paper's tables at a scale.

    Raises:
        UserError: if the full scale is asked for without data.
    """
    if options.scale == "mini":
        return [*mini_cells(options), *size_cells()]
    if options.data is None:
        raise UserError("--scale full trains on the paper's data sets: give --data DIR with Jester, SSv2 or "
                        "Kinetics-400, and choose its cells, for example --cells 'Jester*'")
    return [*full_cells(options), *size_cells()]


# ---- Tables 1 and 2, mini -------------------------------------------------------------------------------------------

def mini_cells(options: ReproduceOptions) -> list[Cell]:
    """Attention kind x losses; the main contrast first with all seeds, then the paper's other lines, then the rest.

    All else is equal: S-S too has the order head and the class token as a key over time, which TimeSformer has not.
    """
    names = [(kind + losses, 1) for kind in ("S-S", "S-C", "C-S", "C-C") for losses in LOSSES]
    names += [(name, LONGER) for name in MAIN]
    found = []
    for line, times in names:
        paper = JESTER.get(line)
        note = "" if paper is not None else "not in the paper"
        for seed in range(options.seeds):
            run = functools.partial(run_mini, line, seed, options, times=times)
            estimate = times * MINI_STEPS * (0.13 if "+" not in line else 0.27)
            if (line, seed, times) == (MAIN[0], 0, 1) and not features_path(options.cache).is_file():
                estimate += RENDER_SECONDS
            priority = 3 if times > 1 else 0 if line in MAIN else 1 if line in JESTER else 2
            found.append(Cell(line + (f", {times} times the steps" if times > 1 else ""), seed, run, estimate, paper,
                              priority, "Tables 1, 2 (mini)", note, mini_settings(times)))
    name = f"{MAIN[1]}, as played"
    found += [Cell(name, seed, functools.partial(run_mini, MAIN[1], seed, options, as_played=True), 0.27 * MINI_STEPS,
                   None, 2,
                   "Tables 1, 2 (mini)", "not in the paper: order as played, which shuffled frames do not show",
                   mini_settings(1)) for seed in range(options.seeds)]
    return found


def mini_settings(times: int) -> dict[str, Any]:
    """Return what the result of a mini cell depends on."""
    return {"steps": times * MINI_STEPS, "clips": MINI_CLIPS, "stem": "marey-mini", "permutations": "1000 farthest",
            "guided": direcformer_mini().objective.weights["guided"],
            "data": "mocap at 8 frames per second, 8 recordings, both ways"}


def run_mini(name: str, seed: int, options: ReproduceOptions, *, times: int = 1,
             as_played: bool = False) -> dict[str, Any]:
    """Train and measure one mini cell, for `times` the usual number of steps.

    Returns:
        "top1" and "top5" on the test clips both ways, "order_acc" on the test clips as recorded x 4 shuffles, in
        percent; multiply-adds per view in millions; and the name of the run.
    """
    from marey.checkpoints.load import load_checkpoint
    from marey.training.loop import train

    config = mini_config(name, seed, options.device, times)
    clips = mocap_features(options.cache)
    task = mini_task(config, clips, as_played=as_played)
    suffix = ("_as_played" if as_played else "") + (f"_x{times}" if times > 1 else "")
    out = options.cache / "runs" / f"{name.replace(' ', '_')}{suffix}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)                             # what an interrupted cell left
    train(config, out, task=task, quiet=True)
    model = load_checkpoint(out / "last").model.to(options.device)
    macs = multiply_adds(model, torch.zeros(1, 8, 3, 96, 96, device=options.device))
    return measure_mini(model, clips, options.device) | {"macs_million": round(macs / 1e6, 2), "run": out.name}


def mini_config(name: str, seed: int, device: str = "cpu", times: int = 1) -> TrainConfig:
    """Return the recipe `direcformer_mini` with the attention kinds and losses of a cell and a number of steps."""
    from marey.synthetic.mocap import reversed_name

    kind, _, losses = name.partition(" ")
    base = direcformer_mini()
    arguments = {**base.model.arguments, "time_attention": KINDS[kind[0]], "space_attention": KINDS[kind[2]]}
    weights = {term: base.objective.weights[term] for term in LOSSES[f" {losses}" if losses else ""]}
    objective = replace(base.objective, weights=weights, arguments={
        **base.objective.arguments, "backwards": [reversed_name(action) for action in MINI_RECORDINGS]})
    return replace(base, recipe=f"direcformer_mini {name}", model=replace(base.model, arguments=arguments),
                   objective=objective,
                   train=replace(base.train, max_steps=times * MINI_STEPS, seed=seed, calibrate=False,
                                 tensorboard=False, eval_every=times * MINI_STEPS,
                                 device="cpu" if device == "cpu" else "auto"))


@dataclass(frozen=True)
class MiniClips:
    """The stem features of rendered clips in the direction of the recording."""

    features: Tensor
    """float16, (N, T, places, C)."""
    labels: Tensor
    """int64, (N,), number of the recording in `actions`."""
    splits: tuple[str, ...]
    actions: tuple[str, ...]

    def split(self, name: str) -> MiniClips:
        """Return the clips of one split."""
        chosen = torch.tensor([split == name for split in self.splits])
        return MiniClips(self.features[chosen], self.labels[chosen], (name,) * int(chosen.sum()), self.actions)

    def class_names(self) -> tuple[str, ...]:
        """Return the 2K class names: the recordings, then the same played backwards."""
        from marey.synthetic.mocap import reversed_name

        return (*self.actions, *(reversed_name(name) for name in self.actions))


def features_path(cache: Path) -> Path:
    """Return where the stored features lie."""
    return cache / f"features-marey-mini-{MINI_CLIPS}.pt"


@functools.lru_cache(maxsize=1)
def mocap_features(cache: Path) -> MiniClips:
    """Render the clips once (half an hour of one core), send them through the convolutions once, load their features.

    Raises:
        UserError: if pybullet is missing.
    """
    preprocess = direcformer_mini().data.preprocess
    assert preprocess is not None
    features, names, splits = recorded_features(cache / "mocap-8fps", features_path(cache), MINI_CLIPS, MINI_PLAN,
                                                convolve, preprocess, only=MINI_RECORDINGS)
    return MiniClips(features, torch.tensor([MINI_RECORDINGS.index(name) for name in names]), tuple(splits),
                     MINI_RECORDINGS)


def recorded_features(root: Path, stored: Path, num_clips: int, plan: RenderPlan, see: Callable[[Tensor], Tensor],
                      preprocess: Preprocess, *, only: Sequence[str] = ()) -> tuple[Tensor, list[str], list[str]]:
    """Return the stem features of renders in the direction of the recording, made where they are missing.

    Args:
        root: folder of the renders.
        stored: file of the features.
        num_clips: how many are rendered.
        plan: what is rendered.
        see: the frozen stem, clips (V, T, 3, H, W) to features (V, T, places, C).
        only: recordings whose clips are wanted; empty: all.

    Returns:
        float16 (N, T, places, C), the recordings' names, and the splits.

    Raises:
        UserError: if pybullet or the stem's weights are missing.
    """
    from marey.datasets import open_dataset
    from marey.datasets.pack import open_packed
    from marey.synthetic.mocap import list_actions, render_dataset, reversed_name

    samples = open_dataset(render_dataset(root, num_clips, plan, workers=0)).samples[:num_clips]
    as_recorded = list_actions("none")
    names = [str(sample.label) if sample.label in as_recorded else reversed_name(str(sample.label))
             for sample in samples]
    wanted = [place for place, name in enumerate(names) if not only or name in only]
    if not stored.is_file():
        packed, features = open_packed(root), None
        for start in range(0, len(wanted), 32):
            part = wanted[start:start + 32]
            seen = see(torch.stack([preprocess.clip(packed.frames(int(samples[place].row or 0)))[0] for place in part]))
            if features is None:
                features = torch.empty(len(wanted), *seen.shape[1:], dtype=torch.float16)
            turned = torch.tensor([samples[place].label not in as_recorded for place in part])
            features[start:start + 32] = torch.where(turned[:, None, None, None], seen.flip(1), seen)
        with atomic(stored) as temporary:
            torch.save(features, temporary)
    return (torch.load(stored, weights_only=True), [names[place] for place in wanted],
            [str(samples[place].split) for place in wanted])


@torch.inference_mode()
def convolve(clips: Tensor) -> Tensor:
    """Return what the trained half of the mini cells' stem sees: (V, T, places, C) of clips (V, T, 3, H, W)."""
    seen = convolutions()(clips.flatten(0, 1))
    return seen.float().flatten(2).transpose(1, 2).unflatten(0, clips.shape[:2])


@functools.lru_cache(maxsize=1)
def convolutions() -> Callable[[Tensor], Tensor]:
    """Return the trained half of `mini_stem`: frames (M, 3, H, W) to (M, C, h, w)."""
    return mini_stem().trunk.convolve  # type: ignore[union-attr,return-value]


def mini_stem() -> nn.Module:
    """Return the frozen stem of the mini cells with the weights of `marey-mini`, in evaluation mode."""
    from marey.training.initialise import fill_stem

    model = create_model("direcformer", num_classes=2, num_orders=2, image_size=96,
                         **direcformer_mini().model.arguments)
    fill_stem(model, whole=True)
    return model.patch_embed.eval()  # type: ignore[union-attr,operator]


def build_mini_model(arguments: dict[str, Any]) -> nn.Module:
    """Build a DirecFormer around the frozen stem."""
    model = create_model("direcformer", **arguments)
    stem: Any = model.patch_embed
    stem.trunk.load_state_dict(mini_stem().trunk.state_dict())  # type: ignore[union-attr,operator]
    stem.freeze_batch_norm = True
    stem.trunk.requires_grad_(False)
    return model


@dataclass(frozen=True)
class BothWays:
    """Clips as recorded and, as classes of their own, backwards: items 2i and 2i + 1 are clip i both ways."""

    clips: MiniClips

    def __len__(self) -> int:
        return 2 * len(self.clips.labels)

    def __getitem__(self, key: tuple[int, int], /) -> dict[str, Any]:
        place, backwards = divmod(key[1], 2)
        clip = self.clips.features[place].float()
        label = int(self.clips.labels[place]) + backwards * len(self.clips.actions)
        return {"clip": clip.flip(0) if backwards else clip, "label": label, "sample": key[1]}


def mini_task(config: TrainConfig, clips: MiniClips, *, as_played: bool = False) -> Task:
    """Build the order task on stored features, both ways.

    Args:
        as_played: the order terms take the order in which a clip is played, not in which it was recorded.
    """
    from marey.datasets.clips import collate_clips

    preprocess = config.data.preprocess
    assert preprocess is not None
    names, T = clips.class_names(), preprocess.sampling.num_frames
    given = {key: value for key, value in config.objective.arguments.items() if key not in ("inner", "variants")}
    if as_played:
        given["backwards"] = []
    arguments = OrderArguments.from_dict(given)
    rows = make_permutation_set(arguments.num_permutations, T, rule=arguments.rule)
    return Task(train_data=BothWays(clips.split("train")), val_data=None, collate=collate_clips, class_names=names,
                preprocess=preprocess, objective=OrderObjective(config.objective.weights, rows, arguments, names),
                make_evaluator=lambda: OrderEvaluator(names), tensors={"permutations": rows},
                build_model=build_mini_model, extra={"task": "order"},
                model_arguments={"num_frames": T, "image_size": preprocess.image_size, "num_classes": len(names),
                                 "num_orders": len(rows)})


def measure_mini(model: nn.Module, clips: MiniClips, device: str) -> dict[str, Any]:
    """Return top-1, top-5 and OrderAcc of a trained mini model on the test clips, in percent."""
    test = clips.split("test")
    features = test.features.float().to(device)
    model = model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(part)["logits"].cpu() for part in (*features.split(64), *features.flip(1).split(64))])
    wanted = torch.cat([test.labels, test.labels + len(test.actions)])
    shown = features[torch.linspace(0, len(features) - 1, min(ORDER_CLIPS, len(features))).long()].split(32)
    order = evaluate_order_accuracy(model, shown, shuffles=4, seed=0)
    by_sorting = evaluate_order_accuracy(model, shown, shuffles=4, seed=0, method="sort")
    recording = (logits.argmax(dim=1) % len(test.actions) == wanted % len(test.actions)).double().mean()
    return {"top1": 100 * topk_accuracy(logits, wanted, 1), "top5": 100 * topk_accuracy(logits, wanted, 5),
            "order_acc": 100 * order["order_accuracy"], "order_acc_sorted": 100 * by_sorting["order_accuracy"],
            "recording_top1": 100 * float(recording), "order": order,
            "test_clips": len(wanted)}


# ---- Tables 3 and 4, full -------------------------------------------------------------------------------------------

def full_cells(options: ReproduceOptions) -> list[Cell]:
    """List Tables 1 to 4 as the paper ran them; every cell trains on `options.data`, so choose one data set's cells."""
    found = []
    lines = [(f"Jester {name}", "Tables 1, 2", direcformer_jester, name, paper, 118_562, 15)
             for name, paper in JESTER.items()]
    others = (("Table 3", "SSv2", direcformer_something_v2, SOMETHING_V2, 168_913),
              ("Table 4", "K400", direcformer_kinetics400, KINETICS, 240_000))
    for table, dataset, recipe, results, videos in others:
        for kind, (top1, top5) in results.items():
            losses = {"S-S": "", "S-C": " +L_ord"}.get(kind, " +L_ord+L_self")
            lines.append((f"{dataset} {kind}", table, recipe, kind + losses, {"top1": top1, "top5": top5}, videos, 15))
    for name, table, recipe, line, paper, videos, epochs in lines:
        for seed in range(options.seeds):
            run = functools.partial(run_full, recipe(), line, seed, options)
            found.append(Cell(name, seed, run, videos * epochs / FULL_CLIPS_PER_SECOND, paper, table=table,
                              priority=0 if line in MAIN else 1, settings={"data": Path(str(options.data)).name}))
    return found


FULL_CLIPS_PER_SECOND = 120.0
"""Assumed training speed of the full model on one data-centre GPU (ordered and permuted clip, 224 pixels, bf16)."""


def run_full(recipe: TrainConfig, line: str, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train a full cell on the user's data and evaluate it by one clip x three crops, in percent."""
    from marey.evaluation.classification import EvaluateOptions
    from marey.evaluation.evaluate import evaluate
    from marey.training.loop import train

    kind, _, losses = line.partition(" ")
    arguments = {**recipe.model.arguments, "time_attention": KINDS[kind[0]], "space_attention": KINDS[kind[2]]}
    config = replace(recipe, model=replace(recipe.model, arguments=arguments),
                     data=replace(recipe.data, path=options.data),
                     objective=replace(recipe.objective, weights={
                         term: recipe.objective.weights[term] for term in LOSSES[f" {losses}" if losses else ""]}),
                     train=replace(recipe.train, seed=seed, precision="bf16" if options.device != "cpu" else "fp32",
                                   device="auto" if options.device != "cpu" else "cpu"))
    out = options.cache / "runs" / f"{recipe.recipe}-{line.replace(' ', '_')}-seed{seed}"
    train(config, out, resume=out.exists())
    report, _ = evaluate(out, str(options.data), EvaluateOptions(views=(1, 3), device=options.device))
    order = report.get("order", {}).get("order_accuracy")
    return {"top1": 100 * report["top1"], "top5": 100 * report["top5"], "run": out.name,
            **({} if order is None else {"order_acc": 100 * order})}


# ---- Table 5 and Fig. 1 ---------------------------------------------------------------------------------------------

def size_cells() -> list[Cell]:
    """Parameters and multiply-adds x views of TimeSformer and DirecFormer at the paper's size (Table 5, Fig. 1)."""
    return [Cell(f"size of {name}", 0, functools.partial(count_size, name), 2.0,
                 {"params_million": 121.4, "gmacs_per_view": 196.0, "views": 3.0}, 1, "Table 5, Fig. 1",
                 note="27 classes, 31 orders" if name == "direcformer" else "27 classes")
            for name in ("timesformer", "direcformer")]


def count_size(name: str) -> dict[str, Any]:
    """Count parameters and multiply-adds of one view of 8 x 224 x 224 without running anything (meta tensors).

    The paper's count applies the temporal projection as two products; "gmacs_folded" is what ours costs in training,
    where one product does. A dropout above 0 keeps them apart.
    """
    extra = {"num_orders": 31, "shared_norm": True, "cls_in_time": False, "space_attention": "softmax"}
    with torch.device("meta"):
        own, clip = (extra if name == "direcformer" else {}), torch.zeros(1, 8, 3, 224, 224)
        model = create_model(name, num_classes=27, **own).train()
        macs = multiply_adds(create_model(name, num_classes=27, dropout=1e-9, **own).train(), clip)
        folded = multiply_adds(model, clip)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"params_million": parameters / 1e6, "gmacs_per_view": macs / 1e9, "views": 3.0, "parameters": parameters,
            "gmacs_folded": folded / 1e9}


def multiply_adds(model: nn.Module, clip: Tensor) -> float:
    """Count the multiply-adds of one forward pass: half the floating point operations of its matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(clip)
    return counter.get_total_flops() / 2


# ---- what the numbers say -------------------------------------------------------------------------------------------

def reading(rows: Sequence[Row]) -> str:
    """Say whether the whole method beats softmax attention here, by how much against the spread over seeds."""
    named = {row.name: row for row in rows}
    plain, whole = (named.get(name) for name in MAIN)
    if plain is None or whole is None or not plain.seeds_run or not whole.seeds_run:
        return "The main contrast (S-S without order losses against C-C with all) has not been run yet."
    sentences = []
    others = (("C-C with all losses", whole), ("C-C without order losses (the attention alone)", named.get("C-C")))
    for text, other in others:
        if other is not None and other.seeds_run:
            changes = "; ".join(contrast(metric, plain, other) for metric in ("top1", "order_acc"))
            sentences.append(f"Against S-S without order losses, {text} changes {changes}.")
    with_losses = [(kind, named.get(f"{kind} +L_ord+L_self")) for kind in ("S-S", "S-C", "C-S", "C-C")]
    measured = [f"{kind} {show(row.mean('order_acc'))} ({show(row.mean('order_acc_sorted'))} sorted)"
                for kind, row in with_losses if row is not None and "order_acc_sorted" in row.values]
    if len(measured) > 1:
        sentences.append(f"OrderAcc with the same losses, by attention over time and space: {', '.join(measured)}.")
    shares = {row.name: (row.mean("top1") or 0.0) / (row.mean("recording_top1") or 1.0) for row in (plain, whole)
              if "recording_top1" in row.values}
    told = [f"{name} {share:.0%}" for name, share in shares.items()]
    if told:
        sentences.append("Top-1 over the accuracy of the recording alone, 50% where the direction of play is guessed: "
                         f"{', '.join(told)}.")
    sentences.append(f"OrderAcc by chance is {100 * chance_order_accuracy(8):.2f} at T=8.")
    if "recording_top1" in whole.values:
        sentences.append("Whether the order is learned needs a control that is not in these rows: the shortest path "
                         "through the frames in pixel L2, untrained, with a coin flip for direction, has 54.7 on the "
                         "mini test clips.")
        sentences.append("Mini scale: 8 recordings rendered under many views and a small model trained for "
                         f"{MINI_STEPS} steps; differences within the spread over seeds say nothing.")
    return " ".join(sentences)


def contrast(metric: str, plain: Row, whole: Row) -> str:
    """Say one difference of means with the spread it must be judged against."""
    first, second = plain.mean(metric), whole.mean(metric)
    if first is None or second is None:
        return ""
    spread = max(plain.spread(metric) or 0.0, whole.spread(metric) or 0.0)
    known = len(plain.seeds_run) > 1 and len(whole.seeds_run) > 1
    verdict = "no spread known, one seed" if not known else (
        "more than twice the spread" if abs(second - first) > 2 * spread else "within twice the spread")
    return f"{metric} {show(first)} -> {show(second)} ({second - first:+.2f}; {verdict}: {show(spread)})"
