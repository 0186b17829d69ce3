"""The one pass over videos: a model answers every video once, and every measure is computed from
the stored answers.

    answers = answer_videos(load_checkpoint("marey-mini-rgb"), index, AnswerOptions(views=(1, 3)))
    answers.logits                    # (N, V, K): N readable videos, V views of each
    answers.save("answers")           # answers.safetensors and answers.json, for Answers.load

Legend: N videos, V views, K classes, D width, S shuffles of a video, T frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from marey.checkpoints.folder import Checkpoint
from marey.datasets.clips import VideoViews
from marey.datasets.index import DatasetIndex, Sample, subset
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache, cache_key
from marey.features.video_vectors import VideoVectors, vectors_of
from marey.features.videos import stored_vector
from marey.files import atomic_files, file_identity, weights_digest
from marey.inference.answer_parts import AnswerParts, Part
from marey.models.outputs import outputs_of
from marey.order.correction import (
    NoTemporalAttentionError,
    attention_outputs,
    frame_distances,
    order_matrix,
    permute_frames,
)
from marey.order.path import hamiltonian_path
from marey.order.permutations import random_permutations

KEPT = ("logits", "embedding", "deciding_embedding", "stem_embedding", "label_embedding")
"""What is kept of a model's outputs, where the model returns it."""

TENSORS, NAMES = "answers.safetensors", "answers.json"

Tick = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What of each video the model is shown."""

    views: tuple[int, int] = (1, 1)
    """Temporal and spatial views per video: (1, 3), (10, 3), ..."""
    shuffles: int = 0
    """Permutations per video in which the frames of its first view are shown too, uniform over all
    T!."""
    corrected: bool = False
    """With `shuffles`: also show the shuffled frames put back in the order that temporal attention
    recovers."""
    seed: int = 0
    """Seed of the permutations; the i-th readable video gets the same ones for every model and
    batch size."""
    backwards: tuple[str, ...] = ()
    """With `shuffles`: labels whose clips are recordings played backwards; their frames are
    reversed before shuffling, so that the recovered order is that of the recording."""
    still: bool = False
    """Also show the middle frame of the first view, held still, to a model that reads clips
    alone."""
    batch_size: int = 8
    """Clips of one forward pass."""
    workers: int = 0
    """Processes that decode."""
    device: str = "cpu"
    """Torch device."""


@dataclass(kw_only=True)
class Answers:
    """What one model returned for the readable videos of one data set."""

    model: str
    """What the model was loaded from."""
    class_names: list[str]
    """Name of each logit."""
    videos: list[str]
    """Names below the data's root, in the data's order."""
    labels: list[str | None]
    """Label of each video as the data has it; None where it has none."""
    groups: list[str | None]
    """Group of each video (scene, person); None where the data names none."""
    outputs: dict[str, Tensor]
    """Name -> (N, V, ...) float32: "logits", and where the model has them "embedding",
    "deciding_embedding" (what decides, where that is not the embedding), "stem_embedding" and
    "label_embedding"; with `still` "still_logits" (N, 1, K); with shuffles also what
    `answer_shuffled` returns, (N, S, ...), and "distinct" (N,), whether no two frames of the clip
    are equal."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}] for what could not be read."""
    options: dict[str, Any] = field(default_factory=dict)
    """The `AnswerOptions` of the pass."""

    @property
    def logits(self) -> Tensor:
        """(N, V, K)."""
        return self.outputs["logits"]

    @property
    def embedding(self) -> Tensor | None:
        """(N, V, D), the model's "embedding": the features its class head reads. None where it
        returns none."""
        return self.outputs.get("embedding")

    @property
    def label_embedding(self) -> Tensor | None:
        """(N, V, E), the predicted embedding of the label's name; None where the model has no such
        head."""
        return self.outputs.get("label_embedding")

    def some(self, rows: Sequence[int]) -> Answers:
        """Return the answers to some of the videos."""
        return replace(
            self,
            videos=[self.videos[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            groups=[self.groups[row] for row in rows],
            outputs={name: value[list(rows)] for name, value in self.outputs.items()},
        )

    def save(self, folder: str | Path) -> None:
        """Write the tensors as safetensors and everything else as JSON, both or none."""
        names = {key: value for key, value in vars(self).items() if key != "outputs"}
        with atomic_files(Path(folder) / TENSORS, Path(folder) / NAMES) as (tensors, text):
            save_file({name: value.contiguous() for name, value in self.outputs.items()}, tensors)
            text.write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Answers:
        """Read answers that `save` wrote.

        Raises:
            UserError: if they are absent or damaged.
        """
        folder = Path(folder)
        try:
            names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
            answers = cls(outputs=load_file(folder / TENSORS), **names)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder}: no stored answers that can be read ({error}); make them again"
            ) from error
        counts = {
            len(answers.videos),
            len(answers.labels),
            len(answers.groups),
            *map(len, answers.outputs.values()),
        }
        if len(counts) != 1:
            raise UserError(f"{folder}: {TENSORS} and {NAMES} are not of one pass; make them again")
        return answers


def answer_videos(
    checkpoint: Checkpoint,
    index: DatasetIndex,
    options: AnswerOptions = AnswerOptions(),
    *,
    paths: Tensor | None = None,
    tick: Tick | None = None,
    resumable: bool = False,
) -> Answers:
    """Let a model answer every readable video of an index, and name the unreadable ones.

    Args:
        checkpoint: of a model that takes clips.
        index: labels are not needed.
        paths: int64 (N, S, T), see `answer_clips`.
        tick: called after each video.
        resumable: keep what is finished in the user's cache until the pass is complete, and go on
            from there where an earlier pass was interrupted.

    Raises:
        UserError: if the checkpoint does not say how clips are prepared, or no video can be read.
    """
    preprocess = checkpoint.clip_preprocess
    parts = AnswerParts(_pass_key(checkpoint, index, options)) if resumable else None
    done = list(parts.read()) if parts is not None else []
    finished = sum(len(part.entries) for part in done)
    rest = subset(index, range(finished, len(index)))
    views = DataLoader(
        VideoViews(rest, preprocess, options.views), batch_size=None, num_workers=options.workers
    )
    vectors = VideoVectors(vectors_of(checkpoint.model))
    items = (
        {
            **(item_with_vectors(item, vectors, index, sample) if vectors.names else item),
            "video": index.relative_path(sample),
            "label": sample.label,
            "group": sample.group,
        }
        for item, sample in zip(views, rest.samples, strict=True)
    )
    answers = answer_clips(
        checkpoint.model.to(options.device).eval(),
        items,
        options,
        model_name=checkpoint.source,
        class_names=checkpoint.class_names,
        paths=paths,
        tick=tick,
        total=len(index),
        done=done,
        parts=parts,
    )
    if parts is not None:
        parts.remove()
    if not answers.videos:
        raise UserError(
            f"{index.root}: none of its {len(index)} videos can be read (the first: "
            f"{answers.unreadable[0]['error']})"
        )
    return answers


def _pass_key(checkpoint: Checkpoint, index: DatasetIndex, options: AnswerOptions) -> str:
    """Return the name of a pass: model, how clips are prepared, videos as they are on disk,
    options."""
    files = [
        file_identity(sample.path) if sample.path.exists() else str(sample.path)
        for sample in index.samples
    ]
    return cache_key(
        weights=weights_digest(checkpoint.model.state_dict()),
        preprocess=checkpoint.clip_preprocess.to_dict(),
        videos=index.manifest_hash,
        files=files,
        options={**asdict(options), "workers": 0},
    )


def item_with_vectors(
    item: dict[str, Any], vectors: VideoVectors, index: DatasetIndex, sample: Sample
) -> dict[str, Any]:
    """Return the item of a video with "vectors" (E,), stored in the user's feature cache."""
    if "error" in item:
        return item
    try:
        return {**item, "vectors": stored_vector(vectors, sample, FeatureCache(), index.root)}
    except VideoError as error:
        return {"error": str(error)}


def answer_clips(
    model: nn.Module,
    items: Iterable[dict[str, Any]],
    options: AnswerOptions = AnswerOptions(),
    *,
    model_name: str = "the model",
    class_names: Sequence[str] = (),
    paths: Tensor | None = None,
    tick: Tick | None = None,
    total: int = 0,
    done: Sequence[Part] = (),
    parts: AnswerParts | None = None,
) -> Answers:
    """Let a model answer prepared videos; views of several videos share a forward pass.

    Args:
        model: in eval mode, on `options.device`.
        items: per video {"views": float (V, T, C, S, S)} or {"error": str}, and where known
            "video", "label", "group".
        paths: int64 (N, S, T): with `options.corrected`, the recovered order of each shuffled clip,
            found by another model with the same seed; None takes what this model's temporal
            attention says.
        done: parts of the same pass that are finished; `items` begin behind them.
        parts: where further parts are kept.

    Raises:
        UserError: if the views cannot be shuffled (one frame).
    """
    answers = Answers(
        model=model_name,
        class_names=list(class_names),
        videos=[],
        labels=[],
        groups=[],
        outputs={},
        options=asdict(options),
    )
    generator = torch.Generator().manual_seed(options.seed)
    rows: dict[str, list[Tensor]] = {}
    for part in done:
        _take_in(answers, rows, part, tick, total)
        generator.set_state(part.generator_state)
    for batch in _batches(items, options.batch_size):
        readable = [item for item in batch if "error" not in item]
        found: dict[str, Tensor] = {}
        if readable:
            first = len(answers.videos)
            found = _view_outputs(model, readable, options)
            if options.still and "vectors" not in readable[0]:
                found["still_logits"] = _still_logits(model, readable, options)
            if options.shuffles:
                known = None if paths is None else paths[first : first + len(readable)]
                found |= _order_outputs(model, readable, generator, options, known)
        first_entry = len(answers.videos) + len(answers.unreadable)
        entries = [_entry(item, first_entry + row) for row, item in enumerate(batch)]
        part = Part(entries, found, generator.get_state())
        if parts is not None:
            parts.write(part)
        _take_in(answers, rows, part, tick, total)
    answers.outputs = {name: torch.cat(parts) for name, parts in rows.items()}
    return answers


def _entry(item: dict[str, Any], number: int) -> dict[str, Any]:
    """Return what is kept of an item beside its outputs."""
    video = str(item.get("video", number))
    if "error" in item:
        return {"video": video, "error": item["error"]}
    return {"video": video, "label": item.get("label"), "group": item.get("group")}


def _take_in(
    answers: Answers, rows: dict[str, list[Tensor]], part: Part, tick: Tick | None, total: int
) -> None:
    """Add a finished part to the answers."""
    for name, value in part.outputs.items():
        rows.setdefault(name, []).append(value)
    for entry in part.entries:
        if "error" in entry:
            answers.unreadable.append(entry)
        else:
            answers.videos.append(entry["video"])
            answers.labels.append(entry["label"])
            answers.groups.append(entry["group"])
        if tick is not None:
            tick(len(answers.videos) + len(answers.unreadable), total)


def _batches(items: Iterable[dict[str, Any]], batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """Collect items until they hold `batch_size` views."""
    waiting: list[dict[str, Any]] = []
    count = 0
    for item in items:
        waiting.append(item)
        count += len(item.get("views", ()))
        if count >= batch_size:
            yield waiting
            waiting, count = [], 0
    if waiting:
        yield waiting


def _view_outputs(
    model: nn.Module, items: list[dict[str, Any]], options: AnswerOptions
) -> dict[str, Tensor]:
    """Return the kept outputs of the views of some videos, each (videos, V, ...)."""
    clips = torch.cat([item["views"] for item in items])
    vectors = None
    if "vectors" in items[0]:
        vectors = torch.cat([item["vectors"].expand(len(item["views"]), -1) for item in items])
    outputs = outputs_of(
        model, clips, batch_size=options.batch_size, device=options.device, vectors=vectors
    )
    return {name: outputs[name].unflatten(0, (len(items), -1)) for name in KEPT if name in outputs}


def _still_logits(model: nn.Module, items: list[dict[str, Any]], options: AnswerOptions) -> Tensor:
    """Return what the model says of the middle frame of the first views, held still,
    (videos, 1, K)."""
    clips = torch.stack([item["views"][0] for item in items])  # (videos, T, C, S, S)
    middle = clips.shape[1] // 2
    still = clips[:, middle : middle + 1].expand_as(clips)
    outputs = outputs_of(model, still, batch_size=options.batch_size, device=options.device)
    return outputs["logits"][:, None]


def _order_outputs(
    model: nn.Module,
    items: list[dict[str, Any]],
    generator: torch.Generator,
    options: AnswerOptions,
    paths: Tensor | None,
) -> dict[str, Tensor]:
    """Return what the model says of the first view of some videos with its frames shuffled."""
    clips = torch.stack(
        [
            item["views"][0].flip(0) if item.get("label") in options.backwards else item["views"][0]
            for item in items
        ]
    )
    B, T = clips.shape[:2]
    orders = random_permutations(B * options.shuffles, T, generator).view(B, options.shuffles, T)
    found = answer_shuffled(
        model,
        clips,
        orders,
        corrected=options.corrected,
        paths=paths,
        batch_size=options.batch_size,
        device=options.device,
    )
    distinct = torch.tensor([len(clip.flatten(1).unique(dim=0)) == T for clip in clips])
    return {**found, "distinct": distinct, "frame_distances": frame_distances(clips).cpu()}


@torch.inference_mode()
def answer_shuffled(
    model: nn.Module,
    clips: Tensor,
    orders: Tensor,
    *,
    corrected: bool = False,
    paths: Tensor | None = None,
    batch_size: int = 16,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Answer clips whose frames are shuffled, and shuffled and put back.

    Args:
        clips: float (B, T, C, H, W), in their own order.
        orders: int64 (B, S, T), see `permute_frames`.
        corrected: also answer the corrected clips.
        paths: int64 (B, S, T), recovered orders found by another model; None takes this model's
            own.

    Returns:
        "order" (B, S, T), as given; "shuffled_logits" (B, S, K); "order_weights" (B, S, T, T), the
        directed graph of `order_matrix`, where the model has temporal attention; "corrected_logits"
        (B, S, K), where it was asked for and there are paths.
    """
    B, S = orders.shape[:2]
    shuffled = permute_frames(clips.repeat_interleave(S, dim=0), orders.flatten(0, 1))
    logits, weights = _with_order_weights(model, shuffled, batch_size, device)
    found = {"order": orders, "shuffled_logits": logits.unflatten(0, (B, S))}
    if weights is not None:
        found["order_weights"] = weights.unflatten(0, (B, S))

    if corrected and paths is None and weights is not None:
        paths = hamiltonian_path(weights)[0].unflatten(0, (B, S))
    if corrected and paths is not None:
        put_back = permute_frames(shuffled, paths.flatten(0, 1))
        outputs = outputs_of(model, put_back, batch_size=batch_size, device=device)
        found["corrected_logits"] = outputs["logits"].unflatten(0, (B, S))
    return found


def _with_order_weights(
    model: nn.Module, clips: Tensor, batch_size: int, device: str
) -> tuple[Tensor, Tensor | None]:
    """Return logits (B, K) and the directed graphs (B, T, T), None for a model without temporal
    attention."""
    logits, weights = [], []
    for part in clips.split(batch_size):
        try:
            outputs = attention_outputs(model, part.to(device))
        except NoTemporalAttentionError:
            return outputs_of(model, clips, batch_size=batch_size, device=device)["logits"], None
        logits.append(outputs["logits"].float().cpu())
        weights.append(order_matrix(outputs["attention_time"], clips.shape[1]).cpu())
    return torch.cat(logits), torch.cat(weights)
