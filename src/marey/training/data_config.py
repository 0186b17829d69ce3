"""The settings of the data: which videos, and how they become clips."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from marey.datasets.tfrecord import OnCorrupt
from marey.training.settings import CHECKED, Several, Share
from marey.transforms.pose_augment import PoseAugment
from marey.transforms.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FeatureCacheConfig:
    """Stored features of a frozen stem, which runs once per clip, not once per epoch."""

    variants: PositiveInt = 2
    """Stored augmentations of each training clip; epoch e uses variant (e + i) modulo their number
    of clip i."""
    views: NonNegativeInt = 0
    """Further variants of each training clip without augmentation: the temporal views of
    evaluation."""
    folder: str | None = None
    """Where they are stored; None: `marey/features` in XDG_CACHE_HOME, by default ~/.cache."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectionData:
    """What task "detection" reads in AVA's layout, beside `data.path`."""

    train_split: str = "train"
    val_split: str = "val"
    label_map: str | None = None
    """Label map (.pbtxt); None takes the one beside the data, else the 60 official classes."""
    mosaic: str | None = None
    """Packed single-person clips, from which further training scenes are pasted together."""
    mosaic_scenes: PositiveInt | None = None
    """How many pasted scenes are one epoch; None: half as many as there are clips."""
    predicted_boxes: str | None = None
    """CSV with an outside detector's boxes; "{split}" in its name is replaced."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FeaturesData:
    """What task "features" reads of shards in the YouTube-8M format."""

    widths: dict[str, PositiveInt] | None = None
    """Feature name -> width, to read some of what the records hold; None reads what their
    description names."""
    level: Literal["frame", "video"] = "frame"
    """Frame-level or video-level records."""
    vocabulary: str | None = None
    """Vocabulary CSV; None looks beside the data."""
    hierarchy: str | None = None
    """CSV that maps labels to a hierarchical label space; None looks beside the data."""
    max_frames: PositiveInt = 300
    """Later seconds are dropped."""
    max_val_videos: PositiveInt | None = None
    """Validate on the first so many videos (the paper: 64,000)."""
    stream: bool = False
    """Read training shards in order with a shuffle buffer, for data too large to be read at random.
    """
    shuffle_buffer: PositiveInt = 2048
    """Records of that buffer."""
    on_corrupt: OnCorrupt = "raise"
    """Refuse damaged records, or skip them."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DataConfig:
    """Which videos, and how they become clips."""

    path: str | None = None
    """Folder or manifest, as the data contract of docs/datasets.md describes; `--data` sets it."""
    dataset: str | None = None
    """Official layout by name; None recognises it from its files."""
    split_by: str | None = None
    """Regular expression that reads the split from file names."""
    val_fraction: Share = 0.2
    """Share of the training videos held out for validation (whole groups, per class) where the data
    has no "val"."""
    limit: PositiveInt | None = None
    """Train on at most this many videos, drawn per class at `train.seed`."""
    unseen_classes: Several[str] = ()
    """Classes whose videos are left out of training; with the term "label" their embeddings go into
    the checkpoint."""
    preprocess: Preprocess | None = None
    """Frames, size, mean and std; None takes those of the checkpoint in `model.init_from`."""
    draw_frames: bool = False
    """Draw the frames of a training clip anew per seed, epoch and video, also without `augment`
    (with it they always are, and those of the sampler "random" too)."""
    feature_cache: FeatureCacheConfig | None = None
    """Train on stored features of the frozen stem; None runs the stem in every step."""
    pose_augment: PoseAugment | None = None
    """Task "poses": how windows of keypoints are changed in training; None: not at all."""
    detection: DetectionData = field(default_factory=DetectionData)
    features: FeaturesData = field(default_factory=FeaturesData)
