"""How far a model's answers can be trusted, fitted from out-of-fold answers.

    calibration, tensors = fit_trust(logits, embedding, labels, groups)
    judged = judge(logits, embedding, calibration, tensors)

Every number rests on answers of a model that never saw the video's group. What is stored in a
checkpoint: `calibration["trust"]` (JSON) with how it was measured, and tensors whose names start
with "trust_".

Candidate scores for unknown videos, each larger for less known ones, from what decides the answer:

* max_probability: Hendrycks and Gimpel, 2017.
* max_logit: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings",
  2022.
* energy: Liu et al., "Energy-based Out-of-distribution Detection", 2020, Eq. 4, T = 1.
* mahalanobis: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples",
  2018, Eq. 2; ours on the first principal axes of the standardised embedding, because an embedding
  often has more dimensions than there are videos.
* knn: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022; on the same
  axes.
* residual: distance from the space of those axes, standardised (as in Wang et al., "ViM:
  Out-Of-Distribution with Virtual-logit Matching", 2022).
* combined: max_probability and mahalanobis, each in standard deviations of known videos, summed.

Legend: N videos, K classes, D width of the embedding, R principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError
from marey.metrics.calibration import (
    brier_score,
    calibration_noise_floor,
    expected_calibration_error,
    fit_temperature,
)
from marey.metrics.conformal import (
    aps_scores,
    conformal_threshold,
    prediction_sets,
    set_measures,
)
from marey.metrics.selective import aurc, auroc, fpr_at_tpr

MIN_VIDEOS = 40
"""Fewest out-of-fold videos that trust is fitted on."""
MIN_GROUPS = 5
"""Fewest groups for a temperature and a threshold."""
FALSE_ALARM_RATE = 0.05
"""Share of known videos that may be called unknown."""
COVERAGES = (0.8, 0.85, 0.9, 0.95)
"""Shares of known videos whose true class is in the prediction set."""
FOLDS = 5
MAX_AXES = 48
MAX_FITTED = 1500
"""Most videos that near scores are compared on."""
MAX_HIDDEN = 12
"""Most classes that are hidden in turn."""
UNLIKE, UNTAUGHT = "looks unlike the training videos", "an action it was not taught"
"""The two reasons for "unknown"."""
DAMAGED = "looks damaged or unlike the training videos"
"""The warning beside an answer: noise, blur, fog, frozen or broken pictures."""
DISTANCES = ("mahalanobis", "knn", "residual")
NEAR_SCORES = ("max_probability", "max_logit", "energy", "mahalanobis", "knn", "combined")
"""Candidates for actions that were not taught; `residual` only sees other footage."""
COMBINED = ("max_probability", "mahalanobis")
"""Of all sums of near scores the best on rendered people with actions hidden
(`python -m benchmarks.trust`); UT-Interaction, on which it is measured, had no part in it."""
FORMER_COMBINED = ("max_probability", "mahalanobis", "knn")
"""What "combined" was in checkpoints that do not say."""
MARGIN = 0.05
"""AUROC that another near score must gain over "combined" to be chosen: hiding a few classes in
turn compares scores roughly."""
FAR_MARGIN = 0.01
"""AUROC within which far scores count as equal: on a small bank several are perfect."""
FAR_ORDER = (
    "residual",
    "mahalanobis",
    "knn",
    "combined",
    "max_probability",
    "max_logit",
    "energy",
)
"""Of equal far scores the first is taken: what leaves the space of the training videos comes before
what only makes the classes doubtful."""
SCORES = ("max_probability", "max_logit", "energy", *DISTANCES, "combined")
PARTS = ("trust_mean", "trust_std", "trust_axes", "trust_whitening", "trust_means", "trust_bank")

Head = Callable[[Tensor], Tensor]
"""Embeddings (N, D) -> logits (N, K)."""
Refit = Callable[[Tensor, Tensor], Head]
"""Embeddings (N, D) and labels (N,) -> a head fitted on them."""


def spread(values: Tensor, blocks: Sequence[int] = ()) -> Tensor:
    """Return what each dimension of values (N, D) is divided by, (D,): its standard deviation, and
    in a block wider than the others more, so that every block weighs the same."""
    std = values.std(0) + 1e-3
    if len(blocks) < 2:
        return std
    widths = torch.repeat_interleave(torch.tensor(blocks), torch.tensor(blocks)).to(values)
    return std * (widths * len(blocks) / values.shape[1]).sqrt()


def ridge_head(embedding: Tensor, labels: Tensor, blocks: Sequence[int] = ()) -> Head:
    """Fit a linear head by ridge regression on one-hot labels, in dual form.

    Args:
        embedding: float, (N, D).
        labels: int, (N,), 0..K-1, each present.
        blocks: widths of the parts of D, see `spread`.
    """
    values = embedding.double()
    mean, std = values.mean(0), spread(values, blocks)
    standard = (values - mean) / std
    targets = F.one_hot(labels).double()
    kernel = standard @ standard.T / values.shape[1]
    ridge = 0.03 * torch.eye(len(kernel), dtype=torch.double)
    dual = torch.linalg.solve(kernel + ridge, targets - targets.mean(0))
    weight = standard.T @ dual / values.shape[1]  # (D, K)
    scale = 6.0  # logits per unit of a one-hot target
    return lambda new: scale * ((new.double() - mean) / std @ weight + targets.mean(0))


def fit_axes(embedding: Tensor, labels: Tensor, blocks: Sequence[int] = ()) -> dict[str, Tensor]:
    """Return the tensors that `distances` takes, from training embeddings (N, D) and labels (N,).

    The embedding is standardised, projected on its first R principal axes and whitened by the
    shrunk covariance within classes: 0.9 of it and 0.1 of its mean variance.
    """
    values = embedding.double()
    mean, std = values.mean(0), spread(values, blocks)
    standard = (values - mean) / std
    R = max(1, min(MAX_AXES, len(values) // 2, values.shape[1]))
    axes = _principal_axes(standard, R)
    projected = standard @ axes

    classes, own = labels.unique(return_inverse=True)
    means = torch.stack([projected[own == k].mean(0) for k in range(len(classes))])  # (K', R)
    residual = projected - means[own]
    covariance = residual.T @ residual / max(1, len(values) - len(classes))
    shrunk = 0.9 * covariance + 0.1 * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(
        R, dtype=torch.double
    )
    whitening = torch.linalg.inv(torch.linalg.cholesky(shrunk)).T  # (R, R)
    return {
        "trust_mean": mean.float(),
        "trust_std": std.float(),
        "trust_axes": axes.float(),  # (D, R)
        "trust_whitening": whitening.float(),
        "trust_means": (means @ whitening).float(),
        "trust_bank": (projected @ whitening).float(),
    }


def _principal_axes(standard: Tensor, count: int) -> Tensor:
    """Return the first principal axes of standardised values (N, D), (D, count), orthonormal."""
    N, D = standard.shape
    if N >= D:
        return torch.linalg.eigh(standard.T @ standard).eigenvectors[:, -count:].flip(1)
    # With fewer videos than dimensions: Z' U / sqrt(e), where Z Z' = U diag(e) U'.
    eigenvalues, vectors = torch.linalg.eigh(standard @ standard.T)
    largest = eigenvalues[-count:].clamp(min=1e-12).sqrt()
    axes = standard.T @ vectors[:, -count:] / largest
    return torch.linalg.qr(axes.flip(1)).Q


def distances(embedding: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scores of `DISTANCES`, float64 (N,) each, of embeddings (N, D).

    Raises:
        UserError: if the embedding has another size than the stored one.
    """
    if embedding.shape[-1] != len(tensors["trust_mean"]):
        raise UserError(
            f"the embedding has {embedding.shape[-1]} numbers but trust was fitted on "
            f"{len(tensors['trust_mean'])}; use the trust data of the same checkpoint"
        )
    standard = embedding.double() - tensors["trust_mean"].double()
    standard = standard / tensors["trust_std"].double()
    projected = standard @ tensors["trust_axes"].double()  # (N, R)
    white = projected @ tensors["trust_whitening"].double()
    outside = (standard**2).sum(-1) - (projected**2).sum(-1)
    bank = tensors["trust_bank"].double()
    nearest = torch.cdist(white, bank).topk(min(5, len(bank)), largest=False).values
    return {
        "mahalanobis": torch.cdist(white, tensors["trust_means"].double()).min(-1).values,
        "knn": nearest.mean(-1),
        "residual": outside.clamp(min=0).sqrt(),
    }


def logit_scores(logits: Tensor) -> dict[str, Tensor]:
    """Return the scores that need nothing but logits (N, K), float64 (N,) each."""
    logits = logits.double()
    return {
        "max_probability": -logits.softmax(-1).max(-1).values,
        "max_logit": -logits.max(-1).values,
        "energy": -torch.logsumexp(logits, -1),
    }


def raw_scores(
    logits: Tensor, embedding: Tensor, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return every score but "combined", float64 (N,) each.

    Raises:
        UserError: if a logit is no number, or the embedding has another size.
    """
    check_logits(logits)
    return {**logit_scores(logits), **distances(embedding, tensors)}


def trust_features(
    outputs: Mapping[str, Any], calibration: Mapping[str, Any] | None = None
) -> Tensor | None:
    """Return what distances are measured in, (..., D): the outputs that `calibration["trust"]`
    names, side by side; else what decides the answer, "deciding_embedding" or "embedding".

    Returns:
        None where the model returns no embedding.
    """
    names = ((calibration or {}).get("trust") or {}).get("features")
    if names and all(outputs.get(name) is not None for name in names):
        return torch.cat([outputs[name] for name in names], dim=-1)
    return outputs.get("deciding_embedding", outputs.get("embedding"))


def mean_scores(
    logits: Tensor,
    embedding: Tensor | None,
    calibration: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> dict[str, float]:
    """Return the scores of one video, means over its views.

    Args:
        logits: float, (V, K).
        embedding: float, (V, D); None leaves the distances out.
        calibration, tensors: of `fit_trust`; without an embedding not read.
    """
    if embedding is None:
        scores = logit_scores(logits)
    else:
        scores = raw_scores(logits, embedding, tensors)
        trust = calibration["trust"]
        names = trust.get("combined", FORMER_COMBINED)
        scores["combined"] = combine(scores, trust["standard"], names)
    return {name: float(values.mean()) for name, values in scores.items()}


def check_logits(logits: Tensor) -> None:
    """Check that every logit is a finite number.

    Raises:
        UserError: if one is not.
    """
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            "the model answers with NaN or infinite logits; its weights are damaged or training "
            "diverged, so use another checkpoint"
        )


def combine(
    scores: Mapping[str, Tensor],
    standard: Mapping[str, Sequence[float]],
    names: Sequence[str] = COMBINED,
) -> Tensor:
    """Return the sum of some scores in standard deviations of known videos."""
    parts = [(scores[name] - standard[name][0]) / standard[name][1] for name in names]
    return torch.stack(parts).sum(0)


def standard_of(scores: Mapping[str, Tensor], known: Tensor) -> dict[str, list[float]]:
    """Return mean and standard deviation of each score of known videos."""
    return {
        name: [float(values[known].mean()), max(1e-9, float(values[known].std()))]
        for name, values in scores.items()
    }


def group_folds(groups: Sequence[Any], folds: int = FOLDS, seed: int = 0) -> Tensor:
    """Return the fold of each video, int64 (N,); a group is never split."""
    names = sorted(set(groups), key=str)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    fold_of = {name: order[place] % folds for place, name in enumerate(names)}
    return torch.tensor([fold_of[name] for name in groups])


def near_scores(
    embedding: Tensor,
    labels: Tensor,
    fold: Tensor,
    hidden: Sequence[int],
    refit: Refit,
    blocks: Sequence[int] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """Score every video by models that were taught neither its group nor the hidden classes.

    Args:
        embedding: float, (N, D).
        labels: int, (N,).
        fold: int, (N,).
        hidden: classes left out of training.
        refit: fits a head.
        blocks: see `spread`.

    Returns:
        Name -> float64 (N,) for every name of `SCORES`; and which videos are of known classes,
        bool (N,).
    """
    known = ~torch.isin(labels, torch.tensor(list(hidden), dtype=labels.dtype))
    scores = {name: torch.zeros(len(labels), dtype=torch.double) for name in SCORES}
    for number in fold.unique().tolist():
        train, test = (fold != number) & known, fold == number
        _, own = labels[train].unique(return_inverse=True)
        head = refit(embedding[train], own)
        tensors = fit_axes(embedding[train], own, blocks)
        found = raw_scores(head(embedding[test]), embedding[test], tensors)
        for name, values in found.items():
            scores[name][test] = values
    scores["combined"] = combine(scores, standard_of(scores, known))
    return scores, known


def near_measures(
    embedding: Tensor,
    labels: Tensor,
    fold: Tensor,
    refit: Refit = ridge_head,
    blocks: Sequence[int] = (),
) -> dict[str, dict[str, float]] | None:
    """Hide each class in turn and measure how well each score finds its videos.

    Returns:
        Score -> "auroc" and "fpr95", means over the hidden classes; None with two classes, where
        hiding one leaves nothing to tell apart.
    """
    classes, counts = labels.unique(return_counts=True)
    if len(classes) < 3:
        return None
    if len(labels) > MAX_FITTED:
        generator = torch.Generator().manual_seed(0)
        kept = torch.randperm(len(labels), generator=generator)[:MAX_FITTED]
        embedding, labels, fold = embedding[kept], labels[kept], fold[kept]
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in SCORES}
    for label in classes[counts.argsort(descending=True)[:MAX_HIDDEN]].tolist():
        scores, known = near_scores(embedding, labels, fold, [label], refit, blocks)
        for name, values in scores.items():
            rows[name].append(
                (auroc(values[known], values[~known]), fpr_at_tpr(values[known], values[~known]))
            )
    return {
        name: {
            "auroc": sum(a for a, _ in pairs) / len(pairs),
            "fpr95": sum(b for _, b in pairs) / len(pairs),
        }
        for name, pairs in rows.items()
    }


def too_few(num_videos: int, num_groups: int) -> str | None:
    """Say why trust is not fitted, None where there is enough."""
    if num_videos < MIN_VIDEOS:
        return f"not calibrated: {num_videos} videos, at least {MIN_VIDEOS} are needed"
    if num_groups < MIN_GROUPS:
        return f"not calibrated: {num_groups} groups, at least {MIN_GROUPS} are needed"
    return None


def fit_trust(
    logits: Tensor,
    embedding: Tensor,
    labels: Tensor,
    groups: Sequence[Any] | None = None,
    *,
    far: tuple[Tensor, Tensor] | None = None,
    bank: tuple[Tensor, Tensor] | None = None,
    refit: Refit | None = None,
    blocks: Sequence[int] = (),
    set_penalty: float = 0.0,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit temperature, unknown test and prediction sets from out-of-fold answers.

    Args:
        logits: float, (N, K), each of a model that never saw the video's group.
        embedding: float, (N, D), what the head reads.
        labels: int, (N,).
        groups: scene or person of each video; None counts every video as a group.
        far: logits (M, K) and embeddings (M, D) of other footage; chooses the score for it. None:
            residual, unmeasured (mahalanobis, where the axes span the embedding).
        bank: embeddings and labels of the videos that the model was trained on, where they are not
            these: distances are then to them, without cross-fitting.
        refit: fits a head on embeddings without one class, for the near scores; None takes
            `ridge_head`.
        blocks: widths of the parts of D, where several encoders stand side by side, see `spread`.
        set_penalty: of prediction sets by RAPS, see `aps_scores`; 0: APS.

    Returns:
        The checkpoint's calibration (JSON types) and its tensors; with too few videos or groups
        only the reason.
    """
    check_logits(logits)
    names = list(range(len(labels))) if groups is None or None in groups else list(groups)
    N, G = len(labels), len(set(names))
    trust: dict[str, Any] = {"num_videos": N, "num_groups": G, "reason": too_few(N, G)}
    if trust["reason"] is not None:
        return {"calibrated": False, "trust": trust}, {}
    fold = group_folds(names)

    temperature, measured = _temperature(logits, labels, fold)
    calibration: dict[str, Any] = {"calibrated": measured["calibrated"], "trust": trust}
    if temperature != 1:
        calibration["temperature"] = temperature
    trust["calibration"] = measured
    probs = (logits.double() / temperature).softmax(-1)
    trust["set"] = fit_sets(probs, labels, names, fold, set_penalty)

    tensors = fit_axes(*(bank or (embedding, labels)), blocks)
    own_bank = None if bank is None else tensors
    scores = _out_of_fold(logits, embedding, labels, fold, own_bank, blocks)
    trust["standard"] = standard_of(scores, torch.ones(N, dtype=torch.bool))
    trust["combined"] = list(COMBINED)
    scores["combined"] = combine(scores, trust["standard"])
    refit = refit or partial(ridge_head, blocks=blocks)
    trust["unknown"] = _unknown_test(near_measures(embedding, labels, fold, refit, blocks))
    width, R = tensors["trust_axes"].shape
    trust["unknown"] |= {"far_score": "residual" if width > R else "mahalanobis", "far": None}
    if far is not None:
        other = raw_scores(*far, tensors)
        other["combined"] = combine(other, trust["standard"])
        trust["unknown"] |= _far_choice(scores, other)
    trust["unknown"] |= _thresholds(scores, trust["unknown"])
    trust["warning"] = _warning(scores, trust["unknown"])
    return calibration, tensors


def _temperature(logits: Tensor, labels: Tensor, fold: Tensor) -> tuple[float, dict[str, Any]]:
    """Fit a temperature, kept only if other folds' temperatures lower both NLL and ECE."""
    scaled = logits.double().clone()
    for number in fold.unique().tolist():
        test = fold == number
        scaled[test] = logits[test].double() / fit_temperature(logits[~test], labels[~test])
    before, after = logits.double().softmax(-1), scaled.softmax(-1)
    nll = [
        F.cross_entropy(logits.double(), labels).item(),
        F.cross_entropy(scaled, labels).item(),
    ]
    ece = [expected_calibration_error(part, labels) for part in (before, after)]
    kept = nll[1] < nll[0] and ece[1] < ece[0]
    probs = after if kept else before
    confidence, predicted = probs.max(1)
    floor = calibration_noise_floor(confidence)
    measured = {
        "temperature_kept": kept,
        "calibrated": kept or ece[0] <= floor,
        "nll": nll[kept],
        "nll_before": nll[0],
        "ece": ece[kept],
        "ece_before": ece[0],
        "ece_noise_floor": floor,
        "brier": brier_score(probs, labels),
        "brier_before": brier_score(before, labels),
        "aurc": aurc(confidence, predicted == labels),
        "aurc_before": aurc(before.max(1).values, before.argmax(1) == labels),
        "accuracy": float((predicted == labels).double().mean()),
    }
    return (fit_temperature(logits, labels) if kept else 1.0), measured


def _out_of_fold(
    logits: Tensor,
    embedding: Tensor,
    labels: Tensor,
    fold: Tensor,
    tensors: dict[str, Tensor] | None,
    blocks: Sequence[int] = (),
) -> dict[str, Tensor]:
    """Return the raw scores of known videos; distances are to other folds' videos, or to a bank."""
    if tensors is not None:
        return raw_scores(logits, embedding, tensors)
    scores: dict[str, Tensor] = {}
    for number in fold.unique().tolist():
        test = fold == number
        others = fit_axes(embedding[~test], labels[~test], blocks)
        found = raw_scores(logits[test], embedding[test], others)
        for name, values in found.items():
            scores.setdefault(name, torch.zeros(len(labels), dtype=torch.double))[test] = values
    return scores


def _unknown_test(near: dict[str, dict[str, float]] | None) -> dict[str, Any]:
    """Return the chosen near score with how it was measured."""
    best = "combined"
    if near is not None:
        first = max(NEAR_SCORES, key=lambda name: near[name]["auroc"])
        if near[first]["auroc"] > near["combined"]["auroc"] + MARGIN:
            best = first
    return {"near_score": best, "near": near}


def _far_choice(known: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Any]:
    """Return the score that tells other footage best, with the measures of all."""
    measures = {
        name: {
            "auroc": auroc(known[name], other[name]),
            "fpr95": fpr_at_tpr(known[name], other[name]),
        }
        for name in SCORES
    }
    best = max(values["auroc"] for values in measures.values())
    chosen = next(name for name in FAR_ORDER if measures[name]["auroc"] >= best - FAR_MARGIN)
    return {"far_score": chosen, "far": measures}


def _thresholds(scores: dict[str, Tensor], chosen: dict[str, Any]) -> dict[str, Any]:
    """Return thresholds of both scores that together call at most 5 % of known videos unknown."""
    pair = torch.stack([scores[chosen["near_score"]], scores[chosen["far_score"]]], dim=1)
    limits, rate = joint_thresholds(pair)
    return {"near_threshold": limits[0], "far_threshold": limits[1], "false_alarm_rate": rate}


def _warning(scores: dict[str, Tensor], chosen: dict[str, Any]) -> dict[str, Any]:
    """Return thresholds of all distances that together warn of at most 5 % of known videos, those
    that the far score calls unknown among them.

    No distance sees every damage: noise, blur and fog leave the space of the axes (residual),
    pictures that stand still come too near to one another inside it (mahalanobis, knn).
    """
    table = torch.stack([scores[name] for name in DISTANCES], dim=1)
    already = scores[chosen["far_score"]] > chosen["far_threshold"]
    limits, rate = joint_thresholds(table, already, at_most=True)
    return {
        "thresholds": dict(zip(DISTANCES, limits, strict=True)),
        "false_alarm_rate": rate,
    }


def joint_thresholds(
    scores: Tensor, already: Tensor | None = None, *, at_most: bool = False
) -> tuple[list[float], float]:
    """Return one threshold per score, all at the same place of its sorted values, the lowest at
    which at most N - ceil((N + 1) 0.95) videos are above any: the conformal rank.

    With several scores that rank lets a little more than 5 % of new videos through (5.4 to 6.1 % in
    simulations with three), for a new video moves every sorted list by itself, by one place at
    most. With `at_most` the videos are counted one place lower, and the rate is at most 5 % for
    videos that are alike in distribution.

    Args:
        scores: float, (N, S), of known videos.
        already: bool, (N,), videos that count as above whatever the thresholds.
        at_most: whether 5 % is a bound rather than the aim.

    Returns:
        The thresholds and the share of the videos that are above any.
    """
    N = len(scores)
    allowed = max(0, N - math.ceil((N + 1) * (1 - FALSE_ALARM_RATE)))
    ordered = scores.sort(dim=0).values
    places = torch.searchsorted(ordered.T.contiguous(), scores.T.contiguous())  # (S, N)
    highest = places.max(0).values  # a video is above the values of all lower places
    before = torch.zeros(N, dtype=torch.bool) if already is None else already
    reached = int(highest.masked_fill(before, N).sort().values[N - 1 - allowed])
    place = min(reached + int(at_most), N - 1)
    alarms = int(((highest > place) | before).sum())
    return ordered[place].tolist(), alarms / N


def fit_sets(
    probs: Tensor, labels: Tensor, groups: Sequence[Any], fold: Tensor, penalty: float = 0.0
) -> dict[str, Any]:
    """Return thresholds of prediction sets and what sets of 90 % measure whose threshold comes from
    the other folds.

    Args:
        probs: (N, K), out-of-fold.
        labels: int, (N,).
        groups: of each video.
        fold: int, (N,).
        penalty: of RAPS, see `aps_scores`; 0: APS.

    Returns:
        JSON types: "method", "penalty" (of RAPS), "thresholds", "measured".
    """
    own = aps_scores(probs, penalty=penalty).gather(1, labels[:, None])[:, 0]
    thresholds = {str(share): conformal_threshold(own, share, groups) for share in COVERAGES}
    inside = torch.zeros(probs.shape, dtype=torch.bool)
    for number in fold.unique().tolist():
        test = fold == number
        others = [name for name, held in zip(groups, test.tolist(), strict=True) if not held]
        threshold = conformal_threshold(own[~test], 0.9, others)
        inside[test] = prediction_sets(probs[test], threshold, penalty=penalty)
    method = {"method": "raps", "penalty": penalty} if penalty else {"method": "aps"}
    return {
        **method,
        "thresholds": {share: value for share, value in thresholds.items() if math.isfinite(value)},
        "measured": set_measures(inside, labels),
    }


def trust_damage(
    calibration: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]
) -> str | None:
    """Say what is wrong with the stored trust data; None where it is whole, or was never fitted."""
    trust = (calibration or {}).get("trust")
    if trust is None:
        return None
    if not isinstance(trust, dict) or "num_videos" not in trust:
        return "the trust data of this checkpoint is damaged; fit it again"
    if trust.get("reason"):
        return None
    try:
        unknown = trust["unknown"]
        values = [unknown["near_threshold"], unknown["far_threshold"]]
        values += [end for pair in trust["standard"].values() for end in pair]
        values += trust["set"]["thresholds"].values()
        values += (trust.get("warning") or {"thresholds": {}})["thresholds"].values()
        whole = all(math.isfinite(float(value)) for value in values)
        whole &= unknown["near_score"] in SCORES and unknown["far_score"] in SCORES
        whole &= set(trust.get("combined", FORMER_COMBINED)) <= set(trust["standard"])
        whole &= all(bool(torch.isfinite(tensors[name]).all()) for name in PARTS)
        width, R = tensors["trust_axes"].shape
        whole &= tensors["trust_mean"].shape == tensors["trust_std"].shape == (width,)
        whole &= tensors["trust_whitening"].shape == (R, R)
        whole &= tensors["trust_means"].shape[1] == tensors["trust_bank"].shape[1] == R
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        whole = False
    return None if whole else "the trust data of this checkpoint is damaged; fit it again"


def judge(
    logits: Tensor,
    embedding: Tensor,
    calibration: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Say whether a video is unknown and why, from the logits (V, K) and embeddings (V, D) of its
    views.

    Returns:
        JSON types: "unknown", "reason" (`UNLIKE`, `UNTAUGHT` or None), "warning" (`DAMAGED` or
        None), "near_score", "near", "near_threshold", and the same for "far": the scores' names,
        means over views and limits.
    """
    trust = calibration["trust"]
    unknown = trust["unknown"]
    scores = mean_scores(logits, embedding, calibration, tensors)
    near, far = scores[unknown["near_score"]], scores[unknown["far_score"]]
    reason = None
    if far > unknown["far_threshold"]:
        reason = UNLIKE
    elif near > unknown["near_threshold"]:
        reason = UNTAUGHT
    limits = (trust.get("warning") or {"thresholds": {}})["thresholds"]
    damaged = reason == UNLIKE or any(scores[name] > limit for name, limit in limits.items())
    return {
        "unknown": reason is not None,
        "reason": reason,
        "warning": DAMAGED if damaged else None,
        "near_score": unknown["near_score"],
        "near": near,
        "near_threshold": unknown["near_threshold"],
        "far_score": unknown["far_score"],
        "far": far,
        "far_threshold": unknown["far_threshold"],
    }


def set_of(probs: Tensor, calibration: Mapping[str, Any] | None, coverage: float) -> Tensor | None:
    """Return which classes are in the prediction set, bool (K,), of probabilities (K,).

    Returns:
        None where no set of that coverage was fitted.
    """
    stored = ((calibration or {}).get("trust") or {}).get("set") or {}
    threshold = stored.get("thresholds", {}).get(str(coverage))
    if threshold is None:
        return None
    penalty = float(stored.get("penalty", 0.0))
    return prediction_sets(probs[None], float(threshold), penalty=penalty)[0]


def describe_trust(calibration: Mapping[str, Any]) -> str:
    """Say in one line what `fit_trust` found."""
    trust = calibration["trust"]
    if trust["reason"]:
        return str(trust["reason"])
    measured, unknown = trust["calibration"], trust["unknown"]
    temperature = calibration.get("temperature")
    near = unknown["near"] and unknown["near"][unknown["near_score"]]["auroc"]
    return (
        f"out of fold, {trust['num_videos']} videos of {trust['num_groups']} groups: calibration "
        f"error {measured['ece_before']:.3f} -> {measured['ece']:.3f} (noise floor "
        f"{measured['ece_noise_floor']:.3f}), "
        + ("no temperature" if temperature is None else f"temperature {temperature:.2f}")
        + f"; unknown by {unknown['near_score']}"
        + ("" if near is None else f" (AUROC {near:.2f} for a hidden class)")
        + f", false alarms {unknown['false_alarm_rate']:.1%}"
    )
