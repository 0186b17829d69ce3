"""Two detectors on the same images: the difference of their frame mAP with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marey.datasets.ava_format import BoxRows
from marey.metrics.ava import Matched, match

Answers = tuple[BoxRows, BoxRows]
"""Truth and detections of one model on all images."""


def resampled_map(matched: Matched, counts: np.ndarray) -> np.ndarray:
    """Return the mAP of bootstrap samples of the images.

    Args:
        matched: of one model.
        counts: int, (images, B): how often each image is in each sample.

    Returns:
        (B,); NaN where a sample has nobody to find.
    """
    per_class = []
    for number in np.unique(matched.truth_class_ids):
        truth = counts[matched.truth_image[matched.truth_class_ids == number]].sum(axis=0)
        mine = np.flatnonzero(matched.class_ids == number)
        ranked = mine[np.argsort(matched.scores[mine])[::-1]]
        weights = counts[matched.image[ranked]].astype(np.float64)  # (n, B)

        # The area under the precision envelope, as `average_precision`, with weighted images.
        hits = np.cumsum(weights * matched.hit[ranked][:, None], axis=0)
        precision = hits / np.maximum(np.cumsum(weights, axis=0), 1e-12)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        steps = np.diff(hits, axis=0, prepend=0.0)
        area = (steps * envelope).sum(axis=0)
        per_class.append(np.where(truth > 0, area / np.maximum(truth, 1), np.nan))
    return np.nanmean(np.array(per_class), axis=0)


def paired_map_difference(
    first: Sequence[Answers],
    second: Sequence[Answers],
    label_map: Mapping[int, str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the mAP of the first model less that of the second, averaged over seeds.

    The images are drawn with replacement, the same ones for both models and all seeds (a paired
    bootstrap over scenes; the seeds are held fixed).

    Args:
        first, second: one entry per seed, the same seeds in the same order and the same images.

    Returns:
        "difference", "low", "high" (95 %), "p" (two-sided, from the same samples), "per_seed",
        "images".

    Raises:
        ValueError: if the numbers of seeds or of images differ.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} seeds against {len(second)}; expected as many, at least 1")
    pairs = [
        tuple(match(truth, found, label_map) for truth, found in pair)
        for pair in zip(first, second, strict=True)
    ]
    sizes = {matched.num_images for pair in pairs for matched in pair}
    if len(sizes) != 1:
        raise ValueError(f"answers on {sorted(sizes)} images; expected the same images")
    (images,) = sizes

    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples).T
    everything = np.ones((images, 1), np.int64)
    observed = [
        float(resampled_map(a, everything)[0] - resampled_map(b, everything)[0]) for a, b in pairs
    ]
    differences = np.mean(
        [resampled_map(a, drawn) - resampled_map(b, drawn) for a, b in pairs], axis=0
    )
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(float((differences <= 0).mean()), float((differences >= 0).mean()))
    return {
        "difference": float(np.mean(observed)),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, max(2 * tail, 1 / resamples)),
        "per_seed": observed,
        "images": images,
    }
