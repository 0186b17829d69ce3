"""Small charts as inline SVG, so that a page needs no script, no font and no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

BLUE, RED, INK = "#2e86c1", "#c0392b", "#333"


def bars(values: Sequence[float], labels: Sequence[str], *, width: int = 640, height: int = 180) -> str:
    """Draw one bar per value above or below a zero line, positive blue, negative red, with its number."""
    high, low = max(max(values, default=0.0), 0.0), min(min(values, default=0.0), 0.0)
    span = (high - low) or 1.0
    step = width / max(len(values), 1)
    room = height - 44
    zero = 16 + room * high / span
    parts = [_open(width, height), f"<line x1='0' x2='{width}' y1='{zero:.1f}' y2='{zero:.1f}' stroke='#999'/>"]
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        x, size = place * step + 0.15 * step, room * abs(value) / span
        top = zero - size if value >= 0 else zero
        parts.append(f"<rect x='{x:.1f}' y='{top:.1f}' width='{0.7 * step:.1f}' height='{max(size, 0.5):.1f}' "
                     f"fill='{BLUE if value >= 0 else RED}'/>")
        parts.append(_text(x + 0.35 * step, top - 4 if value >= 0 else top + size + 12, f"{value:+.2f}"))
        parts.append(_text(x + 0.35 * step, height - 4, label))
    return "".join([*parts, "</svg>"])


def matrix(values: Sequence[Sequence[float]], *, path: Sequence[int] = (), cell: int = 44) -> str:
    """Draw a signed square matrix, row i looking at column j: blue above zero, red below, stronger when larger.

    Args:
        values: T rows of T values.
        path: places in the order a path visits them; its steps (row, column) are framed.
    """
    size = len(values)
    largest = max((abs(v) for row in values for v in row), default=1.0) or 1.0
    side = cell * (size + 1)
    steps = set(pairwise(path))
    parts = [_open(side, side)]
    for i, row in enumerate(values):
        parts += [_text(cell / 2, (i + 1.6) * cell, str(i)), _text((i + 1.5) * cell, 0.6 * cell, str(i))]
        for j, value in enumerate(row):
            frame = f" stroke='{INK}' stroke-width='2.5'" if (i, j) in steps else ""
            parts.append(f"<rect x='{(j + 1) * cell + 1}' y='{(i + 1) * cell + 1}' width='{cell - 2}' "
                         f"height='{cell - 2}' fill='{BLUE if value >= 0 else RED}' "
                         f"fill-opacity='{0.05 + 0.9 * abs(value) / largest:.2f}'{frame}/>")
            parts.append(_text((j + 1.5) * cell, (i + 1.6) * cell, f"{value:.2f}"))
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float) -> str:
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' "
            f"style='max-width:100%' font-family='system-ui, sans-serif' font-size='11' text-anchor='middle' "
            f"fill='{INK}'>")


def _text(x: float, y: float, text: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}'>{html.escape(text)}</text>"
