"""The papers' figures: SeViTAR's Fig. 1, how separable features are (each panel with two numbers,
since a t-SNE proves nothing), and DirecFormer's Fig. 1, accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError, import_extra
from marey.files import write_figure


def knn_accuracy(features: Tensor, labels: Tensor, neighbours: int = 5) -> float:
    """Return the share of samples whose nearest others, by cosine, mostly have their label
    (leave-one-out), 0..1.

    Each neighbour votes with its cosine; ties go to the lower class number.

    Args:
        features: (N, D), N >= 2.
        labels: int, (N,).
        neighbours: how many vote, at most N - 1.
    """
    unit = F.normalize(features.float(), dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    weights, places = cosine.topk(min(neighbours, len(features) - 1), dim=1)
    votes = torch.zeros(len(features), int(labels.max()) + 1)
    votes.scatter_add_(1, labels[places], weights + 1.0)  # cosine + 1 >= 0
    return float((votes.argmax(1) == labels).double().mean())


def silhouette(features: Tensor, labels: Tensor) -> float:
    """Return the mean silhouette, (b - a) / max(a, b), by cosine distance, in [-1, 1]; 0 for a
    class of one sample.

    Rousseeuw, 1987: a is the mean distance to the own class, b to the nearest other class.

    Raises:
        UserError: if there are fewer than two classes.
    """
    classes = labels.unique()
    if len(classes) < 2:
        raise UserError(
            f"a silhouette compares classes, got {len(classes)}; give samples of at least two"
        )
    unit = F.normalize(features.double(), dim=1)
    distance = (1 - unit @ unit.T).clamp_min(0).fill_diagonal_(0)
    member = (labels[:, None] == classes).double()  # (N, K)
    sizes = member.sum(0)
    sums = distance @ member
    own = member.bool()
    a = sums[own] / (sizes[member.argmax(1)] - 1).clamp_min(1)
    b = (sums / sizes).masked_fill(own, torch.inf).min(1).values
    value = (b - a) / torch.maximum(a, b).clamp_min(1e-12)
    return float(torch.where(sizes[member.argmax(1)] > 1, value, 0.0).mean())


def describe_embedding(features: Tensor, labels: Tensor) -> dict[str, float]:
    """Return "silhouette" and "knn" (5 neighbours, leave-one-out) of features (N, D) in their own
    space."""
    return {"silhouette": silhouette(features, labels), "knn": knn_accuracy(features, labels)}


def project(features: Tensor, kind: str, seed: int = 0) -> Tensor:
    """Return unit features in two dimensions, (N, 2): "pca" (linear), or "tsne" (perplexity 30,
    less for few samples).

    Raises:
        UserError: if scikit-learn is missing.
    """
    unit = F.normalize(features.float(), dim=1)
    if kind == "pca":
        centred = unit - unit.mean(0)
        return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    manifold = import_extra("sklearn.manifold", "plots", "drawing a t-SNE")
    perplexity = min(30.0, max(2.0, (len(features) - 1) / 3))
    drawn = manifold.TSNE(
        2, perplexity=perplexity, init="pca", random_state=seed, metric="cosine"
    ).fit_transform(unit.numpy())
    return torch.from_numpy(drawn)


def draw_embeddings(
    panels: Mapping[str, Tensor],
    labels: Tensor,
    class_names: Sequence[str],
    out: str | Path,
    *,
    seed: int = 0,
) -> Path:
    """Draw features side by side, t-SNE above and PCA below, one colour per class, silhouette and
    k-NN beside each.

    Doshi and Yilmaz, "Semantic Video Transformer", Fig. 1, which has two t-SNE panels and no
    number.

    Args:
        panels: title -> features (N, D) of the same N samples.
        labels: int, (N,).
        class_names: in label order.
        out: .png, .svg or .pdf.

    Returns:
        `out` as a path.

    Raises:
        UserError: if the extra `plots` is missing, or the panels have other samples than the
            labels.
    """
    for title, features in panels.items():
        if features.shape[:1] != labels.shape:
            raise UserError(
                f"panel '{title}' has {len(features)} samples, the labels {len(labels)}; "
                "give the features of the same samples in every panel"
            )
    import_extra("matplotlib", "plots", "drawing embeddings")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(panels), 7.2), layout="constrained")
    axes: Any = figure.subplots(2, len(panels), squeeze=False)
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for column, (title, features) in enumerate(panels.items()):
        numbers = describe_embedding(features, labels)
        for row, kind in enumerate(("tsne", "pca")):
            axis, points = axes[row][column], project(features, kind, seed)
            for label in labels.unique().tolist():
                mine = points[labels == label]
                axis.scatter(
                    mine[:, 0],
                    mine[:, 1],
                    s=7,
                    color=colours[label % len(colours)],
                    label=class_names[label] if row == column == 0 else None,
                )
            axis.set(xticks=[], yticks=[], xlabel={"tsne": "t-SNE", "pca": "PCA"}[kind])
        axes[0][column].set_title(
            f"{title}\nsilhouette {numbers['silhouette']:.2f}, 5-NN {numbers['knn']:.1%}",
            fontsize=10,
        )
    figure.legend(loc="outside lower center", ncols=5, fontsize=7, markerscale=2)
    out = Path(out)
    write_figure(out, figure, dpi=80)
    return out


def draw_cost(points: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """Draw top-1 against the cost of an answer, DirecFormer's Fig. 1.

    Args:
        points: {"name", "gflops" of all views together, "top1" in percent, "own": whether it is the
            paper's own method}.
        out: the picture to write.

    Raises:
        UserError: if matplotlib is missing.
    """
    import_extra("matplotlib", "plots", "drawing accuracy against cost")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for point in points:
        colour = "#1a7f37" if point.get("own") else "#57606a"
        axes.scatter(point["gflops"], point["top1"], color=colour, s=42)
        axes.annotate(
            point["name"],
            (point["gflops"], point["top1"]),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlabel("GFLOPs x views (log scale)")
    axes.set_ylabel("top-1 on Kinetics-400, percent")
    axes.set_title("As the paper's Tables 4 and 5 quote them", fontsize=10)
    axes.margins(0.15)
    out = Path(out)
    write_figure(out, figure, dpi=120)
    return out
