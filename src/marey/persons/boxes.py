"""Sources of person boxes besides the model's own proposals: torchvision, OpenCV's HOG, or a
file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.models import detection, list_models
from torchvision.ops import nms

from marey.datasets.ava import read_predicted_boxes
from marey.errors import UserError, import_extra, unknown_name


class PersonFinder(Protocol):
    """Finds the persons of one frame."""

    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return boxes (P, 4) in [0, 1] and scores (P,) for a uint8 (3, H, W) frame."""
        ...


class HogPersons:
    """OpenCV's built-in upright-pedestrian detector (Dalal & Triggs, CVPR 2005): nothing to
    download.

    It finds upright people of at least about 100 pixels; smaller frames are enlarged first.
    """

    def __init__(self, min_weight: float = 0.3) -> None:
        self.cv2 = import_extra("cv2", "tracking", "finding persons with HOG")
        self.min_weight = min_weight
        self.detector = self.cv2.HOGDescriptor()
        self.detector.setSVMDetector(self.cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return boxes and SVM margins squashed to (0, 1)."""
        image = frame.permute(1, 2, 0).contiguous().numpy()
        height, width = image.shape[:2]
        scale = min(2.0, max(1.0, 800 / max(height, width)))
        if max(height, width) * scale < 256:
            scale = 256 / max(height, width)
        bigger = self.cv2.resize(image, None, fx=scale, fy=scale) if scale != 1 else image
        found, weights = self.detector.detectMultiScale(
            bigger, winStride=(8, 8), padding=(8, 8), scale=1.05
        )
        if not len(found):
            return torch.zeros(0, 4), torch.zeros(0)
        x, y, w, h = torch.as_tensor(found, dtype=torch.float32).T / scale
        margin = torch.as_tensor(weights, dtype=torch.float32).reshape(-1)
        # HOG windows have a margin of about an eighth around the person
        boxes = torch.stack([x + w / 8, y + h / 16, x + w - w / 8, y + h - h / 16], dim=1)
        boxes = (boxes / torch.tensor([width, height, width, height])).clamp(0, 1)
        keep = torch.where(margin >= self.min_weight)[0]
        keep = keep[nms(boxes[keep], margin[keep], 0.4)]
        return boxes[keep], margin[keep].sigmoid()


class TorchvisionPersons:
    """A COCO detector of torchvision, such as fasterrcnn_mobilenet_v3_large_320_fpn; downloads its
    weights once."""

    def __init__(
        self, name: str, *, min_score: float = 0.5, weights: str | None = "DEFAULT"
    ) -> None:
        known = list_models(module=detection)
        if name not in known:
            raise unknown_name("torchvision detector", name, known)
        try:
            self.model = getattr(detection, name)(weights=weights, weights_backbone=None).eval()
        except OSError as error:  # urllib's errors are OSErrors
            raise UserError(
                f"torchvision:{name}: its weights cannot be downloaded ({error}); put the file "
                "into "
                "torch's hub cache, or use --persons hog or a CSV of boxes"
            ) from error
        self.min_score = min_score

    @torch.no_grad()
    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return boxes of COCO class 1 ("person")."""
        detections: dict[str, Any] = self.model([frame.float() / 255])[0]
        keep = (detections["labels"] == 1) & (detections["scores"] >= self.min_score)
        H, W = frame.shape[-2:]
        return (detections["boxes"][keep] / torch.tensor([W, H, W, H])).clamp(0, 1), detections[
            "scores"
        ][keep]


class FilePersons:
    """Boxes from a CSV, `video,second,x1,y1,x2,y2,,score`; the video is named by its file name
    without suffix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.boxes = read_predicted_boxes(path, min_score=0.0)
        with open(path, newline="", encoding="utf-8") as file:
            self.videos = {row[0] for row in csv.reader(file) if row}

    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return the boxes of the second nearest to `seconds`, at most half a second away."""
        stem = Path(video).stem
        if stem not in self.videos:
            raise UserError(
                f"{self.path}: no boxes of video '{stem}'; it has "
                f"{', '.join(sorted(self.videos)[:5])}"
            )
        near = [key for key in self.boxes if key[0] == stem and abs(key[1] - seconds) <= 0.5]
        if not near:
            return torch.zeros(0, 4), torch.zeros(0)
        boxes = self.boxes[min(near, key=lambda key: abs(key[1] - seconds))]
        return boxes, torch.ones(len(boxes))
