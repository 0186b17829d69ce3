"""GAP@20, MAP, PERR and Hit@1 as the official YouTube-8M evaluator computes them.

Source: youtube-8m starter code (October 2019), `eval_util.py`, `average_precision_calculator.py`.

Ties. The official code breaks ties by a seeded shuffle of a heap, so its result depends on the
order of the batches. Ours does not: between equal scores average precision is the exact mean over
all orders of the tied items, and where a tie lies across the cut of the top k, the lower class
index stays. Without ties both are equal. Scores are compared in the type they come in: float16
scores that are equal in float16 are ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marey.errors import UserError

METRICS = ("gap", "map", "perr", "hit_at_1")
"""The four numbers of the paper's Table 1, as fractions."""


def average_precision(
    scores: ArrayLike, labels: ArrayLike, num_positives: int | None = None, top_n: int | None = None
) -> float:
    """Average the precision at every positive of a ranked list, without interpolation.

    AP = (1/P) sum over positives at rank i of (positives up to i) / i. Tied scores give the mean
    over their orders.

    Args:
        scores: (N,), higher ranks first.
        labels: (N,), positive where > 0.
        num_positives: P, when positives exist beyond this list; None counts those of the list.
        top_n: use the first n ranks only; P becomes min(P, n).

    Returns:
        A fraction; 0 where P is 0.
    """
    scores, positive = np.asarray(scores), np.asarray(labels) > 0
    if scores.shape != positive.shape or scores.ndim != 1:
        raise UserError(
            f"average_precision takes two lists of one length, got {scores.shape} and "
            f"{positive.shape}"
        )
    total = int(positive.sum()) if num_positives is None else int(num_positives)
    total = total if top_n is None else min(total, top_n)
    if total == 0 or scores.size == 0:
        return 0.0
    order = np.argsort(scores, kind="stable")[::-1]
    ranked, hit = scores[order], positive[order].astype(np.int64)
    first = np.flatnonzero(
        np.concatenate([[True], ranked[1:] != ranked[:-1]])
    )  # start of every tie group
    size = np.diff(np.append(first, ranked.size))
    hits_in_group = np.add.reduceat(hit, first)
    hits_before = np.cumsum(hits_in_group) - hits_in_group

    # For each item: size of its tie group, hits in it, hits before it, and the rank where it
    # starts.
    n, p, c, r = (np.repeat(values, size) for values in (size, hits_in_group, hits_before, first))
    rank_in_group = np.arange(ranked.size) - r  # from 0
    earlier = c + rank_in_group * (p - 1) / np.maximum(n - 1, 1)
    gain = (p / n) * (1 + earlier) / (r + rank_in_group + 1)
    return float(gain[:top_n].sum() / total)


def top_k_classes(predictions: NDArray, k: int) -> NDArray:
    """Return the k best classes of every row, best first; equal scores keep the lower class index
    first.

    Args:
        predictions: (N, K) scores.
        k: at most K are returned.

    Returns:
        (N, min(k, K)) int class indices.
    """
    num_classes = predictions.shape[1]
    k = min(k, num_classes)
    if k == 0:
        return np.zeros((len(predictions), 0), dtype=np.int64)
    cut = np.partition(predictions, num_classes - k, axis=1)[
        :, num_classes - k
    ]  # the k-th best score
    above = predictions > cut[:, None]
    tied = predictions == cut[:, None]
    room = k - above.sum(1, keepdims=True)
    kept = above | (tied & (np.cumsum(tied, axis=1) <= room))
    classes = np.nonzero(kept)[1].reshape(len(predictions), k)
    scores = np.take_along_axis(predictions, classes, 1)
    order = np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]  # stable from the right
    return np.take_along_axis(classes, k - 1 - order, 1)


def _check(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray, NDArray]:
    scores, positive = np.asarray(predictions), np.asarray(labels) > 0
    if scores.ndim != 2 or scores.shape != positive.shape:
        raise UserError(
            f"predictions and labels must both be (videos, classes), got {scores.shape} and "
            f"{positive.shape}"
        )
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise UserError(
            f"prediction of video {row}, class {column} is {scores[row, column]}: only finite "
            "scores can be ranked; look for a diverged training or damaged features"
        )
    return scores, positive


def hits_at_1(scores: NDArray, positive: NDArray) -> NDArray:
    """Return for every video whether its best class is one of its labels (a video without labels
    counts as a miss)."""
    return positive[np.arange(len(scores)), scores.argmax(1)]


def precisions_at_equal_recall(scores: NDArray, positive: NDArray) -> NDArray:
    """Return for every video the precision among its n best classes, n its number of labels; 0
    where n is 0.

    As officially, a class whose score is not above 0 never counts.
    """
    num_labels = positive.sum(1)
    best = top_k_classes(scores, int(num_labels.max(initial=0)))
    hit = np.take_along_axis(positive, best, 1) & (np.take_along_axis(scores, best, 1) > 0)
    hit &= np.arange(best.shape[1])[None] < num_labels[:, None]
    return hit.sum(1) / np.maximum(num_labels, 1)


class YouTube8MEvaluator:
    """Gather batches, keep the top 20 classes of every video, and compute the metrics at the end.

    Memory is about 140 bytes plus the labels a video, whatever the number of classes; results do
    not depend on how the videos are cut into batches or over processes.
    """

    main = "gap"

    def __init__(self, num_classes: int, top_k: int = 20, top_n: int | None = None) -> None:
        """Start empty.

        Args:
            num_classes: K.
            top_k: classes kept a video (official: 20).
            top_n: ranks that count in a class's AP (official: all).
        """
        self.num_classes, self.top_k, self.top_n = num_classes, top_k, top_n
        self._batches: list[dict[str, NDArray]] = []

    def update(self, predictions: ArrayLike, labels: ArrayLike) -> None:
        """Add a batch: scores (N, K) and labels (N, K), positive where > 0.

        Raises:
            UserError: if the shapes differ, K is not the evaluator's, or a score is not finite.
        """
        scores, positive = _check(predictions, labels)
        if scores.shape[1] != self.num_classes:
            raise UserError(
                f"got scores for {scores.shape[1]} classes, expected {self.num_classes}"
            )
        classes = top_k_classes(scores, self.top_k)
        self._batches.append(
            {
                "scores": np.take_along_axis(scores, classes, 1),
                "classes": classes.astype(np.int32),
                "positive": np.take_along_axis(positive, classes, 1),
                "hit": hits_at_1(scores, positive),
                "perr": precisions_at_equal_recall(scores, positive),
                "num_labels": positive.sum(1).astype(np.int32),
                "labels": np.nonzero(positive)[1].astype(np.int32),
            }
        )

    def state(self) -> dict[str, NDArray]:
        """Return the gathered values as arrays, to be sent between processes."""
        if not self._batches:
            raise UserError("no video was evaluated; the data set or split is empty")
        merged = {
            key: np.concatenate([batch[key] for batch in self._batches]) for key in self._batches[0]
        }
        self._batches = [merged]
        return merged

    def merge(self, states: Sequence[Mapping[str, NDArray]]) -> YouTube8MEvaluator:
        """Add the values gathered by other processes (their `state()`)."""
        self._batches += [dict(state) for state in states]
        return self

    @property
    def num_videos(self) -> int:
        """Number of videos added."""
        return sum(len(batch["hit"]) for batch in self._batches)

    def compute(self, videos: NDArray | slice | None = None) -> dict[str, float]:
        """Return `gap`, `map`, `perr`, `hit_at_1`, `num_videos` and `num_classes`, over all or some
        videos (a slice, a mask, or numbers, which may repeat).

        Raises:
            UserError: if no video has a label.
        """
        if not self.state()["num_labels"].any():
            raise UserError(
                f"none of the {self.num_videos} videos has a label, so nothing can be scored (the "
                "official test shards are unlabelled); evaluate on labelled videos"
            )
        state = self._select(videos)
        positives = np.bincount(state["labels"], minlength=self.num_classes)
        gap = average_precision(
            state["scores"].ravel(), state["positive"].ravel(), int(positives.sum())
        )
        per_class = self._per_class(state, positives)
        return {
            "gap": gap,
            "map": float(np.mean(list(per_class.values()))) if per_class else 0.0,
            "perr": float(state["perr"].mean()),
            "hit_at_1": float(state["hit"].mean()),
            "num_videos": len(state["hit"]),
            "num_classes": len(per_class),
        }

    def per_class_average_precision(self) -> dict[int, float]:
        """Return the AP of every class that has a positive, by class index (the terms of MAP)."""
        state = self._select(None)
        return self._per_class(state, np.bincount(state["labels"], minlength=self.num_classes))

    def partitions(self, count: int = 5) -> dict[str, dict[str, float]]:
        """Return mean and standard deviation of each metric over equal parts of the videos (the
        paper's Table 1).

        Parts are consecutive runs of videos in the order they were added; the standard deviation
        divides by n - 1.
        """
        if self.num_videos < count:
            raise UserError(f"{self.num_videos} videos cannot be cut into {count} parts")
        parts = [self.compute(rows) for rows in np.array_split(np.arange(self.num_videos), count)]
        return {
            name: {
                "mean": float(np.mean([part[name] for part in parts])),
                "std": float(np.std([part[name] for part in parts], ddof=1)) if count > 1 else 0.0,
            }
            for name in METRICS
        }

    def _select(self, videos: NDArray | slice | None) -> dict[str, NDArray]:
        state = self.state()
        if videos is None:
            return state
        chosen = np.arange(len(state["hit"]))[videos]
        ends = np.cumsum(state["num_labels"])
        starts = ends - state["num_labels"]
        labels = [state["labels"][starts[row] : ends[row]] for row in chosen]
        return {
            key: np.concatenate([values[:0], *labels]) if key == "labels" else values[chosen]
            for key, values in state.items()
        }

    def _per_class(self, state: Mapping[str, NDArray], positives: NDArray) -> dict[int, float]:
        order = np.argsort(state["classes"], axis=None, kind="stable")
        classes, scores, hits = (
            state[key].ravel()[order] for key in ("classes", "scores", "positive")
        )
        bounds = np.searchsorted(classes, np.arange(self.num_classes + 1))
        return {
            int(k): average_precision(
                scores[bounds[k] : bounds[k + 1]],
                hits[bounds[k] : bounds[k + 1]],
                int(positives[k]),
                self.top_n,
            )
            for k in np.flatnonzero(positives)
        }


def youtube8m_metrics(
    predictions: ArrayLike, labels: ArrayLike, top_k: int = 20, top_n: int | None = None
) -> dict[str, float]:
    """Return the official YouTube-8M metrics of one array of predictions.

    Args:
        predictions: (N, K) scores in any float type.
        labels: (N, K), positive where > 0.
        top_k: classes kept a video for GAP and MAP.
        top_n: ranks that count in a class's AP; None counts all.

    Returns:
        `gap`, `map`, `perr`, `hit_at_1` as fractions, `num_videos`, and `num_classes` (those MAP is
        the mean over).

    Raises:
        UserError: if the shapes differ or a score is not finite.
    """
    scores, positive = _check(predictions, labels)
    evaluator = YouTube8MEvaluator(scores.shape[1], top_k, top_n)
    evaluator.update(scores, positive)
    return evaluator.compute()


def best_and_worst_classes(
    ours: Mapping[int, float],
    baseline: Mapping[int, float],
    names: Sequence[str] | None = None,
    count: int = 5,
) -> dict[str, list[dict[str, Any]]]:
    """List the classes one model gains and loses most on against another (Fig. 8).

    Args:
        ours, baseline: AP by class index, from `per_class_average_precision`, over the same videos.
        names: class names, if the rows should carry them.
        count: rows in either list.

    Returns:
        {"best": [...], "worst": [...]}, rows {"class", "ours", "baseline", "gain"}, largest gain
        first and smallest gain first.
    """
    if set(ours) != set(baseline):
        raise UserError(
            f"the two models were not measured on the same videos: {len(ours)} and {len(baseline)} "
            f"classes have a positive, {len(set(ours) & set(baseline))} in common"
        )
    order = sorted(ours, key=lambda k: baseline[k] - ours[k])
    ranked = [
        {
            "class": names[k] if names else k,
            "ours": ours[k],
            "baseline": baseline[k],
            "gain": ours[k] - baseline[k],
        }
        for k in order
    ]
    return {"best": ranked[:count], "worst": ranked[::-1][:count]}


def paired_gap_difference(
    ours: Sequence[YouTube8MEvaluator],
    baseline: Sequence[YouTube8MEvaluator],
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the GAP of two kinds of models on the same videos, one model of each a seed.

    The interval is a percentile bootstrap over videos and seeds together. The p-value is that of a
    permutation test over videos: under no difference, which of two models gave a video's answers
    does not matter; the exchange is the same at every seed.

    Args:
        ours, baseline: evaluators filled with the same videos in the same order, one a seed.
        repeats: of the bootstrap and of the test.
        seed: of both.

    Returns:
        "difference": mean over seeds, a fraction; "low" and "high": 95 % interval; "p_value",
        two-sided.

    Raises:
        UserError: if the numbers of seeds or of videos differ.
    """
    sizes = {one.num_videos for one in (*ours, *baseline)}
    if len(ours) != len(baseline) or len(sizes) != 1:
        raise UserError(
            f"paired models must have answered the same videos: {len(ours)} and {len(baseline)} "
            f"seeds, {', '.join(map(str, sorted(sizes)))} videos"
        )
    pairs = [(one.state(), other.state()) for one, other in zip(ours, baseline, strict=True)]
    N, S = sizes.pop(), len(pairs)
    every = np.arange(N)
    differences = np.array([_gap(a, every) - _gap(b, every) for a, b in pairs])
    generator = np.random.default_rng(seed)

    drawn = []
    for _ in range(repeats):
        rows = generator.integers(N, size=N)
        seeds = generator.integers(S, size=S)
        drawn.append(np.mean([_gap(pairs[s][0], rows) - _gap(pairs[s][1], rows) for s in seeds]))

    as_extreme = 0
    for _ in range(repeats):
        swapped = generator.random(N) < 0.5
        exchanged = [
            _gap(_mixed(b, a, swapped), every) - _gap(_mixed(a, b, swapped), every)
            for a, b in pairs
        ]
        as_extreme += abs(np.mean(exchanged)) >= abs(differences.mean()) - 1e-12

    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "difference": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": (as_extreme + 1) / (repeats + 1),
    }


def _gap(state: Mapping[str, NDArray], rows: NDArray) -> float:
    """Return the GAP over some videos, which may repeat."""
    return average_precision(
        state["scores"][rows].ravel(),
        state["positive"][rows].ravel(),
        int(state["num_labels"][rows].sum()),
    )


def _mixed(
    ours: Mapping[str, NDArray], theirs: Mapping[str, NDArray], take: NDArray
) -> dict[str, NDArray]:
    """Return one model's answers where `take` (N,) is True, the other's elsewhere."""
    return {
        key: np.where(take[:, None], ours[key], theirs[key]) for key in ("scores", "positive")
    } | {"num_labels": ours["num_labels"]}
