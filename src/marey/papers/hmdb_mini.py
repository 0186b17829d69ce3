"""The mini scale of `marey reproduce hmdb-study`: small transformers on stored image features.

EfficientNet-Lite0 with ImageNet weights, frozen, is the start that all lines share; it runs once
per frame (`frame_features`). What is compared, samplers, optimisers, attention, is trained on it
from weights drawn at the cell's seed.

Videos: grouped cross-validation in `FOLDS` folds, so that every video of the folder is answered
once, by a model that saw neither it nor its group. Fold k is tested, fold k + 1 validates: it
chooses the epoch, and the learning rate where a line tries several. Nothing is chosen on the tested
fold.

Renders: captured motions as they were recorded and backwards, as classes of their own, which only
the order of the frames tells apart.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marey.datasets import open_dataset
from marey.datasets.clips import sample_generator
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.pack import open_packed
from marey.datasets.split import labelled
from marey.errors import UserError
from marey.explain.attention import attention_map
from marey.features.cache import FeatureCache, cache_key
from marey.files import atomic, read_json, write_json
from marey.layers.feature_stem import FeatureStem
from marey.models import create_model
from marey.models.timesformer import TimeSformer
from marey.papers.cells import Row
from marey.papers.frame_features import CHANNELS, PATCH_SIZE, FrameFeatures, pool, seen
from marey.papers.side_by_side import Copy, Trained, train_copies
from marey.recipes.hmdb_study import timesformer_hmdb_simp
from marey.synthetic.dataset import RenderPlan, render_dataset
from marey.synthetic.motion import ONE_WAY_RECORDINGS, reversed_name
from marey.teaching.controls import metadata_of, metadata_predictions
from marey.training.config import ModelConfig, OptimConfig, TrainConfig, override
from marey.training.data import draws_frames
from marey.training.feature_cache import run_trunk
from marey.training.initialise import widen_start
from marey.video.sampling import ClipSampling

FOLDS = 5
"""Folds of the groups; group number g of the sorted groups is in fold g modulo `FOLDS`."""
EPOCHS = 20
"""Passes over the training clips of a fold, 72 of UT-Interaction's 120: 180 steps of 8 clips."""
EVALUATE_EVERY = 5.0
"""Epochs between two looks at the validation clips."""
CELLS_PER_SIDE = 1
"""The 4 x 4 cells of a frame are averaged to one; lines may ask for 2 x 2 or 4 x 4."""
RENDER_PLAN = RenderPlan(
    size=112,
    fps=8.0,
    seed=42,
    reversals="none",
    actions=ONE_WAY_RECORDINGS,
    splits=("train",) * 6 + ("val",) + ("test",) * 3,
)
NUM_RENDERS = 200
"""120 train, 20 val, 60 test, each used twice: as recorded and backwards."""
RENDER_EPOCHS = 20
RENDER_PLAN_NAME = f"renders-{NUM_RENDERS}-{RENDER_EPOCHS}"


@dataclass(frozen=True, kw_only=True)
class MiniRow(Row):
    """A line of the mini tables."""

    rates: tuple[float, ...] = ()
    """Learning rates it tries; each fold of each seed keeps the one with the lowest validation
    loss. Empty: the configuration's."""
    against: str = ""
    """Name of the line it is tested against, decided before either ran; "" for none."""
    data: str = "videos"
    """"videos" (the folder given) or "renders"."""
    start: str = "fresh"
    """"fresh", or "renders": the weights the same network has after training on renders."""
    control: str = ""
    """"metadata" or "majority": no network at all."""


def mini_base() -> TrainConfig:
    """Return a TimeSformer of one block and 20,000 parameters on 8 equidistant frames, Adam at
    0.003."""
    study = timesformer_hmdb_simp()
    size = CELLS_PER_SIDE * PATCH_SIZE
    preprocess = replace(
        seen(ClipSampling(kind="equidistant", num_frames=8)), image_size=size, short_side=size
    )
    network = {"patch_size": 1, "embed_dim": 32, "depth": 1, "num_heads": 4, "mlp_ratio": 2.0}
    return replace(
        study,
        recipe="hmdb_study mini",
        model=ModelConfig(name="timesformer", arguments=network),
        data=replace(study.data, preprocess=preprocess),
        optim=OptimConfig(name="adam", lr=0.003, weight_decay=0.0, schedule="linear"),
        train=replace(study.train, epochs=EPOCHS, seed=0),
    )


# ---- clips --------------------------------------------------------------------------------------


class Source(Protocol):
    """Features of clips with their labels."""

    class_names: tuple[str, ...]
    labels: list[int]
    names: list[str]
    groups: list[str]
    draws_maps: bool
    """Whether attention maps of the answers are kept."""

    def clip(
        self, i: int, sampling: ClipSampling, side: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the features (T, side * side, C) of clip i."""

    def folds(self) -> list[dict[str, list[int]]]:
        """Return per fold the numbers of its "train", "val" and "test" clips."""


class Videos:
    """The videos of a folder, their frames encoded once."""

    draws_maps = True

    def __init__(self, data: str, cache: Path) -> None:
        index = grouped(labelled(open_dataset(data)))
        self.samples: tuple[Sample, ...] = index.samples
        self.class_names = index.class_names
        self.labels = [index.label_index(sample) for sample in index.samples]
        self.names = [index.relative_path(sample) for sample in index.samples]
        self.groups = [str(sample.group) for sample in index.samples]
        self.index = index
        self.features = FrameFeatures(FeatureCache(cache / "features"))

    def clip(
        self, i: int, sampling: ClipSampling, side: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the features (T, side * side, C) of clip i."""
        return self.features.clip(self.samples[i], sampling, side, generator)

    def folds(self) -> list[dict[str, list[int]]]:
        """Return per fold the numbers of its "train", "val" and "test" clips."""
        fold_of = self.fold_numbers()
        found = []
        for fold in range(FOLDS):
            after = (fold + 1) % FOLDS
            parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
            for i, own in enumerate(fold_of):
                parts["test" if own == fold else "val" if own == after else "train"].append(i)
            found.append(parts)
        return found

    def fold_numbers(self) -> list[int]:
        """Return the fold of each clip.

        Raises:
            UserError: if there are fewer groups than folds.
        """
        groups = sorted(set(self.groups))
        if len(groups) < FOLDS:
            raise UserError(
                f"{self.index.root}: {len(groups)} groups, the study's {FOLDS} folds need as many; "
                "give a folder with more groups (scenes, persons) or more videos"
            )
        return [groups.index(group) % FOLDS for group in self.groups]


def grouped(index: DatasetIndex) -> DatasetIndex:
    """Give samples without a group one of their own, dealt so that folds hold all classes."""
    seen_of: dict[str | None, int] = {}
    samples = []
    for sample in index.samples:
        number = seen_of.get(sample.label, 0)
        seen_of[sample.label] = number + 1
        samples.append(sample if sample.group else replace(sample, group=f"video {number:05d}"))
    return replace(index, samples=tuple(samples))


class Renders:
    """Captured motions rendered by `RENDER_PLAN`, both ways: clip 2i as recorded, 2i + 1
    backwards."""

    draws_maps = False

    def __init__(self, cache: Path) -> None:
        root = cache / "renders"
        render_dataset(root, NUM_RENDERS, RENDER_PLAN, workers=0)
        samples = open_dataset(root).samples[:NUM_RENDERS]
        K = len(ONE_WAY_RECORDINGS)
        recorded = [ONE_WAY_RECORDINGS.index(str(sample.label)) for sample in samples]
        backwards = tuple(reversed_name(name) for name in ONE_WAY_RECORDINGS)
        self.class_names = (*ONE_WAY_RECORDINGS, *backwards)
        self.labels = [label + K * way for label in recorded for way in (0, 1)]
        self.names = [f"render {i} {way}" for i in range(len(samples)) for way in ("", "backwards")]
        self.groups = [f"render {i}" for i in range(len(samples)) for _ in (0, 1)]
        self.splits = [str(sample.split) for sample in samples for _ in (0, 1)]
        self.features = self.encode(root, [int(sample.row or 0) for sample in samples], cache)
        self.pooled: dict[int, Tensor] = {}

    def encode(self, root: Path, rows: Sequence[int], cache: Path) -> Tensor:
        """Return the features (N, 8, 16, C) float16 of all renders, stored once."""
        frames = FrameFeatures(FeatureCache(cache / "features"))
        preprocess = seen(ClipSampling())

        def make() -> dict[str, Tensor]:
            packed = open_packed(root)
            clips = (preprocess.clip(packed.frames(row)) for row in rows)
            return {"features": torch.cat([run_trunk(frames.stem, clip).half() for clip in clips])}

        key = cache_key(
            kind="renders of EfficientNet-Lite0",
            weights=frames.weights,
            plan=repr(RENDER_PLAN),
            clips=len(rows),
            preprocess=repr(preprocess),
        )
        return frames.cache.get_or_make(key, make)["features"]

    def clip(
        self, i: int, sampling: ClipSampling, side: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the features (T, side * side, C) of clip i."""
        if side not in self.pooled:
            self.pooled[side] = pool(self.features.float(), side)
        number, backwards = divmod(i, 2)
        clip = self.pooled[side][number]
        clip = clip.flip(0) if backwards else clip
        name = self.names[i]
        return clip[sampling.indices(len(clip), fps=8.0, generator=generator, name=name)]

    def folds(self) -> list[dict[str, list[int]]]:
        """Return the plan's one split of the renders."""
        parts = ("train", "val", "test")
        numbered = list(enumerate(self.splits))
        return [{part: [i for i, split in numbered if split == part] for part in parts}]


# ---- networks -----------------------------------------------------------------------------------


class StoredCells(FeatureStem):
    """Tokens of features that were computed before; the image network itself is not part of the
    model."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.image_width = width
        self.trunk = nn.Identity()
        self.proj = nn.Linear(width, embed_dim)

    def tokens(self, features: Tensor) -> Tensor:
        """Return tokens (..., N, D) of features (..., N, C)."""
        return self.proj(features)


class CellsAsPicture(nn.Module):
    """A network of another library that takes features (B, T, N, C) as pictures of C channels."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, clip: Tensor) -> dict[str, Any]:
        """Return the network's outputs."""
        pictures = clip.transpose(2, 3).unflatten(3, (self.side, self.side))  # (B, T, C, h, w)
        found: dict[str, Any] = self.network(pictures)
        return found


def build_network(
    config: TrainConfig, num_classes: int, start: Path | None, seed: int
) -> nn.Module:
    """Build the configured network on features, its weights drawn at a seed.

    Args:
        start: weights that replace the drawn ones wherever they fit, but for the class head.
    """
    preprocess = config.data.preprocess
    assert preprocess is not None
    T, side = preprocess.sampling.num_frames, preprocess.image_size // PATCH_SIZE
    arguments = {"num_classes": num_classes, "num_frames": T, "image_size": side}
    torch.manual_seed(seed)
    model: Any = create_model(str(config.model.name), **arguments, **config.model.arguments)
    if isinstance(model, TimeSformer):
        model.patch_embed = StoredCells(CHANNELS, model.config.embed_dim)
        widen_start(model)
    else:
        widen_vivit(model)
        model = CellsAsPicture(model, side)
    if start is not None:
        own, stored = model.state_dict(), load_file(start)
        fits = {
            name: value
            for name, value in stored.items()
            if name in own and own[name].shape == value.shape and not name.startswith("head.")
        }
        model.load_state_dict(fits, strict=False)
    return model


def widen_vivit(model: nn.Module) -> None:
    """Draw the weights of a ViViT by the rule of `initialise.widen_start`, so that both networks
    start equally."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layer" in name:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith("position_embeddings"):
            nn.init.normal_(parameter, std=0.54)  # TimeSformer adds one of 0.5 and one of 0.2
        elif name.endswith("cls_token"):
            nn.init.normal_(parameter, std=0.5)


# ---- training and answers -----------------------------------------------------------------------


def answer_row(
    row: MiniRow, source: Source, num_seeds: int, cache: Path, base: TrainConfig | None = None
) -> list[dict[str, Any]]:
    """Train a line at all its seeds and answer the tested clips of every fold.

    Returns:
        Per seed: "rows", one per tested clip in order: {"number", "probabilities", "last"} of the
        best and of the last epoch, and "attention" where the network gives it; "train_top1", the
        share of training clips right at the end, by fold; "rates", the rate each fold kept.
    """
    config = row.configure(base or mini_base())
    if row.start == "renders":
        config = replace(config, recipe="hmdb_study mini, from renders")
    rates = row.rates or (config.optim.peak_lr,)
    tried = []
    for rate in rates:
        tuned = override(config, [f"optim.lr={rate}"])
        tried.append(answer_copies(tuned, source, num_seeds, cache, row.start == "renders"))

    answered = []
    for seed in range(num_seeds):
        kept: dict[str, Any] = {"rows": [], "train_top1": [], "rates": []}
        for fold in range(len(source.folds())):
            losses = [found[seed][fold]["val_loss"] for found in tried]
            best = losses.index(min(losses))
            kept["rows"] += tried[best][seed][fold]["rows"]
            kept["train_top1"].append(tried[best][seed][fold]["train_top1"])
            kept["rates"].append(rates[best])
        kept["rows"].sort(key=lambda answer: answer["number"])
        answered.append(kept)
    return answered


def answer_copies(
    config: TrainConfig, source: Source, num_seeds: int, cache: Path, from_renders: bool
) -> list[list[dict[str, Any]]]:
    """Train a configuration at all seeds on all folds, once: its answers are stored in the cache.

    Returns:
        Per seed and fold "rows", "val_loss" and "train_top1".
    """
    depends_on = [config.to_dict(), source.names, FOLDS, num_seeds]
    digest = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
    path = cache / "answers" / f"{digest}.json"
    if path.is_file():
        stored: list[list[dict[str, Any]]] = read_json(path)["seeds"]
        return stored
    starts = [render_start(seed, num_seeds, cache) for seed in range(num_seeds) if from_renders]
    folds = source.folds()
    copies = [
        Copy(seed, tuple(fold["train"]), tuple(fold["val"]), tuple(fold["test"]))
        for seed in range(num_seeds)
        for fold in folds
    ]
    trained = train_on(source, config, copies, starts)

    found = []
    for copy, result in zip(copies, trained, strict=True):
        rows = [
            {"number": number, "probabilities": rounded(own), "last": rounded(end)}
            for number, own, end in zip(copy.test, result.best, result.last, strict=True)
        ]
        if source.draws_maps and config.model.name == "timesformer" and copy.seed == 0:
            model = build_network(config, len(source.class_names), None, 0)
            model.load_state_dict(result.weights)
            for row, shares in zip(rows, attention_of(model, copy, source, config), strict=True):
                row["attention"] = shares
        found.append({"rows": rows, "val_loss": result.val_loss, "train_top1": result.train_share})
    by_seed = [found[start : start + len(folds)] for start in range(0, len(found), len(folds))]
    write_json(path, {"seeds": by_seed}, indent=None)
    return by_seed


def train_on(
    source: Source, config: TrainConfig, copies: Sequence[Copy], starts: Sequence[Path] = ()
) -> list[Trained]:
    """Train copies of the configured network on clips of a source.

    Args:
        starts: weights to start from, by seed; empty: drawn weights.
    """
    preprocess = config.data.preprocess
    assert preprocess is not None
    return train_copies(
        copies,
        lambda seed: build_network(
            config, len(source.class_names), starts[seed] if starts else None, seed
        ),
        functools.partial(features_of, source, config),
        source.labels,
        config,
        evaluate_every=EVALUATE_EVERY,
        draws=draws_frames(config.data, preprocess),
    )


def features_of(
    source: Source, config: TrainConfig, number: int, seed: int, epoch: int | None
) -> Tensor:
    """Return the features (T, N, C) of a clip; in training its frames are drawn per seed, epoch and
    clip.

    Each cell has mean 0 and standard deviation 1 over its channels: as they come, the features have
    5.5, beside which positions count for nothing.
    """
    preprocess = config.data.preprocess
    assert preprocess is not None
    generator = None if epoch is None else sample_generator(seed, epoch, number)
    side = preprocess.image_size // PATCH_SIZE
    clip = source.clip(number, preprocess.sampling, side, generator)
    return F.layer_norm(clip, clip.shape[-1:])


@torch.inference_mode()
def attention_of(
    model: nn.Module, copy: Copy, source: Source, config: TrainConfig
) -> list[list[float]]:
    """Return the rolled-out attention of each test clip: T * h * w shares that sum to one."""
    maps = []
    for number in copy.test:
        clip = features_of(source, config, number, 0, None)[None]
        found = attention_map(model.eval()(clip, return_attention=True), clip.shape[1]).flatten()
        maps.append(rounded(found / found.sum().clamp_min(1e-12)))
    return maps


def render_start(seed: int, num_seeds: int, cache: Path) -> Path:
    """Return the weights of the base network after training on renders at a seed, made once."""
    folder = cache / "starts" / RENDER_PLAN_NAME
    if not (folder / f"seed{seed}.safetensors").is_file():
        source, config = renders(cache), render_base()
        fold = source.folds()[0]
        parts = tuple(fold["train"]), tuple(fold["val"]), tuple(fold["test"])
        copies = [Copy(number, *parts) for number in range(num_seeds)]
        for copy, result in zip(copies, train_on(source, config, copies), strict=True):
            with atomic(folder / f"seed{copy.seed}.safetensors") as temporary:
                save_file({k: v.contiguous() for k, v in result.weights.items()}, temporary)
    return folder / f"seed{seed}.safetensors"


def render_base() -> TrainConfig:
    """Return the settings of the lines on renders: 20 passes in batches of 16."""
    base = mini_base()
    return replace(base, train=replace(base.train, epochs=RENDER_EPOCHS, batch_size=16))


def rounded(values: Tensor) -> list[float]:
    """Return numbers to four decimals."""
    return [round(value, 4) for value in values.tolist()]


@functools.lru_cache(maxsize=1)
def videos(data: str, cache: Path) -> Videos:
    """Return the videos of a folder, opened once."""
    return Videos(data, cache)


@functools.lru_cache(maxsize=1)
def renders(cache: Path) -> Renders:
    """Return the renders, made once."""
    return Renders(cache)


# ---- controls -----------------------------------------------------------------------------------


def control_answers(kind: str, source: Videos, cache: Path) -> list[int]:
    """Return the class each video gets from a control that sees no picture.

    "majority" is the most frequent class of the training folds. "metadata" sees width, height,
    frames, rate, seconds, width / height and the bytes of the file; of its classifiers the one with
    the most right answers is reported, which favours the control.
    """
    folds = torch.tensor(source.fold_numbers())
    labels = torch.tensor(source.labels)
    if kind == "majority":
        found = torch.zeros_like(labels)
        for fold in folds.unique():
            found[folds == fold] = labels[folds != fold].mode().values
        return found.tolist()

    digest = hashlib.sha256(json.dumps([source.names, FOLDS]).encode()).hexdigest()
    path = cache / "answers" / f"metadata-{digest}.json"
    if not path.is_file():
        facts = [
            [*metadata_of(sample, source.index), float(sample.path.stat().st_size)]
            for sample in source.samples
        ]
        guesses = metadata_predictions(torch.tensor(facts), labels, folds)
        right = {name: int((guess == labels).sum()) for name, guess in guesses.items()}
        best = max(right, key=lambda name: right[name])
        write_json(path, {"classifier": best, "answers": guesses[best].tolist()}, indent=None)
    answers: list[int] = read_json(path)["answers"]
    return answers
