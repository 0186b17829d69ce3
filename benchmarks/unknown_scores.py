"""Scores that could say "unknown" of real people, side by side, on the windows that settings may
be chosen on (never on the 129 that are reported).

    marey data render poses WINDOWS
    python -m benchmarks.unknown_scores WINDOWS --shared ../shared
        --out results/real_people_unknown_scores.json

All scores were written down before the first run. AUROC of other actions against known ones, with
the percentile interval of 2,000 bootstraps over windows. The "conclusion" is written by hand and
kept.

Legend: W windows of a stretch of video, K known actions, D width of the embedding.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.real_people import poses_of, span_of, truth_of
from marey.checkpoints.load import load_checkpoint
from marey.files import read_json, write_json
from marey.inference.pose_windows import PoseClips, cut_tracks
from marey.inference.poses import PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.metrics.selective import auroc
from marey.transforms.pose_clip import normalise_pose

LABELS = Path(__file__).parents[1] / "results" / "real_people_validation_labels.json"
BANK = 5000
"""Training windows to which distances are measured."""
DRAWS = 2000
SHRINKAGE = 0.01
"""Added to the diagonal of the shared covariance."""


class Bank:
    """What the model makes of training windows.

    Args:
        predictor: the model.
        folder: packed windows of keypoints (`marey data render poses`).
    """

    def __init__(self, predictor: PosePredictor, folder: Path) -> None:
        with (folder / "manifest.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        chosen = np.random.default_rng(0).permutation(len(rows))[:BANK]
        rows = [rows[place] for place in chosen]
        stored = np.load(folder / "keypoints.npy", mmap_mode="r")
        windows = np.stack([stored[int(row["row"])] for row in rows]).astype(np.float32)
        clips = normalise_pose(torch.from_numpy(windows), predictor.sampling.min_score)
        with torch.no_grad():
            parts = [predictor.model(part)["embedding"] for part in clips.split(128)]
        embedding = torch.cat(parts)
        names = [row["label"] for row in rows]
        known = torch.tensor([predictor.shown_as[name] is not None for name in names])
        means = {name: embedding[[n == name for n in names]].mean(0) for name in set(names)}
        centred = embedding - torch.stack([means[name] for name in names])
        covariance = centred.T @ centred / len(centred) + SHRINKAGE * torch.eye(len(centred.T))
        self.inverse = torch.linalg.inv(covariance)
        self.means = torch.stack([means[n] for n in means if predictor.shown_as[n] is not None])
        self.known, self.other = (F.normalize(embedding[rows], dim=1) for rows in (known, ~known))

    def distances(self, embedding: Tensor, weight: Tensor) -> dict[str, float]:
        """Return the distances of a stretch, means over its windows, (W, D) and (W,)."""
        toward = F.normalize(embedding, dim=1)
        near = {k: (toward @ self.known.T).topk(k, dim=1).values.mean(1) for k in (1, 10, 50)}
        other = (toward @ self.other.T).topk(10, dim=1).values.mean(1)
        away = embedding[:, None] - self.means
        squared = torch.einsum("wkd,de,wke->wk", away, self.inverse, away).min(1).values
        return {
            **{f"kNN, {k} neighbours": float(weight @ (1 - value)) for k, value in near.items()},
            "kNN, other motions less known ones": float(weight @ (other - near[10])),
            "Mahalanobis": float(weight @ squared),
        }


def scores_of(predictor: PosePredictor, clips: PoseClips, bank: Bank) -> dict[str, float]:
    """Return every score of one stretch of video; larger is less known."""
    outputs, weight = predictor.outputs(clips), clips.weight / clips.weight.sum()
    every = predictor.probabilities(outputs["logits"])  # (W, K + 1)
    fused = weight @ every
    known = fused[:-1] / fused[:-1].sum()
    named = [place for place, name in enumerate(predictor.shown_as.values()) if name is not None]
    same = (every[:, :-1].argmax(1) == fused[:-1].argmax()).float()
    return {
        "class without a name (in use)": float(fused[-1]),
        "1 - maximum probability": float(1 - fused[:-1].max()),
        "1 - maximum probability among known": float(1 - known.max()),
        "entropy": float(-(fused * fused.clamp_min(1e-9).log()).sum()),
        "energy": float(-(weight @ outputs["logits"].logsumexp(-1))),
        "maximum logit": float(-(weight @ outputs["logits"].max(-1).values)),
        "maximum known logit": float(-(weight @ outputs["logits"][:, named].max(-1).values)),
        "windows that disagree": float(1 - weight @ same),
        "surest window": float(1 - every[:, :-1].max()),
        "score of the keypoints": float(-(weight @ clips.clips[..., 2].mean((1, 2)))),
        **bank.distances(outputs["embedding"], weight),
    }


def interval(known: Tensor, unknown: Tensor) -> list[float]:
    """Return the 95 % percentile interval of the AUROC over draws of windows."""
    generator = torch.Generator().manual_seed(0)

    def drawn(values: Tensor) -> Tensor:
        return values[torch.randint(len(values), (len(values),), generator=generator)]

    draws = torch.tensor([auroc(drawn(known), drawn(unknown)) for _ in range(DRAWS)])
    return [round(float(value), 3) for value in draws.quantile(torch.tensor([0.025, 0.975]))]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("windows", type=Path, help="folder of `marey data render poses`")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.poses.mkdir(parents=True, exist_ok=True)
    predictor = PosePredictor(load_checkpoint(given.model))
    bank = Bank(predictor, given.windows)
    rows: list[tuple[bool, dict[str, float]]] = []
    for window in read_json(LABELS)["windows"]:
        truth = truth_of(window["label"], predictor.class_names, predictor.shown_as)
        tracks = poses_of(given.shared / "data" / window["path"], given.poses)
        clips = cut_tracks(tracks, predictor.sampling, span_of(window))
        if len(clips) and truth != NO_PERSON:
            rows.append((truth != "unknown", scores_of(predictor, clips, bank)))
    found: dict[str, Any] = {}
    for name in rows[0][1]:
        known, unknown = (
            torch.tensor([scores[name] for is_known, scores in rows if is_known is side])
            for side in (True, False)
        )
        value = round(auroc(known, unknown), 3)
        found[name] = {"auroc": value, "interval": interval(known, unknown)}
        print(f"{name:40s} {value} {found[name]['interval']}", flush=True)
    kept = read_json(given.out).get("conclusion", "") if given.out.is_file() else ""
    report = {
        "command": "python -m benchmarks.unknown_scores WINDOWS --shared ../shared",
        "date": datetime.date.today().isoformat(),
        "model": given.model,
        "known": sum(is_known for is_known, _ in rows),
        "unknown": sum(not is_known for is_known, _ in rows),
        "conclusion": kept,
        "scores": found,
    }
    write_json(given.out, report, indent=1)


if __name__ == "__main__":
    main()
