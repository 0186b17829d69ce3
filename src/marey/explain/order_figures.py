"""The figure of an order correction: the directed matrix with its path, and the frames
(DirecFormer, Fig. 4)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from marey.errors import UserError, import_extra
from marey.files import write_figure
from marey.metrics.order import chance_order_accuracy


def draw_order(
    frames: Tensor,
    path: Tensor,
    weights: Tensor,
    out: str | Path,
    *,
    order: Tensor | None = None,
    accuracy: float | None = None,
    title: str = "",
) -> Path:
    """Draw the directed matrix with the recovered path, and the frames as given and as corrected.

    Truong et al., "DirecFormer", CVPR 2022, Fig. 4. Row t, column t' is green where the model puts
    the frame at position t before the one at t', red where after; the numbers are the steps of the
    Hamiltonian path.

    Args:
        frames: uint8, (T, 3, H, W), as given to the model.
        path: int64, (T,), positions in recovered chronological order.
        weights: float, (T, T).
        out: the picture to write, .png, .svg or .pdf.
        order: int64, (T,), the permutation applied; adds the frame numbers, and marks those
            misplaced.
        accuracy: OrderAcc, printed beside its chance level.
        title: first line, such as the video's name.

    Returns:
        `out` as a path.

    Raises:
        UserError: if matplotlib is missing, or the shapes do not belong together.
    """
    T = len(frames)
    if path.shape != (T,) or weights.shape != (T, T):
        raise UserError(
            f"{T} frames need a path of {T} and weights of {T} x {T}, got {tuple(path.shape)} and "
            f"{tuple(weights.shape)}"
        )
    import_extra("matplotlib", "plots", "drawing the order")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 * T + 3.6, 4.2), layout="constrained")
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(3.6, 1.2 * T)))
    draw_matrix(left.subplots(), path, weights)
    score = (
        ""
        if accuracy is None
        else f"OrderAcc {accuracy:.1%} (chance {chance_order_accuracy(T):.1%})"
    )
    figure.suptitle("  ".join(text for text in (title, score) if text), fontsize=10)
    rows = right.subplots(2, T, squeeze=False)
    given = list(range(T))
    for axes, name, positions in ((rows[0], "given", given), (rows[1], "corrected", path.tolist())):
        draw_strip(axes, frames, positions, name, order)
    figure.supxlabel(legend(known=order is not None), fontsize=8)
    out = Path(out)
    write_figure(out, figure, dpi=110)
    return out


def legend(*, known: bool) -> str:
    """Return what the colours and numbers of the figure mean.

    Args:
        known: the true order is known, and the frames bear their numbers in it.
    """
    text = (
        "Matrix: green, the model puts the frame of the row (t) before that of the column (t'); "
        "red, after. Numbers and line: the steps of the order it found."
    )
    if known:
        text += "\nFrames: numbered in their true order; red, earlier than the one before it."
    return text


def draw_matrix(axis: Any, path: Tensor, weights: Tensor) -> None:
    """Draw the directed matrix on matplotlib axes, the steps of the path numbered in their
    cells."""
    largest = max(float(weights.abs().max()), 1e-9)
    axis.imshow(weights.numpy(), cmap="RdYlGn", vmin=-largest, vmax=largest)
    steps = list(itertools.pairwise(path.tolist()))  # edge (t, t') is the cell in row t, column t'
    axis.plot(
        [later for _, later in steps],
        [earlier for earlier, _ in steps],
        "-",
        color="black",
        alpha=0.3,
        lw=0.8,
    )
    for number, (earlier, later) in enumerate(steps, start=1):
        axis.text(
            later,
            earlier,
            str(number),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "circle", "fc": "white", "ec": "black", "lw": 0.6},
        )
    axis.set(
        xlabel="position t'", ylabel="position t", xticks=range(len(path)), yticks=range(len(path))
    )
    axis.set_title("t before t' (green)", fontsize=9)


def draw_strip(
    axes: Any, frames: Tensor, positions: list[int], name: str, order: Tensor | None
) -> None:
    """Draw frames side by side under their position, or the true frame number if known (red where
    not increasing)."""
    previous = -1
    for column, position in enumerate(positions):
        axis = axes[column]
        axis.imshow(frames[position].permute(1, 2, 0).numpy())
        axis.set_xticks([])
        axis.set_yticks([])
        label, colour = f"position {position}", "black"
        if order is not None:
            time = int(order[position])
            label, colour = f"frame {time}", "black" if time > previous else "firebrick"
            previous = time
        axis.set_title(label, fontsize=8, color=colour)
    axes[0].set_ylabel(name, fontsize=9)
