"""The mini scale of `marey reproduce direcformer`: a small model on rendered motion capture.

Every clip is also played backwards as a class of its own, so that classes come in pairs which only
the order of the frames tells apart.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from marey.checkpoints.load import load_checkpoint
from marey.datasets import open_dataset
from marey.datasets.clips import collate_clips
from marey.datasets.pack import open_packed
from marey.evaluation.order import measure_order
from marey.features.cache import FeatureCache, cache_key
from marey.files import weights_digest
from marey.inference.answers import AnswerOptions, answer_clips
from marey.metrics.accuracy import topk_accuracy
from marey.models import create_model
from marey.papers.cells import ReproduceOptions, Row
from marey.recipes.direcformer import direcformer_mini
from marey.synthetic.dataset import RenderPlan, render_dataset
from marey.synthetic.motion import ONE_WAY_RECORDINGS, list_actions, reversed_name
from marey.training.config import TrainConfig
from marey.training.initialise import fill_stem
from marey.training.loop import train
from marey.training.task import Task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clip_terms import ClipTerms, add_order
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.transforms.preprocess import Preprocess

MINI_CLIPS = 32_000
"""Rendered clips of all actions, 8 of 10 train, 1 val, 1 test; 18,088 show one of
`ONE_WAY_RECORDINGS` (or it played backwards). Each of these is used twice, as recorded and
backwards: 16 classes."""
MINI_PLAN = RenderPlan(size=112, fps=8.0, seed=3)
"""The clips `marey-mini-rgb` was trained on, whose convolutions are the stem."""
MINI_STEPS = 1000
"""Optimiser steps of a mini cell, 32 clips each."""
ORDER_CLIPS = 300
"""Test clips whose order is recovered, each from 4 shuffles."""


def mini_settings() -> dict[str, Any]:
    """Return what the result of a mini cell depends on."""
    return {
        "steps": MINI_STEPS,
        "clips": MINI_CLIPS,
        "stem": "marey-mini-rgb",
        "permutations": "1000 farthest",
        "guided": direcformer_mini().objective.weights["guided"],
        "data": "mocap at 8 frames per second, 8 recordings, both ways",
    }


def run_mini(row: Row, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train and measure one mini cell.

    Returns:
        "top1" and "top5" on the test clips both ways, "order_acc" on the test clips as recorded
        x 4 shuffles, in percent; multiply-adds per view in millions; and the name of the run.
    """
    config = mini_config(row, seed, options.train_device)
    clips = mocap_features(options.cache)
    task = mini_task(config, clips)
    out = options.cache / "runs" / f"{row.name.replace(' ', '_')}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted cell left
    train(config, out, task=task, quiet=True)

    model = load_checkpoint(out / "last").model.to(options.device)
    macs = multiply_adds(model, torch.zeros(1, 8, 3, 96, 96, device=options.device))
    found = measure_mini(model, clips, options.device)
    return found | {"macs_million": round(macs / 1e6, 2), "run": out.name}


def mini_config(row: Row, seed: int, device: Literal["cpu", "auto"] = "cpu") -> TrainConfig:
    """Return the recipe `direcformer_mini` with the attention kinds and losses of a row."""
    config = row.configure(direcformer_mini())
    backwards = tuple(reversed_name(action) for action in ONE_WAY_RECORDINGS)
    order = replace(config.objective.order, backwards=backwards)
    objective = replace(config.objective, order=order)
    settings = replace(
        config.train,
        max_steps=MINI_STEPS,
        seed=seed,
        calibrate=False,
        tensorboard=False,
        eval_every=MINI_STEPS,
        device=device,
    )
    return replace(
        config, recipe=f"direcformer_mini {row.name}", objective=objective, train=settings
    )


# ---- clips --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MiniClips:
    """The stem features of rendered clips in the direction of the recording."""

    features: Tensor
    """float16, (N, T, patches, C)."""
    labels: Tensor
    """int64, (N,), number of the recording in `actions`."""
    splits: tuple[str, ...]
    actions: tuple[str, ...]

    def split(self, name: str) -> MiniClips:
        """Return the clips of one split."""
        chosen = torch.tensor([split == name for split in self.splits])
        splits = (name,) * int(chosen.sum())
        return MiniClips(self.features[chosen], self.labels[chosen], splits, self.actions)

    def class_names(self) -> tuple[str, ...]:
        """Return the 2K class names: the recordings, then the same played backwards."""
        return (*self.actions, *(reversed_name(name) for name in self.actions))


@dataclass(frozen=True)
class BothWays:
    """Clips as recorded and, as classes of their own, backwards: items 2i and 2i + 1 are clip i
    both ways."""

    clips: MiniClips

    def __len__(self) -> int:
        return 2 * len(self.clips.labels)

    def __getitem__(self, key: tuple[int, int], /) -> dict[str, Any]:
        position, backwards = divmod(key[1], 2)
        clip = self.clips.features[position].float()
        label = int(self.clips.labels[position]) + backwards * len(self.clips.actions)
        return {"clip": clip.flip(0) if backwards else clip, "label": label, "sample": key[1]}


@functools.lru_cache(maxsize=1)
def mocap_features(cache: Path) -> MiniClips:
    """Render the clips once (half an hour of one core), send them through the convolutions once,
    load their features.

    Raises:
        UserError: if pybullet is missing.
    """
    preprocess = direcformer_mini().data.preprocess
    assert preprocess is not None
    features, names, splits = recorded_features(
        cache / "mocap-8fps",
        FeatureCache(cache / "features"),
        MINI_CLIPS,
        MINI_PLAN,
        convolve,
        weights_digest(mini_stem().trunk.state_dict()),
        preprocess,
        only=ONE_WAY_RECORDINGS,
    )
    labels = torch.tensor([ONE_WAY_RECORDINGS.index(name) for name in names])
    return MiniClips(features, labels, tuple(splits), ONE_WAY_RECORDINGS)


def recorded_features(
    root: Path,
    cache: FeatureCache,
    num_clips: int,
    plan: RenderPlan,
    stem: Callable[[Tensor], Tensor],
    stem_digest: str,
    preprocess: Preprocess,
    *,
    only: Sequence[str] = (),
) -> tuple[Tensor, list[str], list[str]]:
    """Return the stem features of renders in the direction of the recording, made where they are
    missing.

    Args:
        root: folder of the renders.
        cache: where the features are stored.
        num_clips: how many are rendered.
        plan: what is rendered.
        stem: the frozen stem, clips (V, T, 3, H, W) to features (V, T, patches, C).
        stem_digest: `weights_digest` of the stem.
        preprocess: turns the frames of a render into the stem's input.
        only: recordings whose clips are wanted; empty: all.

    Returns:
        float16 (N, T, patches, C), the recordings' names, and the splits.

    Raises:
        UserError: if pybullet or the stem's weights are missing.
    """
    samples = open_dataset(render_dataset(root, num_clips, plan, workers=0)).samples[:num_clips]
    recordings = list_actions("none")
    names = [str(sample.label) for sample in samples]
    is_reversed = [name not in recordings for name in names]
    names = [reversed_name(n) if r else n for n, r in zip(names, is_reversed, strict=True)]
    wanted = [i for i, name in enumerate(names) if not only or name in only]

    def make() -> dict[str, Tensor]:
        packed, parts = open_packed(root), []
        for start in range(0, len(wanted), 32):
            part = wanted[start : start + 32]
            frames = [packed.frames(int(samples[i].row or 0)) for i in part]
            features = stem(torch.stack([preprocess.clip(clip)[0] for clip in frames]))
            turned = torch.tensor([is_reversed[i] for i in part])[:, None, None, None]
            parts.append(torch.where(turned, features.flip(1), features).half())
        return {"features": torch.cat(parts)}

    key = cache_key(
        kind="renders in the direction of the recording",
        plan=repr(plan),
        clips=num_clips,
        only=list(only),
        preprocess=repr(preprocess),
        weights=stem_digest,
    )
    features = cache.get_or_make(key, make)["features"]
    return features, [names[i] for i in wanted], [str(samples[i].split) for i in wanted]


# ---- models -------------------------------------------------------------------------------------


@torch.inference_mode()
def convolve(clips: Tensor) -> Tensor:
    """Return the features (V, T, patches, C) of clips (V, T, 3, H, W) by the trained half of the
    stem."""
    maps = convolutions()(clips.flatten(0, 1))  # (V*T, C, h, w)
    return maps.float().flatten(2).transpose(1, 2).unflatten(0, clips.shape[:2])


@functools.lru_cache(maxsize=1)
def convolutions() -> Callable[[Tensor], Tensor]:
    """Return the trained half of `mini_stem`: frames (M, 3, H, W) to (M, C, h, w)."""
    return mini_stem().trunk.convolve  # type: ignore[union-attr,return-value]


def mini_stem() -> nn.Module:
    """Return the frozen stem of the mini cells with the weights of `marey-mini-rgb`, in evaluation
    mode."""
    arguments = direcformer_mini().model.arguments
    model = create_model("direcformer", num_classes=2, num_orders=2, image_size=96, **arguments)
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


def mini_task(config: TrainConfig, clips: MiniClips) -> Task:
    """Build the order task on stored features, both ways.

    Args:
        config: as of `mini_config`.
        clips: all splits.
    """
    preprocess = config.data.preprocess
    assert preprocess is not None
    names, T = clips.class_names(), preprocess.sampling.num_frames
    settings = config.objective
    parts = ClipTerms(terms={"class": ClassTerm()})
    add_order(parts, settings, names, T)
    objective = ClipsObjective(
        settings.weights, parts.terms, num_classes=len(names), permuted_clips=parts.permuted_clips
    )

    return Task(
        train_data=BothWays(clips.split("train")),
        val_data=None,
        collate=collate_clips,
        class_names=names,
        preprocess=preprocess,
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(names, parts.measures),
        tensors=parts.tensors,
        build_model=build_mini_model,
        model_arguments={
            "num_frames": T,
            "image_size": preprocess.image_size,
            "num_classes": len(names),
            **parts.model_arguments,
        },
    )


# ---- measures -----------------------------------------------------------------------------------


def measure_mini(model: nn.Module, clips: MiniClips, device: str) -> dict[str, Any]:
    """Return top-1, top-5 and OrderAcc of a trained mini model on the test clips, in percent."""
    test = clips.split("test")
    features = test.features.float().to(device)
    model = model.eval()
    with torch.inference_mode():
        parts = (*features.split(64), *features.flip(1).split(64))
        logits = torch.cat([model(part)["logits"].cpu() for part in parts])
    labels = torch.cat([test.labels, test.labels + len(test.actions)])
    is_recording = logits.argmax(dim=1) % len(test.actions) == labels % len(test.actions)

    chosen = torch.linspace(0, len(features) - 1, min(ORDER_CLIPS, len(features))).long()
    items = ({"views": clip[None]} for clip in features[chosen])
    answers = answer_clips(model, items, AnswerOptions(shuffles=4, batch_size=32, device=device))
    order, by_sorting = measure_order(answers), measure_order(answers, method="sort")
    return {
        "top1": 100 * topk_accuracy(logits, labels, 1),
        "top5": 100 * topk_accuracy(logits, labels, 5),
        "order_acc": 100 * order["order_accuracy"],
        "order_acc_sorted": 100 * by_sorting["order_accuracy"],
        "recording_top1": 100 * float(is_recording.double().mean()),
        "order": order,
        "test_clips": len(labels),
    }


def multiply_adds(model: nn.Module, clip: Tensor) -> float:
    """Count the multiply-adds of one forward pass: half the floating point operations of its matrix
    products."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(clip)
    return counter.get_total_flops() / 2
