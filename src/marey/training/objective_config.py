"""The settings of the objective: the weight of every loss term, and one class per term."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from marey.errors import UserError
from marey.labels.embed import DEFAULT_MODEL
from marey.losses.attention_regularisation import Levels
from marey.training.settings import CHECKED, Several, Share


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ClassificationConfig:
    """Term "class": cross-entropy of one label per clip, or of several (task "features")."""

    label_smoothing: Share = 0.0
    """Share of each target spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs a class by the inverse of its number of training videos (mean weight 1 over
    videos)."""
    mixup_alpha: NonNegativeFloat = 0.0
    """Beta(alpha, alpha) of mixup; 0 is off."""
    cutmix_alpha: NonNegativeFloat = 0.0
    """Beta(alpha, alpha) of cutmix (one box for all frames); 0 is off. With both on, each step
    draws one of them."""
    mix_probability: Share = 1.0
    """Share of steps that mix at all."""
    over_classes: Literal["mean", "sum"] = "mean"
    """Task "features": how the binary cross-entropies of the classes are put together."""

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed at all."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OrderConfig:
    """Terms "order" and "guided" of DirecFormer, on permuted clips."""

    num_permutations: PositiveInt = 1000
    """P, rows of the permutation set (at most T! - 1)."""
    rule: Literal["closest", "farthest", "random"] = "closest"
    """How they are chosen: "closest" (the paper), "farthest" (the published file), "random"."""
    permutation_file: str | None = None
    """A `.npy` set of the released layout in place of one made here."""
    identity_first: bool = False
    """With `permutation_file`: class 0 is the ordered clip, as the released code counts."""
    signs: Literal["paper", "released"] = "paper"
    """Sign matrix of the guided loss, see `marey.losses.order.order_signs`."""
    mask_diagonal: bool = False
    """Leave the diagonal out of the guided loss."""
    guided_target: Literal["signs", "graded"] = "signs"
    """What the guided loss asks of the attention: "signs" (Eq. 13) or "graded", falling with the
    distance of two frames (`marey.losses.order.graded_loss`)."""
    backwards: Several[str] = ()
    """Classes whose clips are recordings played backwards. For the order terms they are flipped in
    time first, so that "before" means before in the recording: where every action also exists
    backwards, the order as played cannot be told from shuffled frames, because each set of frames
    occurs in both directions."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LabelConfig:
    """Term "label" of SeViTAR: the predicted label embedding against that of the label's name."""

    source: str = DEFAULT_MODEL
    """Where label embeddings come from, see `marey.labels.embed.embed_labels`."""
    loss: Literal["mse", "cosine"] = "mse"
    """"mse" (squared distance of unit vectors) or "cosine"."""
    stage_shares: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """The paper's order of training: shares of the steps spent on the backbone, the semantic MLP
    and the classifier, one after the other, with sum 1; None trains all together."""

    def __post_init__(self) -> None:
        if self.stage_shares is not None and abs(sum(self.stage_shares) - 1) > 1e-6:
            raise UserError(
                f"objective.label.stage_shares={list(self.stage_shares)} must have sum 1, for "
                "example [0.5, 0.25, 0.25]"
            )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TeacherConfig:
    """Term "teacher": distillation from a larger model."""

    checkpoint: str | None = None
    """A checkpoint with the same classes: a run's folder, a bundled name, "hf:...",
    "torchvision:..."."""
    temperature: PositiveFloat = 2.0
    """T: the logits of both models are divided by it."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdversarialConfig:
    """Terms "adversarial" and "attention" of GAT's Algorithm 1.

    The paper weighs them 1 and, by the distance, 0.001 ("frobenius") or 0.01 ("js").
    """

    eps: PositiveFloat = 0.5
    """Length of the perturbation, in units of the input the model reads (for clips: after
    normalisation); with norm "linf": largest change of a pixel value, in [0, 1]."""
    relative: bool = False
    """`eps` is a share of the mean norm of a video's frames, of each input its own: 0.02 moves
    every frame by 2 % of that. The paper's 0.5 is about 2 % of a whitened YouTube-8M frame."""
    norm: Literal["frame", "clip", "linf"] = "frame"
    """One length a frame, or one for the whole clip; or "linf": the box that the attacks of
    `threat_models` search, for clips of pixels."""
    steps: PositiveInt = 7
    """With norm "linf": gradients of the search inside the box."""
    distance: Literal["frobenius", "js"] = "frobenius"
    """Distance between the attention maps of clean and perturbed inputs: term "attention"."""
    levels: Levels = "global"
    """Which maps of GAT are compared: "global" (the paper), or "global+local"."""

    def __post_init__(self) -> None:
        if self.norm == "linf" and self.relative:
            raise UserError(
                "objective.adversarial: norm=linf is a box in pixel values, which relative=true "
                "does not scale; set one of them"
            )
        if self.norm == "linf" and self.eps > 1:
            raise UserError(
                f"objective.adversarial.eps={self.eps} with norm=linf is a change of pixel values "
                "in (0, 1]; eight grey levels are 0.03137"
            )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectionConfig:
    """What the terms of task "detection" are computed on."""

    boxes: Literal["own", "truth", "predicted"] = "own"
    """Where the head finds persons: its own proposals, the true boxes (Table 1), or an outside
    detector's."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ObjectiveConfig:
    """What is minimised: the sum of weight * term over the terms that have a weight."""

    task: Literal["clips", "poses", "arrow_of_time", "features", "detection"] = "clips"
    """Which data is read, and which terms there are."""
    weights: dict[str, float] = field(default_factory=lambda: {"class": 1.0})
    """Factor of each term by name. Task "clips": "class", "order", "guided", "label", "teacher";
    "poses": the same without "teacher"; "features" and "arrow_of_time": "class"; "detection":
    "class", "box", "rpn_objectness", "rpn_box" (without "class" and "box" only the proposals are
    trained); every task: "adversarial", "attention". A term of weight 0 is left out of the sum,
    but its head is built."""
    start: dict[str, Share] = field(default_factory=dict)
    """Share of the steps after which a term is added, by name; 0 where none is given. A step of
    "clips" without "order" and "guided" costs half."""
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    order: OrderConfig = field(default_factory=OrderConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    def __post_init__(self) -> None:
        for name in self.start:
            if name not in self.weights:
                raise UserError(
                    f"objective.start names the term '{name}', which has no weight; give one in "
                    f"objective.weights (it has {', '.join(self.weights)})"
                )
