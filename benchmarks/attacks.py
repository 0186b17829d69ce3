"""A table of attacks on models of which two hide their gradients: does the suite see through them?

    python -m benchmarks.attacks DATA/ut_interaction --out results/attacks.json

One small video network (32 x 32, 4 frames) learns the six actions of UT-Interaction on twelve of
the twenty groups; the others are attacked. Four models: as trained; the same with logits x 200 (the
same decisions); the same behind a rounding of its input; and one trained inside the L-infinity box
that is attacked; three seeds of each. "models" holds one entry a seed; the "conclusions" are
written by hand and kept when the table is made again. The network is small so that the table runs
on one core; it measures attacks and alarms, not recognition.
"""

from __future__ import annotations

import argparse
import inspect
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from marey.attacks import ATTACKS, attack
from marey.attacks.masking import alarms_of, masking_evidence, reliability
from marey.attacks.pixel_model import PixelModel
from marey.attacks.threat_models import EPS, SUITES
from marey.datasets import open_dataset
from marey.files import read_json, write_json
from marey.losses.adversarial import linf_perturbation
from marey.metrics.intervals import proportion_interval
from marey.transforms import functional
from marey.video.decode import open_video

SIZE = 32
FRAMES = 4
STEPS = 250
BATCH = 24
TRAIN_GROUPS = 12
MEAN, STD = 0.45, 0.225
BOX_STEPS = 3
SEEDS = 3


class SmallNet(nn.Module):
    """Three convolutions over space and time and a mean, (B, T, 3, 32, 32) -> logits (B, K)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(3, 16, (1, 5, 5), stride=(1, 2, 2), padding=(0, 2, 2)),
            nn.GELU(),
            nn.Conv3d(16, 32, 3, stride=(1, 2, 2), padding=1),
            nn.GELU(),
            nn.Conv3d(32, 48, 3, stride=(2, 2, 2), padding=1),
            nn.GELU(),
        )
        self.head = nn.Linear(48 * 16, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.net(clip.transpose(1, 2)).mean(2).flatten(1))


class Rounded(nn.Module):
    """A network behind its input rounded to 32 levels: nearly the same answers, and no gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits."""
        pixels = clip * STD + MEAN
        rounded = ((pixels * 31).round() / 31 - MEAN) / STD
        return self.network(rounded.detach() + 0 * clip)


def read_clips(data: str) -> tuple[Tensor, Tensor, list[str], int]:
    """Return clips uint8 (N, T, 3, S, S), labels (N,), groups and the number of classes."""
    index = open_dataset(data)
    clips, labels, groups = [], [], []
    for sample in index.samples:
        with open_video(sample.path) as reader:
            first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
            rows = [first + int((i + 0.5) / FRAMES * (stop - first)) for i in range(FRAMES)]
            clips.append(functional.resize(reader.frames_at(rows).frames, SIZE, SIZE))
        labels.append(index.label_index(sample))
        groups.append(str(sample.group))
    return torch.stack(clips), torch.tensor(labels), groups, len(index.class_names)


def normalised(clips: Tensor) -> Tensor:
    """Return clips as the network reads them."""
    return (clips.float() / 255 - MEAN) / STD


def train(clips: Tensor, labels: Tensor, classes: int, *, in_box: bool, seed: int) -> nn.Module:
    """Train a network; `in_box` on the worst clips of the box of `EPS` (Madry et al.)."""
    torch.manual_seed(seed)
    model = SmallNet(classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, STEPS)
    eps, low, high = (torch.tensor(v) for v in (EPS / STD, -MEAN / STD, (1 - MEAN) / STD))
    for _ in range(STEPS):
        rows = torch.randperm(len(clips))[:BATCH]
        clip, wanted = normalised(clips[rows]), labels[rows]
        if in_box:

            def loss_of(moved: Tensor, wanted: Tensor = wanted) -> Tensor:
                return F.cross_entropy(model(moved), wanted)

            clip = clip + linf_perturbation(loss_of, clip, eps, low, high, steps=BOX_STEPS)
        optimiser.zero_grad()
        F.cross_entropy(model(clip), wanted).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def measure(model: PixelModel, clips: Tensor, labels: Tensor, groups: list[str]) -> dict[str, Any]:
    """Attack a model with every attack of the quick suite, PGD as it was reported before, and the
    alarms."""
    start = time.process_time()
    with torch.no_grad():
        right = model(clips.float() / 255).argmax(1) == labels
    plans: dict[str, tuple[str, dict[str, Any]]] = {
        "pgd, 10 steps": ("pgd", {"eps": EPS, "step": EPS / 4, "steps": 10}),
        "random noise": ("random_noise", {"eps": EPS, "max_queries": 100}),
    }
    for threat in SUITES["quick"]:
        for name in threat.attacks:
            plans[f"{name} ({threat.name})"] = (name, threat.options(name))
    rows: dict[str, Any] = {}
    standing = {threat.name: right.clone() for threat in SUITES["quick"]}
    for shown, (name, options) in plans.items():
        if "generator" in inspect.signature(ATTACKS[name]).parameters:
            options["generator"] = Generator().manual_seed(0)
        result = attack(model, clips, labels, name, **options)
        robust = right & ~result.success
        rows[shown] = {
            "robust_accuracy": round(float(robust.float().mean()), 4),
            "success": round(float((right & result.success).sum() / right.sum().clamp(min=1)), 4),
            "most_queries": int(result.queries_per_clip.max()),
        }
        for threat_name in standing:
            if f"({threat_name})" in shown:
                standing[threat_name] &= robust
    evidence = masking_evidence(model, clips, labels, eps=EPS)
    linf = standing["linf-8-quick"] & standing["linf-8-answers-quick"]
    return {
        "clean_accuracy": round(float(right.float().mean()), 4),
        "clean_interval": [round(v, 4) for v in proportion_interval(right.float(), groups)],
        "attacks": rows,
        "linf_robust_accuracy": round(float(linf.float().mean()), 4),
        "linf_interval": [round(v, 4) for v in proportion_interval(linf.float(), groups)],
        "threat_models": {
            name: round(float(kept.float().mean()), 4) for name, kept in standing.items()
        },
        **reliability(alarms_of(evidence)),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    """Train, attack, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder of UT-Interaction")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips, labels, groups, classes = read_clips(options.data)
    known = sorted(set(groups))[:TRAIN_GROUPS]
    trains = torch.tensor([group in known for group in groups])
    tested = [group for group in groups if group not in known]

    def pixels(network: nn.Module) -> PixelModel:
        return PixelModel(network, mean=(MEAN,) * 3, std=(STD,) * 3)

    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(SEEDS):
        plain = train(clips[trains], labels[trains], classes, in_box=False, seed=seed)
        hardened = train(clips[trains], labels[trains], classes, in_box=True, seed=seed)
        models = {
            "as trained": pixels(plain),
            "logits x 200": pixels(plain).with_logits_times(200.0),
            "rounded input": pixels(Rounded(plain)),
            "trained in the box": pixels(hardened),
        }
        for name, model in models.items():
            row = measure(model, clips[~trains], labels[~trains], tested)
            found.setdefault(name, []).append(row)
            print(seed, name, row["clean_accuracy"], row["linf_robust_accuracy"], flush=True)
    kept: list[str] = []
    if options.out.is_file():
        kept = read_json(options.out).get("conclusions", [])
    report = {
        "command": "python -m benchmarks.attacks DATA/ut_interaction --out results/attacks.json",
        "date": datetime.now(UTC).date().isoformat(),
        "data": f"UT-Interaction, {int(trains.sum())} clips of {len(known)} groups to train, "
        f"{int((~trains).sum())} clips of {len(set(tested))} groups attacked; {FRAMES} frames, "
        f"{SIZE} x {SIZE}; {SEEDS} seeds of weights and batches",
        "budget": "8 grey levels, L-infinity; quick suite of marey.attacks.threat_models",
        "clips": int((~trains).sum()),
        "conclusions": kept,
        "models": found,
    }
    write_json(options.out, report, indent=1)


if __name__ == "__main__":
    main()
