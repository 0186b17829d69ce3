"""Make `marey-mini-gat` from rendered videos with sound, and measure it there and on real video.

    marey data render mocap --clips 360 --size 96 --reversals none --seed 16 --out CLIPS
    marey data render action-videos --clips CLIPS --out VIDEOS --videos 300 --seed 22
    python -m benchmarks.mini_gat --videos VIDEOS --real ../shared/data/surv_fight [--work DIR]
        [--bundle weights/marey-mini-gat] [--out results/gat_mini_model.json]

Features are YouTube-8M's in small: ImageNet features of one frame a second, whitening PCA, 8 bits,
and a log-mel summary of the sound. Renders: PCA and model are fitted on the train videos, the val
videos choose the checkpoint, the test videos are measured once. Seed 0 is the bundled model.

Real video is classes "fight" and "noFight" of 300 clips. Five folds of whole scenes; in each, a GAT
and its controls are fitted anew on the other four. The PCA is that of the renders. Nothing made
from real video is bundled. Written down before running:

* GAT against a logistic regression on the mean of its own features over time, and against what
  width, height, rate, number of frames and bytes of a file tell (random forest, logistic).
* The bundled model as it is: its largest probability of kick, punch and spin kick as a score of
  "fight", against a score of .5; and how many clips it calls unknown (all of them are).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.written_result import write_result
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m import FrameExample, dequantize, quantize, write_examples
from marey.datasets.youtube8m_loading import collate_features
from marey.datasets.youtube8m_shards import write_sidecar
from marey.features.extract import PARTITIONS, FeatureExtractor
from marey.features.frames import encode_frames, whole_seconds
from marey.features.weights import PCA
from marey.inference.features import NEIGHBOURS
from marey.metrics.calibration import cosine_knn
from marey.metrics.comparison import compare
from marey.metrics.intervals import proportion_interval
from marey.metrics.selective import auroc
from marey.metrics.youtube8m import youtube8m_metrics
from marey.recipes.gat import gat_features
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.video.decode import open_video

COMPONENTS = 128
FOLDS = 5
FALSE_ALARMS = 0.05
"""Share of the val videos that the limit of "unknown" may refuse."""
BANK = 1500
"""Seconds of train videos kept to compare with."""
BLOWS = ("kick", "punch", "spin kick")
"""Classes of the bundled model that stand for "fight"."""
METADATA = ("width", "height", "fps", "frames", "bytes")

Video = dict[str, Any]
"""{"id", "split", "labels", "features"}: features are uint8, (T, 128) of "rgb" and "audio"."""


# ---- features -----------------------------------------------------------------------------------


def raw_features(path: Path, extractor: FeatureExtractor, work: Path) -> dict[str, torch.Tensor]:
    """Return the features of a video before PCA and 8 bits, from `work` where they are stored."""
    stored = work / "raw" / f"{path.parent.name}-{path.stem}.npz"
    if not stored.is_file():
        with open_video(path) as reader:
            seconds = whole_seconds(reader.duration_seconds, extractor.max_seconds)
            frames = encode_frames(reader, extractor.frames, 0.0, seconds)
        sound = extractor.sound(path, seconds)
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, rgb=frames.numpy(), audio=sound.numpy())
    with np.load(stored, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in ("rgb", "audio")}


def in_8_bits(features: dict[str, torch.Tensor], pca: PCA) -> dict[str, NDArray[np.uint8]]:
    """Return what is stored of a video: pictures after PCA, and sound."""
    return {
        "rgb": quantize(pca(features["rgb"]).numpy()),
        "audio": quantize(features["audio"].numpy()),
    }


def values(video: Video) -> dict[str, NDArray[np.float32]]:
    """Return the features of a video as the model reads them, float (T, 128) each."""
    return {name: dequantize(array) for name, array in video["features"].items()}


def mean_pool(videos: Sequence[Video]) -> NDArray[np.float64]:
    """Return the means over time of the features, (N, sum of widths)."""
    rows = [np.concatenate([one.mean(0) for one in values(video).values()]) for video in videos]
    return np.stack(rows)


def write_shards(
    folder: Path, videos: Sequence[Video], names: Sequence[str], encoders: dict[str, Any]
) -> None:
    """Write one shard a split, as `marey features` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, shard in PARTITIONS.items():
        examples = [
            FrameExample(id=video["id"], labels=video["labels"], features=video["features"])
            for video in videos
            if video["split"] == split
        ]
        if examples:
            write_examples(folder / f"{shard}0000.tfrecord", examples)
    widths = {name: array.shape[1] for name, array in videos[0]["features"].items()}
    write_sidecar(folder, widths, names, encoders)


# ---- the model ----------------------------------------------------------------------------------


def configured(folder: Path, seed: int, epochs: int, val_fraction: float = 0.2) -> TrainConfig:
    """Return the recipe `gat_features` on a folder of shards."""
    config = gat_features()
    return replace(
        config,
        data=replace(config.data, path=str(folder), val_fraction=val_fraction),
        train=replace(config.train, seed=seed, epochs=epochs, device="cpu", tensorboard=False),
    )


def trained(config: TrainConfig, run: Path, which: str = "best") -> Path:
    """Return a checkpoint, trained now where it is not stored."""
    if not (run / "done").is_file():
        train(config, run, quiet=True)
        (run / "done").touch()
    return run / which


@torch.inference_mode()
def outputs_of(
    checkpoint: Path, videos: Sequence[Video]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return probabilities (N, K) and embeddings (N, hidden) of some videos."""
    model = load_checkpoint(checkpoint).model
    probabilities, embeddings = [], []
    for start in range(0, len(videos), 50):
        samples = []
        for video in videos[start : start + 50]:
            tensors = {name: torch.from_numpy(array) for name, array in values(video).items()}
            samples.append({"features": tensors, "targets": torch.zeros(1), "id": video["id"]})
        batch = collate_features(samples)
        outputs = model(batch["features"], batch["mask"])
        probabilities.append(outputs["logits"].double().sigmoid())
        embeddings.append(outputs["embedding"])
    return torch.cat(probabilities).numpy(), torch.cat(embeddings).numpy()


def logistic() -> Any:
    """Return a standardised logistic regression with scikit-learn's own settings."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def forest() -> Any:
    """Return a random forest."""
    return RandomForestClassifier(n_estimators=300, random_state=0)


# ---- renders ------------------------------------------------------------------------------------


def read_renders(
    data: Path, work: Path, extractor: FeatureExtractor
) -> tuple[list[str], list[Video]]:
    """Return class names and videos; fits the PCA on the train videos."""
    with (data / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({name for row in rows for name in row["label"].split(";")})
    raw = [raw_features(data / row["path"], extractor, work) for row in rows]
    known = [one["rgb"] for row, one in zip(rows, raw, strict=True) if row["split"] == "train"]
    pca = PCA.fit(torch.cat(known), work / "pca", COMPONENTS)
    videos = []
    for row, one in zip(rows, raw, strict=True):
        labels = sorted(names.index(name) for name in row["label"].split(";"))
        features = in_8_bits(one, pca)
        videos.append(
            {
                "id": row["path"],
                "split": row["split"],
                "labels": tuple(labels),
                "features": features,
            }
        )
    return names, videos


def measure_renders(
    names: Sequence[str], videos: Sequence[Video], folder: Path, work: Path, epochs: int, seeds: int
) -> dict[str, Any]:
    """Train on the rendered videos in `folder` and measure the test videos."""
    parts = {split: [video for video in videos if video["split"] == split] for split in PARTITIONS}
    truth = {
        split: np.stack([np.isin(np.arange(len(names)), video["labels"]) for video in part])
        for split, part in parts.items()
    }
    scores = []
    for seed in range(seeds):
        best = trained(configured(folder, seed, epochs), work / f"run{seed}")
        scores.append(youtube8m_metrics(outputs_of(best, parts["test"])[0], truth["test"]))

    pooled = OneVsRestClassifier(logistic()).fit(mean_pool(parts["train"]), truth["train"])
    controls = {
        "mean_pool_logistic": pooled.predict_proba(mean_pool(parts["test"])),
        "random": np.random.default_rng(0).random(truth["test"].shape),
    }
    keys = ("gap", "map", "hit_at_1")
    return {
        "videos": {split: len(part) for split, part in parts.items()},
        "gat_by_seed": {key: [score[key] for score in scores] for key in keys},
        **{
            name: {key: youtube8m_metrics(answers, truth["test"])[key] for key in keys}
            for name, answers in controls.items()
        },
    }


def pictures(video: Video) -> torch.Tensor:
    """Return the picture features that "unknown" rests on, (T, 128)."""
    return torch.from_numpy(values(video)["rgb"])


def ood_score(video: Video, bank: torch.Tensor) -> float:
    """Return how far a video is from those of training, as `FeaturePredictor` has it."""
    return float(cosine_knn(pictures(video), bank, NEIGHBOURS).mean())


def unknown_limit(videos: Sequence[Video]) -> tuple[torch.Tensor, float]:
    """Return seconds of train videos, rows of length 1, and the limit of the OOD score."""
    seconds = torch.cat([pictures(video) for video in videos if video["split"] == "train"])
    chosen = torch.randperm(len(seconds), generator=torch.Generator().manual_seed(0))[:BANK]
    bank = torch.nn.functional.normalize(seconds[chosen], dim=1).half()
    held_out = [ood_score(video, bank) for video in videos if video["split"] == "val"]
    return bank, float(np.quantile(held_out, 1 - FALSE_ALARMS))


def share_unknown(videos: Sequence[Video], bank: torch.Tensor, limit: float) -> float:
    """Return the share of videos that are called unknown."""
    return float(np.mean([ood_score(video, bank) > limit for video in videos]))


# ---- real video ---------------------------------------------------------------------------------


def read_real(
    data: Path, work: Path, extractor: FeatureExtractor
) -> tuple[list[dict[str, str]], list[Video], NDArray[np.float64]]:
    """Return rows of the manifest, videos, and their mean features without PCA and 8 bits."""
    with (data / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [data / Path(row["path"]).relative_to(data.name) for row in rows]
    raw = [raw_features(path, extractor, work) for path in paths]
    pca, names = PCA.load(work / "pca"), sorted({row["label"] for row in rows})
    videos = [
        {
            "id": row["path"],
            "split": "train",
            "labels": (names.index(row["label"]),),
            "features": in_8_bits(one, pca),
        }
        for row, one in zip(rows, raw, strict=True)
    ]
    pooled = [np.concatenate([part.mean(0).numpy() for part in one.values()]) for one in raw]
    return rows, videos, np.stack(pooled)


def measure_real(
    data: Path, work: Path, extractor: FeatureExtractor, bundled: Path, epochs: int, seeds: int
) -> tuple[dict[str, Any], list[Video]]:
    """Measure GAT and its controls on all clips by folds of whole scenes; returns the clips too."""
    rows, videos, without_pca = read_real(data, work, extractor)
    names = sorted({row["label"] for row in rows})
    labels = np.array([video["labels"][0] for video in videos])
    groups = [row["group"] for row in rows]
    metadata = np.array([[float(row[name]) for name in METADATA] for row in rows])
    probabilities, embeddings = outputs_of(bundled, videos)
    inputs = {
        "mean_pool_logistic": (mean_pool(videos), logistic),
        "mean_pool_without_pca_logistic": (without_pca, logistic),
        "bundled_embedding_logistic": (embeddings, logistic),
        "metadata_logistic": (metadata, logistic),
        "metadata_forest": (metadata, forest),
    }
    right = {name: np.zeros(len(rows), dtype=bool) for name in inputs}
    gat = np.zeros((seeds, len(rows)), dtype=bool)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (known, held_out) in enumerate(folds.split(metadata, labels, groups)):
        for name, (features, make) in inputs.items():
            answers = make().fit(features[known], labels[known]).predict(features[held_out])
            right[name][held_out] = answers == labels[held_out]

        # The last epoch is taken: nothing of the held-out scenes chooses anything.
        folder = work / "folds" / str(fold)
        write_shards(folder, [videos[i] for i in known], names, {})
        tested = [videos[i] for i in held_out]
        for seed in range(seeds):
            config = configured(folder, seed, epochs, val_fraction=0.0)
            last = trained(config, work / "folds" / f"run{fold}-{seed}", "last")
            gat[seed, held_out] = outputs_of(last, tested)[0].argmax(1) == labels[held_out]

    found: dict[str, Any] = {
        "clips": len(rows),
        "scenes": len(set(groups)),
        "folds": FOLDS,
        "larger_class": float(np.bincount(labels).max() / len(labels)),
        "gat_by_seed": gat.mean(1).tolist(),
    }
    for name, hits in {"gat": gat.mean(0), **right}.items():
        interval = proportion_interval(torch.from_numpy(hits), groups)
        found[name] = {"accuracy": float(hits.mean()), "interval": list(interval)}
    found["gat_seed_0_less"] = {
        name: paired(hits, gat[0], [row["label"] for row in rows], groups)
        for name, hits in right.items()
    }
    class_names = load_checkpoint(bundled).class_names
    blows = probabilities[:, [class_names.index(name) for name in BLOWS]].max(1)
    found["bundled_as_it_is"] = fight_score(blows, labels == names.index("fight"), groups)
    return found, videos


def paired(
    baseline: NDArray[np.bool_],
    ours: NDArray[np.bool_],
    labels: Sequence[str],
    groups: Sequence[str],
) -> dict[str, Any]:
    """Return the paired difference of accuracies over scenes."""
    whole = compare(torch.from_numpy(baseline), torch.from_numpy(ours), labels, groups=groups)
    keys = ("difference", "low", "high", "interval", "mcnemar_p", "group_test_p")
    return {key: whole[key] for key in keys}


def fight_score(
    scores: NDArray[np.float64], fights: NDArray[np.bool_], groups: Sequence[str]
) -> dict[str, Any]:
    """Return how often a fight scores higher than another clip, with a bootstrap over scenes."""
    generator = np.random.default_rng(0)
    names, scene = np.unique(groups, return_inverse=True)
    clips_of = [np.flatnonzero(scene == number) for number in range(len(names))]

    def area(chosen: NDArray[np.int64]) -> float:
        fight = torch.from_numpy(scores[chosen][fights[chosen]])
        other = torch.from_numpy(scores[chosen][~fights[chosen]])
        return auroc(other, fight)

    draws = []
    for _ in range(2000):
        drawn = generator.integers(0, len(names), len(names))
        draws.append(area(np.concatenate([clips_of[number] for number in drawn])))
    return {
        "score": f"largest probability of {', '.join(BLOWS)}",
        "auroc": area(np.arange(len(scores))),
        "interval": np.nanquantile(draws, [0.025, 0.975]).tolist(),
    }


# ---- the bundle ---------------------------------------------------------------------------------


def write_bundle(
    target: Path, best: Path, pca: Path, encoders: dict[str, Any], bank: torch.Tensor, limit: float
) -> float:
    """Write model, PCA and limit of "unknown"; returns megabytes."""
    checkpoint = load_checkpoint(best)
    extra = {**checkpoint.extra, "encoders": {**encoders, "frames_pca": "pca"}}
    extra.pop("config", None)  # it holds paths of this machine
    save_checkpoint(
        target,
        checkpoint.model,
        class_names=checkpoint.class_names,
        preprocess=None,
        calibration={"ood": {"threshold": limit}},
        extra=extra,
        tensors={"ood_bank": bank},
        storage="float16",
    )
    (target / "pca").mkdir(exist_ok=True)
    for path in sorted(pca.iterdir()):
        (target / "pca" / path.name).write_bytes(path.read_bytes())
    files = [path for path in target.rglob("*") if path.is_file()]
    return round(sum(path.stat().st_size for path in files) / 1e6, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the bundle and the result; a reading written by hand is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/mini-gat"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--real-epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)

    extractor = FeatureExtractor("frames")
    names, videos = read_renders(given.videos, given.work, extractor)
    encoders = {**extractor.description, "frames_pca": str(given.work / "pca")}
    write_shards(given.work / "features", videos, names, encoders)
    renders = measure_renders(
        names, videos, given.work / "features", given.work, given.epochs, given.seeds
    )
    bank, limit = unknown_limit(videos)
    tested = [video for video in videos if video["split"] == "test"]
    renders["called_unknown"] = share_unknown(tested, bank, limit)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.mini_gat --videos VIDEOS --real ../shared/data/surv_fight "
        f"--epochs {given.epochs} --real-epochs {given.real_epochs} --seeds {given.seeds}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "intervals": "95 %, over whole scenes",
        "renders": renders,
    }
    best = given.work / "run0" / "best"
    if given.real:
        result["real"], clips = measure_real(
            given.real, given.work, extractor, best, given.real_epochs, given.seeds
        )
        result["real"]["called_unknown"] = share_unknown(clips, bank, limit)
    if given.bundle:
        result["bundle_megabytes"] = write_bundle(
            given.bundle, best, given.work / "pca", encoders, bank, limit
        )

    if given.out:
        write_result(given.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
