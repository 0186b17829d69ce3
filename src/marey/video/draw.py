"""Drawing text, bars and boxes on frames: white on a dark band, scaled to the frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from marey.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of pictures that can be written."""


PANEL, BAR, NOTE = (22, 24, 29), (33, 94, 140), (255, 214, 120)
"""Colours of a panel, of the bars in it, and of the text of a note."""


def check_picture(path: str | Path) -> None:
    """Check that a picture can be written under a name, before the work begins.

    Raises:
        UserError: if its suffix is none of `PICTURES`.
    """
    if Path(path).suffix.lower() not in PICTURES:
        raise UserError(f"{path}: a picture ends in {', '.join(PICTURES)}; choose one of them")


def clock(seconds: float) -> str:
    """Return a time as people write it: m:ss.s, or h:mm:ss.s from one hour on.

    >>> clock(75.25), clock(3661.0)
    ('1:15.2', '1:01:01.0')
    """
    tenths = int(seconds * 10 + 1e-6)
    hours, rest = divmod(tenths, 36000)
    minutes, tenths = divmod(rest, 600)
    tail = f"{minutes:02d}" if hours else f"{minutes}"
    return f"{hours}:" * bool(hours) + f"{tail}:{tenths // 10:02d}.{tenths % 10}"


def to_image(frame: Tensor) -> Image.Image:
    """Return a uint8 (C, H, W) frame as a PIL image."""
    return Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()))


def to_frame(image: Image.Image) -> Tensor:
    """Return a PIL image as a uint8 (3, H, W) frame."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


MIN_SHOWN = 0.05
"""Answers with a smaller probability are not drawn, but for the first."""


def draw_answers(frame: Tensor, answers: Sequence[tuple[str, float]], note: str = "") -> Tensor:
    """Draw answers with their probabilities as bars in a panel below the frame, of which nothing is
    covered.

    Args:
        frame: uint8, (3, H, W).
        answers: (label, probability) pairs, most probable first; the first is always drawn, others
            from `MIN_SHOWN` on, as many as fit in a panel half as high as the frame.
        note: one line above them, such as a warning that the action is unknown.

    Returns:
        uint8, (3, H + h, W), h even and the same for as many lines.
    """
    size = max(11, frame.shape[-2] // 18)
    font = ImageFont.load_default(size)
    line = int(size * 1.35)
    kept = [pair for place, pair in enumerate(answers) if place == 0 or pair[1] >= MIN_SHOWN]
    kept = kept[: max(1, frame.shape[-2] // 2 // line - bool(note))]
    height = line * (len(kept) + bool(note)) + size // 2
    image = Image.new("RGB", (frame.shape[-1], height + height % 2), PANEL)
    draw = ImageDraw.Draw(image)
    y = size // 4
    if note:
        draw.text((size // 2, y), _fit(draw, note, font, image.width - size), font=font, fill=NOTE)
        y += line
    for label, probability in kept:
        right = max(1, image.width * probability)
        draw.rectangle((0, y, right, y + line - 3), fill=BAR)
        text = _fit(draw, f"{probability:4.0%}  {label}", font, image.width - size)
        draw.text((size // 2, y), text, font=font, fill=(255, 255, 255))
        y += line
    return torch.cat([frame, to_frame(image)], dim=1)


def draw_boxes(
    frame: Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    captions: Sequence[Sequence[str]],
    colours: Sequence[tuple[int, int, int]],
) -> Tensor:
    """Draw one box per person with its caption lines on a dark ground, kept inside the frame.

    Args:
        frame: uint8, (3, H, W).
        boxes_xyxy: pixels, one (x1, y1, x2, y2) per person.
        captions: the lines of text of each person.
        colours: RGB of each person's box.
    """
    image = to_image(frame)
    size = max(11, image.height // 26)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image, "RGBA")
    for box, lines, colour in zip(boxes_xyxy, captions, colours, strict=True):
        draw.rectangle(tuple(box), outline=colour, width=max(2, image.height // 180))
        width = max((draw.textlength(text, font=font) for text in lines), default=0) + size // 2
        height = int(size * 1.25) * len(lines)
        x = min(max(0, box[0]), max(0, image.width - width))
        y = box[1] - height if box[1] >= height else min(box[1], image.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=(0, 0, 0, 175))
        for row, text in enumerate(lines):
            draw.text(
                (x + size // 4, y + int(size * 1.25) * row), text, font=font, fill=(255, 255, 255)
            )
    return to_frame(image)


def draw_skeletons(
    frame: Tensor,
    keypoints: Sequence[Tensor],
    colours: Sequence[tuple[int, int, int]],
    bones: Sequence[tuple[int, int]],
    *,
    min_score: float = 0.2,
) -> Tensor:
    """Draw people as lines between their keypoints.

    Args:
        frame: uint8, (3, H, W).
        keypoints: one (J, 3) per person: x, y in pixels, and score.
        colours: RGB of each person.
        bones: pairs of keypoints joined by a line.
        min_score: keypoints below it are not drawn.
    """
    image = to_image(frame)
    draw = ImageDraw.Draw(image)
    width = max(2, image.height // 160)
    for points, colour in zip(keypoints, colours, strict=True):
        rows = points.tolist()
        for first, second in bones:
            if min(rows[first][2], rows[second][2]) >= min_score:
                draw.line((*rows[first][:2], *rows[second][:2]), fill=colour, width=width)
        for x, y, score in rows:
            if score >= min_score:
                draw.ellipse((x - width, y - width, x + width, y + width), fill=colour)
    return to_frame(image)


def draw_joint_weights(
    frame: Tensor,
    keypoints: Tensor,
    weights: Tensor,
    bones: Sequence[tuple[int, int]],
    *,
    min_score: float = 0.15,
) -> Tensor:
    """Draw one person's skeleton in grey with a disc at each joint, the larger and warmer the
    larger its weight.

    Args:
        frame: uint8, (3, H, W).
        keypoints: (J, 3): x, y in pixels, and score.
        weights: (J,), in [0, 1].
        bones: pairs of keypoints joined by a line.
        min_score: keypoints below it are not drawn.
    """
    image = to_image(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    width = max(2, image.height // 160)
    rows = keypoints.tolist()
    for first, second in bones:
        if min(rows[first][2], rows[second][2]) >= min_score:
            draw.line((*rows[first][:2], *rows[second][:2]), fill=(235, 235, 235), width=width)
    for (x, y, score), weight in zip(rows, weights.tolist(), strict=True):
        if score < min_score:
            continue
        radius = width + weight * image.height / 18
        colour = (255, round(215 * (1 - weight)), 40, round(90 + 140 * weight))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return to_frame(image)


def contact_sheet(
    frames: Tensor, captions: Sequence[str], *, columns: int = 4, width: int = 240, title: str = ""
) -> Image.Image:
    """Lay frames out in rows with a caption below each and a title above.

    Args:
        frames: uint8, (T, 3, H, W).
        captions: one per frame.
        columns: frames a row.
        width: pixels of each frame's width; the height keeps the aspect.
    """
    height = max(1, round(width * frames.shape[-2] / frames.shape[-1]))
    font, title_font = ImageFont.load_default(14), ImageFont.load_default(18)
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    head = 34 if title else 6
    sheet = Image.new(
        "RGB", (columns * (width + 6) + 6, head + rows * (height + 26)), (250, 250, 248)
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text(
            (8, 7),
            _fit(draw, title, title_font, sheet.width - 16),
            font=title_font,
            fill=(20, 20, 20),
        )
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        x, y = 6 + (number % columns) * (width + 6), head + (number // columns) * (height + 26)
        sheet.paste(to_image(frame).resize((width, height), Image.Resampling.BILINEAR), (x, y))
        draw.text(
            (x, y + height + 4), _fit(draw, caption, font, width), font=font, fill=(60, 60, 60)
        )
    return sheet


def _fit(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: float,
) -> str:
    """Shorten a text with an ellipsis until it is no wider than `width` pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
