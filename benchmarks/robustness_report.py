"""Train three small models on real video and compare how they stand natural and adversarial change.

    python -m benchmarks.robustness_report --data ../shared/data/surv_fight --out REPORT

Fight or not, 300 clips in the wild, held out by scene. All three look at eight frames of 64 x 64 through
EfficientNet-Lite0 with ImageNet weights, up to stage 4 and never trained, so its features are stored once:

* `softmax`: divided space-time attention.
* `directed`: the same with directed (cosine) attention over time.
* `augmented`: as softmax, trained on clean and corrupted clips (`augment.corruption=mixed`, severities 1 to 3). Of the
  report's kinds it has met gaussian_noise, jpeg_compression and frame_sampling; the other seven are new to it.

It runs in minutes on one core. The report is `marey robustness` on the three folders it writes.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from marey.checkpoints.folder import save_checkpoint
from marey.datasets import DatasetIndex, open_dataset
from marey.datasets.index import write_manifest
from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD, load_imagenet_stem
from marey.models import create_model
from marey.transforms.corruption_augment import corrupt_for_training
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling

SAMPLING = ClipSampling(kind="uniform", num_frames=8, stride_frames=1, target_fps=8.0, view_start="offset")
PREPROCESS = Preprocess(sampling=SAMPLING, short_side=72, image_size=64, mean=LITE0_MEAN, std=LITE0_STD)
ARGUMENTS = {"num_classes": 2, "num_frames": 8, "image_size": 64, "patch_size": 16, "embed_dim": 128, "depth": 2,
             "num_heads": 4, "mlp_ratio": 3.0, "stem": "efficientnet_lite0", "stem_stage": 4, "freeze_stem_norm": True,
             "drop_path": 0.1, "dropout": 0.1}
MODELS = {"softmax": {}, "directed": {"time_attention": "cosine", "cls_in_time": True}, "augmented": {}}
KINDS = ("gaussian_noise,shot_noise,defocus_blur,motion_blur,jpeg_compression,fog,mpeg2,frame_sampling,"
         "reverse_sampling,translate")


def held_out(group: str | None, share: float = 0.3) -> bool:
    """Say whether a scene belongs to the test, from its name alone."""
    return int(hashlib.sha256(str(group).encode()).hexdigest(), 16) % 1000 < 1000 * share


def split_by_scene(data: str, out: Path) -> tuple[DatasetIndex, Path]:
    """Return the data set with its split and write the manifest of it."""
    from dataclasses import replace

    index = open_dataset(data)
    samples = tuple(replace(sample, split="test" if held_out(sample.group) else "train") for sample in index.samples)
    index = replace(index, samples=samples)
    manifest = out / "scenes.csv"
    write_manifest(index, manifest)
    return index, manifest


@torch.inference_mode()
def stored_features(index: DatasetIndex, trunk: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Decode every training clip once and return features (N, 8, places, C) of it, clean and corrupted."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {"clean": [], "corrupted": [], "label": []}
    for sample in index.samples:
        with open_video(sample.path) as reader:
            frames = PREPROCESS.sample(reader).frames
        clean = PREPROCESS.geometry(frames)[0]
        large = PREPROCESS.__class__(sampling=SAMPLING, short_side=252, image_size=224).geometry(frames)[0]
        changed = F.interpolate(corrupt_for_training(large, "mixed", 1.0, generator).float(), size=(64, 64),
                                mode="bilinear", antialias=True).round().to(torch.uint8)
        for name, clip in (("clean", clean), ("corrupted", changed)):
            found[name].append(trunk(PREPROCESS.normalise(clip)).flatten(2).mT.contiguous())
        found["label"].append(torch.tensor(index.label_index(sample)))
    return {name: torch.stack(values) for name, values in found.items()}


def fit(model: torch.nn.Module, features: dict[str, Tensor], variants: tuple[str, ...], *, epochs: int,
        seed: int) -> None:
    """Train everything behind the trunk on stored features."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.stack([features[name] for name in variants], 1)                 # (N, variants, 8, places, C)
    labels, N, batch = features["label"], len(features["label"]), 16
    parameters = [p for name, p in model.named_parameters() if "trunk" not in name]
    steps = epochs * -(-N // batch)
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for places in torch.randperm(N, generator=generator).split(batch):
            chosen = torch.randint(len(variants), (len(places),), generator=generator)
            logits = model(clips[places, chosen].clone())["logits"]
            loss = F.cross_entropy(logits, labels[places], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
    model.eval()


def main() -> None:
    """Split, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the surv_fight folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and report")
    parser.add_argument("--limit", type=int, default=24, help="test videos")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    index, manifest = split_by_scene(options.data, options.out)
    folders = [options.out / name for name in MODELS]
    stored = options.out / "features.safetensors"
    if not stored.is_file():
        stem = create_model("timesformer", **ARGUMENTS).eval()
        load_imagenet_stem(stem)
        save_file(stored_features(index.split("train"), stem.patch_embed.trunk, options.seed), stored)
    features = load_file(stored)
    for (name, changes), folder in zip(MODELS.items(), folders, strict=True):
        if not (folder / "config.json").is_file():
            torch.manual_seed(options.seed)
            model = create_model("timesformer", **ARGUMENTS, **changes)
            load_imagenet_stem(model)
            variants = ("clean", "corrupted") if name == "augmented" else ("clean",)
            fit(model, features, variants, epochs=options.epochs, seed=options.seed)
            save_checkpoint(folder, model, class_names=index.class_names, preprocess=PREPROCESS)
            print(f"trained {name}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "marey", "robustness", *MODELS, "--data", manifest.name, "--out", "report",
                    "--corruptions", KINDS, "--limit", str(options.limit), "--attacks",
                    "fgsm,pgd", "--attack-set", "pgd.eps=0.0157", "--attack-set", "pgd.step=0.0039", "--attack-set",
                    "pgd.steps=5", "--attack-set", "fgsm.eps=0.0157"], check=False, cwd=options.out)


if __name__ == "__main__":
    main()
