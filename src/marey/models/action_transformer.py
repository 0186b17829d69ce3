"""Video Action Transformer: persons, their boxes and their actions.

Girdhar, Carreira, Doersch & Zisserman, "Video Action Transformer Network", CVPR 2019.

A trunk makes a feature map of the clip; a region proposal network finds persons in its central
frame; a head describes each proposed person from the whole clip and classifies the actions.
Proposals, anchors, matching, non-maximum suppression and RoI pooling are torchvision's.

B clips, P boxes of all clips together, K classes, D the width of a query (128), t h w the feature
map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torchvision.models.detection import _utils as detection_utils
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou, nms

from marey.errors import UserError, unknown_name
from marey.layers.i3d_blocks import freeze_batch_statistics
from marey.layers.roi import RoiOperator, pool_tubes
from marey.layers.tx import TxHead
from marey.models.i3d import I3DTail
from marey.models.trunks import TRUNKS

HEADS = ("tx", "i3d", "tx+i3d")
QUERIES = ("highres", "lowres")

Targets = Sequence[dict[str, Tensor]]


class I3DHead(nn.Module):
    """The convolutional head: the box is extended over time, and Mixed_5a..5c read the tube (Sec.
    3.3)."""

    def __init__(self, in_channels: int, width: float, roi_operator: RoiOperator = "pool") -> None:
        super().__init__()
        self.roi_operator: RoiOperator = roi_operator
        self.tail = I3DTail(in_channels, width)
        self.out_channels = self.tail.out_channels

    def forward(
        self, features: Tensor, boxes_xyxy_norm: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return (P, 1024 * width) and no attention."""
        return self.tail(pool_tubes(features, boxes_xyxy_norm, self.roi_operator)).mean(
            dim=(2, 3, 4)
        ), []


class ActionTransformer(nn.Module):
    """Find the persons of a clip's central frame and classify the actions of each.

    Args:
        num_classes: K; independent logits, several may be true of one person.
        num_frames: T of a training clip (64); any other number may be given at test time (96 in
            Table 4).
        width: channel multiplier of the I3D trunk and head.
        i3d_width: channel multiplier of the I3D head alone; None takes `width`.
        trunk: "i3d", "timesformer" (with `trunk_arguments`) or "efficientnet_lite0"
            (`trunk_arguments`: channels).
        head: "tx", "i3d", or "tx+i3d" (Tx classifies the actions, I3D refines the boxes).
        query: "highres" or "lowres" query preprocessing.
        class_specific_boxes: one box correction per class instead of one per person (Table 5).
        background: an explicit background output, the paper's C + 1; its target is 1 for boxes
            without a person.
        num_proposals: R, boxes kept of the proposal network (300; 64 in the ablations).
        rpn_channels: width of the proposal network's convolution.
        anchor_sizes: sides of the anchors in pixels; anchor_ratios: height / width.
        rpn_nms, head_nms: IoU above which the weaker of two boxes goes, in proposals and in
            predictions.
        samples_per_clip, positive_fraction: proposals the head learns from, and the most of them
            that are persons.
        positive_iou: least overlap with a person of a positive proposal; the others have all-zero
            labels.
        roi_operator: "pool" (paper) or "align".
        refine_given_boxes: also correct boxes that come from outside.
        frozen_norm: keep batch norm at its stored statistics (Sec. 3.5); False when training from
            scratch.
    """

    task: ClassVar[str] = "detection"

    def __init__(
        self,
        num_classes: int = 80,
        num_frames: int = 64,
        width: float = 1.0,
        i3d_width: float | None = None,
        trunk: str = "i3d",
        trunk_arguments: dict[str, Any] | None = None,
        head: str = "tx",
        query: str = "highres",
        dim: int = 128,
        num_heads: int = 2,
        num_layers: int = 3,
        ffn: int = 512,
        query_channels: int = 384,
        location_channels: int = 64,
        dropout: float = 0.3,
        class_specific_boxes: bool = False,
        background: bool = False,
        num_proposals: int = 300,
        rpn_channels: int = 512,
        anchor_sizes: Sequence[float] = (64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_nms: float = 0.7,
        head_nms: float = 0.6,
        samples_per_clip: int = 64,
        positive_fraction: float = 0.25,
        positive_iou: float = 0.5,
        roi_operator: RoiOperator = "pool",
        refine_given_boxes: bool = False,
        frozen_norm: bool = True,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in locals().items()
            if key not in ("self", "__class__")
        }
        for kind, name, known in (
            ("head", head, HEADS),
            ("query", query, QUERIES),
            ("trunk", trunk, TRUNKS),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        self.num_classes, self.head_nms, self.background = num_classes, head_nms, background
        self.class_specific_boxes, self.refine_given_boxes = (
            class_specific_boxes,
            refine_given_boxes,
        )
        self.frozen_norm = frozen_norm
        self.trunk = TRUNKS[trunk](
            **({"width": width} if trunk == "i3d" else trunk_arguments or {})
        )
        channels = self.trunk.out_channels
        steps = num_frames / self.trunk.time_stride
        self.rpn = build_rpn(
            channels, rpn_channels, anchor_sizes, anchor_ratios, rpn_nms, num_proposals
        )

        # In "tx+i3d" the Tx head classifies and the I3D head regresses the boxes (Table 4).
        self.tx = (
            TxHead(
                channels,
                dim=dim,
                num_heads=num_heads,
                num_layers=num_layers,
                ffn=ffn,
                query=query,
                query_channels=query_channels,
                location_channels=location_channels,
                time_half_steps=max(steps / 2, 0.5),
                dropout=dropout,
                roi_operator=roi_operator,
            )
            if "tx" in head
            else None
        )
        head_width = width if i3d_width is None else i3d_width
        self.i3d = I3DHead(channels, head_width, roi_operator) if "i3d" in head else None
        for_classes, for_boxes = self.tx or self.i3d, self.i3d or self.tx
        self.classifier = nn.Linear(for_classes.out_channels, num_classes + background)  # type: ignore[union-attr]
        self.box_regressor = nn.Linear(
            for_boxes.out_channels,  # type: ignore[union-attr]
            4 * (num_classes if class_specific_boxes else 1),
        )

        # Most labels are 0, so the bias starts at a probability of 0.05.
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.constant_(self.classifier.bias, -math.log((1 - 0.05) / 0.05))
        nn.init.normal_(self.box_regressor.weight, std=0.001)
        nn.init.zeros_(self.box_regressor.bias)

        self.box_coder = detection_utils.BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
        self.sampler = detection_utils.BalancedPositiveNegativeSampler(
            samples_per_clip, positive_fraction
        )
        self.positive_iou = positive_iou

    def train(self, mode: bool = True) -> ActionTransformer:
        """Switch mode; batch norm keeps its statistics with `frozen_norm`, and in a trunk that does
        not learn."""
        super().train(mode)
        if self.frozen_norm:
            freeze_batch_statistics(self)
        elif not any(parameter.requires_grad for parameter in self.trunk.parameters()):
            freeze_batch_statistics(self.trunk)
        return self

    def features(self, clip: Tensor) -> Tensor:
        """Return the trunk's map: (B, T, 3, H, W) -> (B, D, t, h, w), T/4, H/16, W/16 with the I3D
        trunk."""
        return self.trunk(rearrange(clip, "b t c h w -> b c t h w"))

    def forward(
        self,
        clip: Tensor,
        boxes_xyxy_norm: Sequence[Tensor] | None = None,
        targets: Targets | None = None,
        return_attention: bool = False,
    ) -> dict[str, Any]:
        """Detect; see `detect_from_features`."""
        return self.detect_from_features(
            self.features(clip), clip.shape[-2:], boxes_xyxy_norm, targets, return_attention
        )

    def detect_from_features(
        self,
        features: Tensor,
        image_size: Sequence[int],
        boxes_xyxy_norm: Sequence[Tensor] | None = None,
        targets: Targets | None = None,
        return_attention: bool = False,
    ) -> dict[str, Any]:
        """Propose boxes in the central frame, or take those given, and describe each.

        Args:
            features: (B, D, t, h, w) of `features`.
            image_size: H, W in pixels.
            boxes_xyxy_norm: B tensors (P_b, 4) used instead of proposals: ground truth or an
                outside detector's.
            targets: in training, per clip {"boxes_xyxy_norm": (M, 4), "labels": (M, K) of 0 and 1};
                M may be 0.
            return_attention: also return the attention of each person.

        Returns:
            "logits" (P, K), "boxes_xyxy_norm" (P, 4) or (P, K, 4) with class-specific boxes,
            "proposals_xyxy_norm" (P, 4), "counts" (list of B box counts, in order);
            "background_logits" (P,) if built so; in training also "proposal_labels" (P, K),
            "is_positive" (P,), "box_deltas" (P, 4) or (P, K, 4), "box_delta_targets" (P, 4) and the
            proposal network's "loss_objectness", "loss_rpn_box"; on request "attention_space_time":
            one (P, heads, t, h, w) per layer.

        Raises:
            UserError: if `targets` or boxes do not fit the clips.
        """
        if self.training and targets is None and boxes_xyxy_norm is None:
            raise UserError(
                "training needs targets: per clip {'boxes_xyxy_norm': (M, 4), 'labels': (M, K)}"
            )
        outputs: dict[str, Any] = {}
        given = boxes_xyxy_norm is not None
        if boxes_xyxy_norm is None:
            proposals, rpn_losses = self.propose(features, image_size, targets)
            outputs.update(rpn_losses)
        else:
            proposals = [boxes.to(features).reshape(-1, 4) for boxes in boxes_xyxy_norm]
        if len(proposals) != len(features) or (
            targets is not None and len(targets) != len(features)
        ):
            raise UserError(
                f"{len(features)} clips, but boxes for {len(proposals)} and targets for "
                f"{len(features) if targets is None else len(targets)}; give one entry per clip"
            )
        if targets is not None:
            proposals, sampled = self.sample(
                proposals, targets, keep_all=given or not self.training
            )
            outputs.update(sampled)

        flat = torch.cat(proposals)
        described, attention = (self.tx or self.i3d)(features, proposals)  # type: ignore[misc]
        located = (
            self.i3d(features, proposals)[0]
            if self.tx is not None and self.i3d is not None
            else described
        )
        logits, deltas = self.classifier(described), self.box_regressor(located)
        if self.background:
            outputs["background_logits"] = logits[:, -1]
            logits = logits[:, :-1]
        if self.class_specific_boxes:
            deltas = deltas.view(len(deltas), self.num_classes, 4)
        outputs.update(
            logits=logits,
            box_deltas=deltas,
            proposals_xyxy_norm=flat,
            counts=[len(boxes) for boxes in proposals],
        )
        outputs["boxes_xyxy_norm"] = (
            flat if given and not self.refine_given_boxes else self.decode(deltas, flat)
        )
        if return_attention:
            outputs["attention_space_time"] = attention
        return outputs

    def propose(
        self, features: Tensor, image_size: Sequence[int], targets: Targets | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the proposal network on the temporally central slice: B tensors (R, 4) in [0, 1], and
        its losses."""
        # torchvision works in pixels, this class in fractions of width and height.
        H, W = image_size
        scale = features.new_tensor([W, H, W, H])
        centre = features[:, :, features.shape[2] // 2]  # (B, D, h, w)
        images = ImageList(
            features.new_zeros(1).expand(len(features), 3, H, W), [(H, W)] * len(features)
        )
        pixel_targets = None
        if self.training and targets is not None:
            pixel_targets = [
                {"boxes": target["boxes_xyxy_norm"].to(features) * scale} for target in targets
            ]
        proposals, losses = self.rpn(images, {"0": centre}, pixel_targets)
        renamed = {
            "loss_rpn_box" if "box" in name else "loss_objectness": value
            for name, value in losses.items()
        }
        return [(boxes / scale).detach() for boxes in proposals], renamed

    @torch.no_grad()
    def sample(
        self, proposals: list[Tensor], targets: Targets, keep_all: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Match proposals to persons, sample those the head is trained on, and assign labels and
        box targets.

        A proposal is positive at IoU >= `positive_iou` and takes all actions of the person it
        overlaps most; all others are negatives with all-zero labels. The persons' own boxes join
        the proposals, unless `keep_all`.
        """
        chosen, labels, positive, deltas = [], [], [], []
        for boxes, target in zip(proposals, targets, strict=True):
            truth, actions = target["boxes_xyxy_norm"].to(boxes), target["labels"].to(boxes)
            if not keep_all:
                boxes = torch.cat([boxes, truth])
            # Each proposal is matched to the person of largest IoU.
            if len(truth):
                overlap, person = (
                    box_iou(boxes, truth).max(dim=1)
                    if len(boxes)
                    else (boxes.new_zeros(0), torch.zeros(0).long())
                )
                is_person, matched = overlap >= self.positive_iou, truth[person]
                its_labels = actions[person] * is_person[:, None]
            else:
                is_person = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
                matched, its_labels = boxes, boxes.new_zeros(len(boxes), self.num_classes)
            # At most `positive_fraction` of the sampled proposals are positive.
            keep = torch.arange(len(boxes), device=boxes.device)
            if not keep_all:
                picked_positive, picked_negative = self.sampler([is_person.to(torch.int64)])
                keep = torch.where(picked_positive[0].bool() | picked_negative[0].bool())[0]
            chosen.append(boxes[keep])
            labels.append(its_labels[keep])
            positive.append(is_person[keep])
            if len(keep):
                deltas.append(self.box_coder.encode_single(matched[keep], boxes[keep]))
        return chosen, {
            "proposal_labels": torch.cat(labels),
            "is_positive": torch.cat(positive),
            "box_delta_targets": torch.cat(deltas) if deltas else torch.zeros(0, 4),
        }

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """Apply corrections to boxes in [0, 1] and cut them at the image's border; (P, 4) or (P, K,
        4)."""
        if not len(proposals):
            return deltas.new_zeros(deltas.shape)
        boxes = self.box_coder.decode_single(deltas.detach().reshape(len(proposals), -1), proposals)
        return boxes.reshape(deltas.shape).clamp(0, 1)


def build_rpn(
    in_channels: int,
    channels: int,
    anchor_sizes: Sequence[float],
    anchor_ratios: Sequence[float],
    nms_threshold: float,
    num_proposals: int,
) -> RegionProposalNetwork:
    """Build torchvision's region proposal network; its 3 x 3 convolution also changes the width to
    `channels`."""
    anchors = AnchorGenerator((tuple(anchor_sizes),), (tuple(anchor_ratios),))
    head = RPNHead(channels, anchors.num_anchors_per_location()[0])
    head.conv[0][0] = nn.Conv2d(in_channels, channels, 3, padding=1)
    nn.init.normal_(head.conv[0][0].weight, std=0.01)
    nn.init.zeros_(head.conv[0][0].bias)
    keep = {"training": num_proposals, "testing": num_proposals}
    return RegionProposalNetwork(
        anchors,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={
            "training": min(2000, 8 * num_proposals),
            "testing": min(1000, 4 * num_proposals),
        },
        post_nms_top_n=keep,
        nms_thresh=nms_threshold,
    )


@torch.no_grad()
def postprocess(
    outputs: dict[str, Any],
    *,
    nms_threshold: float = 0.6,
    score_threshold: float = 0.0,
    max_boxes: int = 100,
) -> list[dict[str, Tensor]]:
    """Turn raw outputs into persons: probabilities per class, overlapping boxes removed.

    Suppression is class-agnostic, by the probability that any action is true, 1 - prod(1 - p_k) (1
    - background where there is that output). With class-specific boxes a person has one box per
    class and suppression uses the box of the best class.

    Args:
        outputs: what `ActionTransformer` returned.
        nms_threshold: IoU above which the weaker box goes.
        score_threshold: persons whose score is below it are dropped.
        max_boxes: the most persons per clip.

    Returns:
        Per clip {"boxes_xyxy_norm": (N, 4) or (N, K, 4), "scores": (N, K), "person_scores": (N,),
        "keep": (N,) rows of `outputs` (over all clips)}, best first.
    """
    scores = outputs["logits"].sigmoid()
    ranking = (
        1 - outputs["background_logits"].sigmoid()
        if "background_logits" in outputs
        else 1 - (1 - scores).prod(dim=1)
    )
    boxes = outputs["boxes_xyxy_norm"]

    # One box per person to suppress by: with class-specific boxes that of the best class.
    flat = boxes if boxes.ndim == 2 else boxes[torch.arange(len(boxes)), scores.argmax(dim=1)]
    persons, start = [], 0
    for count in outputs["counts"]:
        rows = torch.arange(start, start + count, device=scores.device)
        start += count
        has_area = (flat[rows, 2] > flat[rows, 0]) & (flat[rows, 3] > flat[rows, 1])
        rows = rows[has_area & (ranking[rows] >= score_threshold)]
        keep = rows[nms(flat[rows].float(), ranking[rows].float(), nms_threshold)[:max_boxes]]
        persons.append(
            {
                "boxes_xyxy_norm": boxes[keep],
                "scores": scores[keep],
                "person_scores": ranking[keep],
                "keep": keep,
            }
        )
    return persons


def count_parameters(model: nn.Module) -> dict[str, float]:
    """Return millions of parameters of trunk, proposal network, heads, outputs and in total (Table
    1's column)."""
    groups = {
        "trunk": ("trunk",),
        "rpn": ("rpn",),
        "head": ("tx", "i3d"),
        "outputs": ("classifier", "box_regressor"),
    }
    table = {
        name: sum(p.numel() for key, p in model.named_parameters() if key.split(".")[0] in parts)
        / 1e6
        for name, parts in groups.items()
    }
    return {**table, "total": sum(p.numel() for p in model.parameters()) / 1e6}
