"""Figures of an Action Transformer: its keys and attention for one person, and its best and worst
detections.

Girdhar et al., "Video Action Transformer Network", CVPR 2019: Fig. 4 (key embeddings as colours,
attention of one person), Fig. 6 (top predictions per class), Fig. 7 (failures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from marey.datasets.ava import AvaIndex
from marey.datasets.ava_clips import AvaDataset, clip_indices
from marey.errors import UserError
from marey.inference.detector import Detector
from marey.models.action_transformer import postprocess
from marey.video.decode import open_video
from marey.video.draw import contact_sheet, draw_boxes

RIGHT, WRONG, TRUE = (90, 220, 90), (255, 80, 70), (255, 255, 255)


def pca_colours(embeddings: Tensor) -> Tensor:
    """Project vectors to their first three principal components, as red, green and blue in one
    common scale.

    Args:
        embeddings: float, (..., D).

    Returns:
        (..., 3) in [0, 1]; near colours are near embeddings. The sign of a component is fixed by
        its largest weight.
    """
    flat = embeddings.reshape(-1, embeddings.shape[-1]).float()
    centred = flat - flat.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    parts = centred @ axes.T
    low, high = parts.quantile(0.02, dim=0), parts.quantile(0.98, dim=0)
    colours = ((parts - low) / (high - low).max().clamp(min=1e-6)).clamp(0, 1)
    colours = F.pad(colours, (0, 3 - colours.shape[1]))
    return colours.reshape(*embeddings.shape[:-1], 3)


@torch.no_grad()
def key_colours(detector: Detector, features: Tensor, layer: int = -1) -> list[Tensor]:
    """Return per head of a layer the colours (t, h, w, 3) of one clip's keys (Fig. 4, left).

    Raises:
        UserError: if the model has no Tx head.
    """
    if detector.model.tx is None:
        raise UserError("this detector has an I3D head only, which has no keys and no attention")
    return [pca_colours(keys[0]) for keys in detector.model.tx.key_embeddings(features)[layer]]


@torch.no_grad()
def explain_person(
    detector: Detector, video: str | Path, seconds: float, out: str | Path, person: int = 0
) -> dict[str, object]:
    """Draw what one person's query attends to: frames, key colours per head, attention per head of
    the last layer.

    Args:
        detector: with a Tx head.
        video: file or frame folder.
        seconds: key frame.
        out: picture to write (.png).
        person: which person, 0 the most certain one.

    Returns:
        {"persons", "actions", "attention_in_box": share of the attention that falls into the
        person's box, per head}.

    Raises:
        UserError: if there is no such person at that time, or no Tx head.
    """
    with open_video(video) as reader:
        index = reader.indices_at_seconds([seconds])[0]
        indices = clip_indices(index, reader.num_frames, reader.fps, detector.preprocess)
        clip = reader.frames_at([*indices, index], held=len(indices) + 1)
    frames, path = clip.frames[:-1], str(video)
    boxes, _, probabilities = detector.detect(frames, clip.frames[-1], path, seconds)
    if not person < len(boxes):
        raise UserError(
            f"{path}: {len(boxes)} persons found at {seconds:g} s, person {person} was asked for"
        )
    features = detector.model.features(detector.preprocess.clip(frames).to(detector.device))
    colours = key_colours(detector, features)
    size = (detector.preprocess.image_size,) * 2
    outputs = detector.model.detect_from_features(
        features, size, [boxes[person : person + 1]], return_attention=True
    )
    attention = outputs["attention_space_time"][-1][0].cpu()  # (heads, t, h, w)
    sheet = _sheet(frames, boxes[person], colours, attention)
    name = detector.checkpoint.class_names[int(probabilities[person].argmax())]
    columns = 1 + len(colours) + len(attention)
    contact_sheet(
        sheet,
        _captions(len(sheet), len(colours), len(attention)),
        columns=columns,
        width=200,
        title=f"{name} {float(probabilities[person].max()):.0%}",
    ).save(out)
    return {
        "persons": len(boxes),
        "actions": name,
        "attention_in_box": [
            round(share, 4) for share in attention_in_box(attention, boxes[person])
        ],
    }


def attention_in_box(attention: Tensor, box_xyxy_norm: Tensor) -> list[float]:
    """Return per head the share of attention (heads, t, h, w) that falls into a box, whatever the
    time."""
    _, _, h, w = attention.shape
    y, x = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
    inside = ((y >= box_xyxy_norm[1]) & (y < box_xyxy_norm[3]))[:, None] & (
        (x >= box_xyxy_norm[0]) & (x < box_xyxy_norm[2])
    )[None]
    return (attention * inside).sum((1, 2, 3)).div(attention.sum((1, 2, 3))).tolist()


def _sheet(frames: Tensor, box: Tensor, colours: list[Tensor], attention: Tensor) -> Tensor:
    """Rows of pictures, one row per feature step: frame with box, keys per head, attention per
    head."""
    H = max(200, frames.shape[-2])
    W = round(H * frames.shape[-1] / frames.shape[-2])
    big = (
        F.interpolate(frames.float(), size=(H, W), mode="bilinear", antialias=True)
        .round()
        .clamp(0, 255)
        .byte()
    )
    steps = attention.shape[1]
    scaled = (box * torch.tensor([W, H, W, H])).tolist()
    pictures = []
    for step in range(steps):
        frame = big[min(int((step + 0.5) * len(frames) / steps), len(frames) - 1)]
        pictures.append(draw_boxes(frame, [scaled], [[]], [WRONG]))
        for keys in colours:
            pictures.append(_enlarge(rearrange(keys[step], "h w c -> c h w") * 255, H, W))
        for head in attention:
            heat = _enlarge(head[step][None] / head.max().clamp(min=1e-9), H, W, as_byte=False)
            glow = torch.tensor([255.0, 220.0, 40.0])[:, None, None] * heat
            pictures.append(
                (frame.float() * (0.35 + 0.65 * heat) * 0.7 + glow * 0.45)
                .round()
                .clamp(0, 255)
                .byte()
            )
    return torch.stack(pictures)


def _enlarge(picture: Tensor, H: int, W: int, as_byte: bool = True) -> Tensor:
    big = F.interpolate(picture[None].float(), size=(H, W), mode="bilinear", align_corners=False)[0]
    return big.round().clamp(0, 255).byte() if as_byte else big


def _captions(count: int, keys: int, heads: int) -> list[str]:
    row = [
        "frame",
        *(f"keys, head {n + 1}" for n in range(keys)),
        *(f"attention, head {n + 1}" for n in range(heads)),
    ]
    return (row * (count // len(row) + 1))[:count]


# ---- galleries
# ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One answer in a gallery."""

    key_frame: int
    """Number of the key frame in the index."""
    box_xyxy_norm: Tensor
    score: float
    right: bool
    """The box overlaps a person of this class by half or more."""
    truth: str
    """The labels of the person in the box, or "nobody"."""


@torch.no_grad()
def detect_all(
    detector: Detector, index: AvaIndex, limit: int | None = None
) -> list[dict[str, Tensor]]:
    """Return the persons found in each key frame, as `postprocess` does.

    Args:
        limit: use only the first so many key frames.

    Raises:
        UserError: if model and data have other classes.
    """
    if tuple(index.class_names) != detector.class_names:
        raise UserError(
            f"the model's classes ({', '.join(detector.class_names)}) are not the data's "
            f"({', '.join(index.class_names)})"
        )
    dataset = AvaDataset(index, detector.preprocess)
    found = []
    for number in range(len(index.key_frames[:limit])):
        outputs = detector.model(dataset[(0, number)]["clip"][None].to(detector.device))
        found += postprocess(outputs, nms_threshold=detector.model.head_nms)
    return found


def class_answers(
    detected: Sequence[dict[str, Tensor]], index: AvaIndex, label: str
) -> list[Shown]:
    """Return every detection of one class, most certain first.

    Args:
        detected: of the first key frames of `index` (`detect_all`).

    Raises:
        UserError: if the class is unknown.
    """
    names = list(index.class_names)
    if label not in names:
        raise UserError(
            f"class '{label}' is not among the classes that model and data share: "
            f"{', '.join(names)}"
        )
    class_index, found = names.index(label), []
    for number, (key, persons) in enumerate(zip(index.key_frames, detected, strict=False)):
        boxes = persons["boxes_xyxy_norm"].cpu()
        overlap = (
            box_iou(boxes, key.boxes_xyxy_norm)
            if len(key.boxes_xyxy_norm)
            else torch.zeros(len(boxes), 1)
        )
        for box, score, row in zip(
            boxes, persons["scores"][:, class_index].tolist(), overlap, strict=True
        ):
            there = len(key.boxes_xyxy_norm) > 0 and float(row.max()) >= 0.5
            labels = key.labels[int(row.argmax())] if there else torch.zeros(len(names))
            truth = (
                ", ".join(names[k] for k in torch.where(labels > 0)[0].tolist())
                if there
                else "nobody"
            )
            found.append(
                Shown(
                    key_frame=number,
                    box_xyxy_norm=box,
                    score=score,
                    right=bool(labels[class_index] > 0),
                    truth=truth,
                )
            )
    return sorted(found, key=lambda shown: -shown.score)


def gallery(
    detector: Detector, index: AvaIndex, answers: Sequence[Shown], title: str
) -> Image.Image:
    """Draw answers on their key frames: green where right, red where wrong, with what is really
    there below."""
    dataset, pictures, captions = AvaDataset(index, detector.preprocess), [], []
    for shown in answers:
        frames = dataset.frames(index.key_frames[shown.key_frame])
        frame = frames[len(frames) // 2]
        scale = max(1, -(-240 // frame.shape[-1]))
        big = F.interpolate(
            frame[None].float(), scale_factor=scale, mode="bilinear", align_corners=False
        )[0]
        H, W = big.shape[-2:]
        box = (shown.box_xyxy_norm * torch.tensor([W, H, W, H])).tolist()
        pictures.append(
            draw_boxes(
                big.round().clamp(0, 255).byte(),
                [box],
                [[f"{shown.score:.0%}"]],
                [RIGHT if shown.right else WRONG],
            )
        )
        captions.append(f"truth: {shown.truth}")
    if not pictures:
        raise UserError(f"{title}: nothing to show")
    return contact_sheet(torch.stack(pictures), captions, columns=6, width=200, title=title)


def top_predictions(
    detector: Detector,
    index: AvaIndex,
    label: str,
    out: str | Path,
    count: int = 6,
    limit: int | None = None,
) -> list[Shown]:
    """Write the most certain answers of a class (Fig. 6)."""
    best = class_answers(detect_all(detector, index, limit), index, label)[:count]
    gallery(detector, index, best, f"most certain: {label}").save(out)
    return best


def failures(
    detector: Detector,
    index: AvaIndex,
    label: str,
    out: str | Path,
    count: int = 6,
    limit: int | None = None,
) -> list[Shown]:
    """Write the most certain wrong answers of a class (Fig. 7): confused actions, wrong persons,
    nobody there."""
    answers = class_answers(detect_all(detector, index, limit), index, label)
    wrong = [shown for shown in answers if not shown.right][:count]
    gallery(detector, index, wrong, f"wrong, most certain first: {label}").save(out)
    return wrong
