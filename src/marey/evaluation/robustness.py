"""Measure models on every video under every corruption, severity and attack; each video is decoded once.

The clean clip is the reference: pixel kinds change the shown frames at `resolution` x `resolution`, the model's own
crop of the picture, and are resized to the model afterwards; temporal kinds reorder the source frames before sampling;
codecs and frame averages see all consecutive frames. Models that look at the same crop meet the same changed pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.io import encode_jpeg

from marey.attacks import ATTACKS, attack
from marey.attacks.pixel_model import PixelModel
from marey.corruptions import Corruption, corruption
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.perturb_plan import video_seed
from marey.errors import UserError
from marey.evaluation.candidates import Subject
from marey.files import write_bytes, write_json
from marey.transforms import functional
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.decode import VideoReader, open_video

CLEAN = "clean"
EXAMPLE_SIDE = 160
"""Pixels of the example pictures in the report."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure."""

    corruptions: tuple[str, ...] = ()
    """Kinds."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Severities of each kind."""
    profile: str = "rose"
    """Whose constants."""
    attacks: tuple[str, ...] = ()
    """Attack names."""
    attack_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attack name -> options, for example {"pgd": {"steps": 20}}."""
    shuffles: int = 4
    """Shuffles per video for order reliance; 0 leaves it out."""
    resolution: int = 224
    """Side at which pixels are changed, before resizing to the model."""
    max_frames: int = 300
    """Source frames per video; of a longer one the middle is taken."""
    batch_size: int = 16
    """Clips per forward pass."""
    seed: int = 0
    """Of all randomness."""

    def __post_init__(self) -> None:
        from marey.errors import unknown_name

        self.changes()
        for name in self.attacks:
            if name not in ATTACKS:
                raise unknown_name("attack", name, ATTACKS)
        if not self.corruptions and not self.attacks and not self.shuffles:
            raise UserError("nothing to measure: name corruptions or attacks")

    def changes(self) -> list[Corruption]:
        """Return every corruption at every severity.

        Raises:
            UserError: if a name, a severity or the profile is unknown.
        """
        return [corruption(kind, severity, self.profile) for kind in self.corruptions for severity in self.severities]


class WindowReader:
    """The frame times of a stretch of a video, for a sampler; its frames are empty pictures."""

    def __init__(self, reader: VideoReader, first: int, num_frames: int) -> None:
        self.fps, self.path = reader.fps, reader.path
        begin = reader.frame_seconds[first]
        self.frame_seconds = tuple(t - begin for t in reader.frame_seconds[first:first + num_frames])
        self._end = reader.end_seconds(first + num_frames - 1) - begin

    def frame_range(self, start_seconds: float | None = None, end_seconds: float | None = None) -> tuple[int, int]:
        """The whole stretch."""
        return 0, len(self.frame_seconds)

    def end_seconds(self, index: int) -> float:
        """Time frame `index` stops being shown."""
        return self.frame_seconds[index + 1] if index + 1 < len(self.frame_seconds) else self._end

    def indices_at_seconds(self, seconds: Sequence[float]) -> list[int]:
        """Index of the frame shown at each time."""
        from bisect import bisect_right

        last = len(self.frame_seconds) - 1
        return [min(max(bisect_right(self.frame_seconds, t + 1e-6) - 1, 0), last) for t in seconds]

    def frames_at(self, indices: Sequence[int]) -> Clip:
        """Empty pictures with the right indices and times."""
        chosen = list(indices)
        return Clip(frames=torch.zeros(len(chosen), 3, 1, 1, dtype=torch.uint8), frame_indices=tuple(chosen),
                    frame_seconds=tuple(self.frame_seconds[i] for i in chosen), fps=self.fps, path=self.path)


def crop_ratio(preprocess: Preprocess) -> float:
    """Return short side / crop of a model's geometry, 0 where it stretches the whole picture."""
    return 0.0 if preprocess.resize_mode == "stretch" else preprocess.short_side / preprocess.image_size


def model_view(frames: Tensor, ratio: float, resolution: int) -> Tensor:
    """Cut what a model with this `crop_ratio` sees, uint8 (T, 3, resolution, resolution)."""
    if ratio == 0:
        return functional.resize(frames, resolution, resolution)
    frames = functional.resize_short_side(frames, max(resolution, round(resolution * ratio)))
    height, width = frames.shape[-2:]
    top, left = functional.crop_offsets(height, width, resolution, 1)[0]
    return functional.crop(frames, top, left, resolution, resolution).contiguous()


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """A stretch of one video, decoded once."""

    name: str
    """Path below the data set."""
    views: dict[float, Tensor]
    """Crop ratio -> uint8 (L, 3, R, R)."""
    indices: list[list[int]]
    """For each model, the frames it looks at."""
    fps: float
    """Frames per second."""
    bitrate: float | None
    """Bits per second of the file, scaled to the view's pixels; None where unknown."""


def decode_video(name: str, sample: Sample, subjects: Sequence[Subject], config: BenchmarkConfig) -> DecodedVideo:
    """Read a video once and cut what each model sees.

    Raises:
        VideoError: if it cannot be read.
    """
    ratios = sorted({crop_ratio(subject.preprocess) for subject in subjects})
    with open_video(sample.path) as reader:
        first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
        L = min(stop - first, config.max_frames)
        first += (stop - first - L) // 2
        window: Any = WindowReader(reader, first, L)
        indices = [list(subject.preprocess.sample(window).frame_indices) for subject in subjects]
        parts: dict[float, list[Tensor]] = {ratio: [] for ratio in ratios}
        for clip in reader.iterate(first, first + L, chunk=32):
            for ratio in ratios:
                parts[ratio].append(model_view(clip.frames, ratio, config.resolution))
        bitrate = None
        if sample.path.is_file() and reader.duration_seconds > 0:
            pixels = config.resolution ** 2 / (reader.width * reader.height)
            bitrate = 8 * sample.path.stat().st_size / reader.duration_seconds * min(1.0, pixels)
        return DecodedVideo(name=name, views={ratio: torch.cat(frames) for ratio, frames in parts.items()},
                            indices=indices, fps=reader.fps, bitrate=bitrate)


def changed_clips(video: DecodedVideo, ratios: Sequence[float], change: Corruption, seed: int) -> list[Tensor]:
    """Return what each model is shown under one corruption, uint8 (T, 3, R, R); models with one view share pixels."""
    seed = video_seed(seed, video.name, change.name, change.severity)
    L = len(next(iter(video.views.values())))
    if change.domain == "order":
        order = change.frame_order(L, generator=torch.Generator().manual_seed(seed))
        return [video.views[ratio][[order[i] for i in indices]]
                for ratio, indices in zip(ratios, video.indices, strict=True)]
    shown: dict[float, tuple[Tensor, dict[int, int]]] = {}
    for ratio, view in video.views.items():
        needed = sorted({i for other, indices in zip(ratios, video.indices, strict=True) if other == ratio
                         for i in indices})
        chosen = list(range(L)) if change.domain == "window" else needed
        changed = change(view[chosen], generator=torch.Generator().manual_seed(seed), fps=video.fps,
                         reference_bitrate=video.bitrate)
        shown[ratio] = changed, {index: place for place, index in enumerate(chosen)}
    return [shown[ratio][0][[shown[ratio][1][i] for i in indices]]
            for ratio, indices in zip(ratios, video.indices, strict=True)]


def model_pixels(clip: Tensor, preprocess: Preprocess) -> Tensor:
    """Resize a view to the model's size, uint8 (T, 3, S, S)."""
    return functional.resize(clip, preprocess.image_size, preprocess.image_size, preprocess.interpolation)


def measure_video(name: str, sample: Sample, label: int, subjects: Sequence[Subject], config: BenchmarkConfig,
                  examples: Path | None = None) -> dict[str, Any]:
    """Measure all models on one video.

    Args:
        name: path below the data set.
        sample, label: the video and its class number.
        examples: folder to write example pictures to, None for none.

    Returns:
        JSON types: "video", "label", "group", "models": one {"answers": {tag: [class, probability]}, "attacks",
        "order"} per model; the class is -1 where the data set has no such class.

    Raises:
        VideoError: if the video cannot be read.
    """
    video = decode_video(name, sample, subjects, config)
    ratios = [crop_ratio(subject.preprocess) for subject in subjects]
    clean = [video.views[ratio][indices] for ratio, indices in zip(ratios, video.indices, strict=True)]
    tags, clips = [CLEAN], [[clip] for clip in clean]
    for change in config.changes():
        tags.append(f"{change.name}/{change.severity}")
        for collected, clip in zip(clips, changed_clips(video, ratios, change, config.seed), strict=True):
            collected.append(clip)
    if examples is not None:
        _write_examples(examples, tags, clips[0])
    results = []
    for subject, shown, first in zip(subjects, clips, clean, strict=True):
        answers = _answers(subject, torch.stack([model_pixels(clip, subject.preprocess) for clip in shown]), config)
        result: dict[str, Any] = {"answers": dict(zip(tags, answers, strict=True))}
        pixels = model_pixels(first, subject.preprocess)
        if config.attacks:
            result["attacks"] = _attacks(subject, pixels, label, name, config)
        if config.shuffles and len(pixels) > 1:
            result["order"] = _order(subject, pixels, name, config)
        results.append(result)
    return {"video": name, "label": label, "group": sample.group, "models": results}


@torch.no_grad()
def _answers(subject: Subject, clips: Tensor, config: BenchmarkConfig) -> list[list[float]]:
    """Return [class, probability] of each uint8 clip (N, T, 3, S, S)."""
    found = []
    for batch in clips.split(config.batch_size):
        logits = subject.logits(subject.preprocess.normalise(batch)).float().cpu()
        top = (logits / subject.temperature).softmax(1).max(1)
        found += [[int(subject.answer_of[i]), round(float(p), 5)]
                  for p, i in zip(top.values, top.indices, strict=True)]
    return found


def _attacks(subject: Subject, pixels: Tensor, label: int, name: str, config: BenchmarkConfig) -> dict[str, Any]:
    """Attack the clean clip with every attack; gradients need an `nn.Module`."""
    found: dict[str, Any] = {}
    if not isinstance(subject.model, nn.Module):
        return {attack_name: None for attack_name in config.attacks}
    model = PixelModel(subject.model, subject.preprocess)
    labels = subject.logit_of[label][None]
    for attack_name in config.attacks:
        options = dict(config.attack_options.get(attack_name, {}))
        if attack_name in ("pgd", "pgd_l2", "sparse", "geo_trap"):
            seed = video_seed(config.seed, name, attack_name, 0)
            options["generator"] = torch.Generator().manual_seed(seed)
        result = attack(model, pixels[None], labels, attack_name, **options)
        change = (result.clip[0].int() - pixels.int()).abs()
        found[attack_name] = {"answer": int(subject.answer_of[int(result.answers[0])]),
                              "success": bool(result.success[0]), "queries": result.queries,
                              "mean_change": round(float(change.float().mean()), 4), "max_change": int(change.max())}
    return found


@torch.no_grad()
def _order(subject: Subject, pixels: Tensor, name: str, config: BenchmarkConfig) -> dict[str, Any]:
    """Answer shuffled clips, and corrected ones where the model has temporal attention to correct with."""
    from marey.order.correction import NoTemporalAttentionError, permute_frames, recover_order
    from marey.order.permutations import random_permutations

    generator = torch.Generator().manual_seed(video_seed(config.seed, name, "shuffle", 0))
    orders = random_permutations(config.shuffles, len(pixels), generator)
    clips = subject.preprocess.normalise(pixels[None]).expand(config.shuffles, -1, -1, -1, -1)
    shuffled = permute_frames(clips, orders)

    def answer(batch: Tensor) -> list[int]:
        return [int(subject.answer_of[i]) for i in subject.logits(batch).argmax(1).cpu()]

    found: dict[str, Any] = {"shuffled": answer(shuffled), "corrected": None}
    if isinstance(subject.model, nn.Module):
        try:
            found["corrected"] = answer(permute_frames(shuffled, recover_order(subject.model, shuffled).path))
        except (NoTemporalAttentionError, TypeError):
            found["corrected"] = None
    return found


def _write_examples(folder: Path, tags: Sequence[str], clips: Sequence[Tensor]) -> None:
    """Write the middle frame under every change as a small JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for tag, clip in zip(tags, clips, strict=True):
        frame = functional.resize(clip[len(clip) // 2], EXAMPLE_SIDE, EXAMPLE_SIDE)
        picture = encode_jpeg(frame.contiguous(), quality=80)
        write_bytes(folder / f"{tag.replace('/', '-')}.jpg", picture.numpy().tobytes())


def run(index: DatasetIndex, subjects: Sequence[Subject], config: BenchmarkConfig, out: Path) -> Iterator[dict]:
    """Yield the entry of every video, measured now or read from an earlier run in `out` with the same settings.

    An unreadable video yields {"video", "error"}; the others go on.

    Raises:
        UserError: if `out` holds a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps({"models": [subject.name for subject in subjects], "data": index.manifest_hash,
                                      **asdict(config)}))
    settings_file, log_file = out / "settings.json", out / "answers.jsonl"
    if settings_file.is_file() and json.loads(settings_file.read_text()) != settings:
        raise UserError(f"{out}: holds a report with other settings; choose another --out, repeat the same command to "
                        "resume, or give --force")
    write_json(settings_file, settings, indent=1)
    done = {}
    if log_file.is_file():
        for line in log_file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue                                                    # empty, or cut short by a kill
            done[entry["video"]] = entry
    readable = 0
    with log_file.open("a", encoding="utf-8") as log:
        log.write("\n" if log.tell() else "")
        for position, sample in enumerate(index.samples):
            name = f"{index.relative_path(sample)}@{position}" if sample.start_seconds else index.relative_path(sample)
            entry = done.get(name)
            if entry is None:
                try:
                    entry = measure_video(name, sample, index.label_index(sample), subjects, config,
                                          None if readable else out / "examples")
                except UserError as error:
                    entry = {"video": name, "error": str(error)}
                else:
                    log.write(json.dumps(entry) + "\n")
                    log.flush()
            readable += "error" not in entry
            yield entry
