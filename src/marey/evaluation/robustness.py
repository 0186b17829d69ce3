"""Measure models on every video under every corruption, severity and attack; each video is decoded
once.

Every video leaves one line of answers on disk, so that a run goes on where it stopped; the numbers
of the report are computed from those lines (`robustness_summary`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import encode_jpeg

from marey.attacks import ATTACKS, attack, check_options
from marey.attacks.masking import masking_evidence
from marey.attacks.pixel_model import PixelModel
from marey.attacks.suite import withstand
from marey.attacks.threat_models import SUITES
from marey.checkpoints.load import load_checkpoint
from marey.corruptions import Corruption, corruption
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.perturb_plan import video_seed
from marey.errors import UserError, unknown_name
from marey.evaluation.candidates import Candidate, is_function, load_candidate
from marey.evaluation.changed_clips import (
    changed_clips,
    clean_clips,
    decode_video,
    model_pixels,
)
from marey.evaluation.pose_candidate import PoseCandidate, pose_candidate
from marey.evaluation.taught_candidate import TaughtCandidate, taught_candidate
from marey.features.video_vectors import vectors_of
from marey.files import write_bytes, write_json
from marey.inference.answers import answer_shuffled
from marey.models.outputs import outputs_of
from marey.order.permutations import random_permutations
from marey.transforms import functional

AnyCandidate = Candidate | PoseCandidate | TaughtCandidate
"""A model of clips, which may be attacked, or one that measures people or motion first."""

CLEAN = "clean"
EXAMPLE_SIDE = 64
"""Pixels of a side of each picture of a filmstrip in the report."""
EXAMPLE_FRAMES = 4


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
    suite: str | None = None
    """Threat models that stand beside `attacks`: a key of `threat_models.SUITES`."""
    at: str | int = "model"
    """Where pixels are changed: at the "model"'s size, at the "source"'s, or at a side in pixels
    that is resized to the model afterwards."""
    max_frames: int = 300
    """Source frames per video; of a longer one the middle is taken."""
    batch_size: int = 16
    """Clips per forward pass."""
    seed: int = 0
    """Of all randomness."""

    def __post_init__(self) -> None:
        self.changes()
        for name in self.attacks:
            check_options(name, self.attack_options.get(name, {}))
        for name in self.attack_options:
            if name not in self.attacks:
                raise UserError(
                    f"options are given for the attack '{name}', which is not among --attacks "
                    f"({', '.join(self.attacks) or 'none'}); add it or take the options out"
                )
        if self.suite is not None and self.suite not in SUITES:
            raise unknown_name("suite of attacks", self.suite, SUITES)
        if not self.corruptions and not self.attacks and not self.suite and not self.shuffles:
            raise UserError("nothing to measure: name corruptions or attacks")

    def changes(self) -> list[Corruption]:
        """Return every corruption at every severity.

        Raises:
            UserError: if a name, a severity or the profile is unknown.
        """
        return [
            corruption(kind, severity, self.profile)
            for kind in self.corruptions
            for severity in self.severities
        ]


def measure_video(
    name: str,
    sample: Sample,
    label: int,
    candidates: Sequence[AnyCandidate],
    config: BenchmarkConfig,
    examples: Path | None = None,
) -> dict[str, Any]:
    """Measure all models on one video.

    Args:
        name: path below the data set.
        sample, label: the video and its class number.
        examples: folder to write example pictures to, None for none.

    Returns:
        JSON types: "video", "label", "group", "models": one {"answers": {tag: [class,
        probability]}, "attacks", "order"} per model; the class is -1 where the data set has no such
        class.

    Raises:
        VideoError: if the video cannot be read.
    """
    video = decode_video(
        name,
        sample,
        [candidate.preprocess for candidate in candidates],
        at=config.at,
        max_frames=config.max_frames,
    )
    clean = clean_clips(video)
    tags, clips = [CLEAN], [[clip] for clip in clean]
    for change in config.changes():
        tags.append(f"{change.name}/{change.severity}")
        for collected, clip in zip(
            clips, changed_clips(video, change, seed=config.seed), strict=True
        ):
            collected.append(clip)
    if examples is not None:
        _write_examples(examples, tags, clips[0])

    results = []
    for candidate, shown, first, rows in zip(candidates, clips, clean, video.indices, strict=True):
        if not isinstance(candidate, Candidate):
            seconds = [video.frame_seconds[row] for row in rows]
            found = candidate.answers(shown, seconds, video.fps)
            nothing = {"attacks": dict.fromkeys(config.attacks)} if config.attacks else {}
            results.append({"answers": dict(zip(tags, found, strict=True)), **nothing})
            continue
        pixels = torch.stack(
            [model_pixels(clip, candidate.preprocess, at=config.at) for clip in shown]
        )
        answers = _answers(candidate, pixels, config.batch_size)
        result: dict[str, Any] = {"answers": dict(zip(tags, answers, strict=True))}
        clean_pixels = model_pixels(first, candidate.preprocess, at=config.at)
        if config.attacks:
            result["attacks"] = _attacks(candidate, clean_pixels, label, name, config)
        if config.suite:
            result["threats"] = _threats(candidate, clean_pixels, label, name, config)
        if config.shuffles and len(clean_pixels) > 1:
            result["order"] = _order(candidate, clean_pixels, name, config)
        results.append(result)
    return {"video": name, "label": label, "group": sample.group, "models": results}


def _answers(candidate: Candidate, clips: Tensor, batch_size: int) -> list[list[float]]:
    """Return [class, probability] of each uint8 clip (N, T, 3, S, S)."""
    found = []
    for batch in clips.split(batch_size):
        outputs = outputs_of(
            candidate.model, candidate.preprocess.normalise(batch), device=candidate.device
        )
        top = (outputs["logits"] / candidate.temperature).softmax(1).max(1)
        found += [
            [int(candidate.data_class_of[i]), round(float(p), 5)]
            for p, i in zip(top.values, top.indices, strict=True)
        ]
    return found


def _attacks(
    candidate: Candidate, pixels: Tensor, label: int, name: str, config: BenchmarkConfig
) -> dict[str, Any]:
    """Attack the clean clip with every attack; gradients need a network."""
    found: dict[str, Any] = {}
    if not candidate.has_gradients:
        return {attack_name: None for attack_name in config.attacks}
    model = PixelModel(candidate.model, candidate.preprocess)
    labels = candidate.logit_of[label][None]
    for attack_name in config.attacks:
        options = dict(config.attack_options.get(attack_name, {}))
        if "generator" in inspect.signature(ATTACKS[attack_name]).parameters:
            seed = video_seed(config.seed, name, attack_name, 0)
            options["generator"] = torch.Generator().manual_seed(seed)
        result = attack(model, pixels[None], labels, attack_name, **options)
        change = (result.clip[0].int() - pixels.int()).abs()
        found[attack_name] = {
            "answer": int(candidate.data_class_of[int(result.answers[0])]),
            "success": bool(result.success[0]),
            "queries": result.queries,
            "mean_change": round(float(change.float().mean()), 4),
            "max_change": int(change.max()),
        }
    return found


def _threats(
    candidate: Candidate, pixels: Tensor, label: int, name: str, config: BenchmarkConfig
) -> dict[str, Any] | None:
    """Put the clean clip under every threat model of the suite, and gather what the alarms of
    masking compare; None without gradients."""
    if not candidate.has_gradients:
        return None
    model = PixelModel(candidate.model, candidate.preprocess)
    labels, seed = candidate.logit_of[label][None], video_seed(config.seed, name, "threats", 0)
    found: dict[str, Any] = {}
    for threat in SUITES[config.suite or ""]:
        result = withstand(model, pixels[None], labels, threat, seed=seed)
        found[threat.name] = {
            "right": bool(result.right[0]),
            "robust": bool(result.robust[0]),
            "won_by": result.won_by[0],
            "queries": int(result.queries[0]),
        }
    generator = torch.Generator().manual_seed(seed)
    evidence = masking_evidence(model, pixels[None], labels, generator=generator)
    return {"models": found, "evidence": {key: bool(value[0]) for key, value in evidence.items()}}


def _order(
    candidate: Candidate, pixels: Tensor, name: str, config: BenchmarkConfig
) -> dict[str, Any]:
    """Answer shuffled clips, and corrected ones where the model has temporal attention to correct
    with."""
    generator = torch.Generator().manual_seed(video_seed(config.seed, name, "shuffle", 0))
    orders = random_permutations(config.shuffles, len(pixels), generator)[None]
    clip = candidate.preprocess.normalise(pixels[None])
    found = answer_shuffled(
        candidate.model,
        clip,
        orders,
        corrected=True,
        batch_size=config.batch_size,
        device=candidate.device,
    )

    def classes(name: str) -> list[int] | None:
        if f"{name}_logits" not in found:
            return None
        return [int(candidate.data_class_of[i]) for i in found[f"{name}_logits"][0].argmax(1)]

    return {"shuffled": classes("shuffled"), "corrected": classes("corrected")}


def _write_examples(folder: Path, tags: Sequence[str], clips: Sequence[Tensor]) -> None:
    """Write four frames under every change side by side as a small JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for tag, clip in zip(tags, clips, strict=True):
        rows = [int((i + 0.5) / EXAMPLE_FRAMES * len(clip)) for i in range(EXAMPLE_FRAMES)]
        frames = functional.resize(clip[rows], EXAMPLE_SIDE, EXAMPLE_SIDE)
        strip = torch.cat(list(frames), dim=-1)
        picture = encode_jpeg(strip.contiguous().cpu(), quality=60)
        write_bytes(folder / f"{tag.replace('/', '-')}.jpg", picture.numpy().tobytes())


def open_candidate(source: str, class_names: Sequence[str], device: str = "cpu") -> AnyCandidate:
    """Load a model of clips, of poses or of measures for a comparison, see `load_candidate`."""
    if not is_function(source):
        checkpoint = load_checkpoint(source)
        if checkpoint.pose_sampling is not None:
            return pose_candidate(source, checkpoint, class_names, device)
        if vectors_of(checkpoint.model):
            return taught_candidate(source, checkpoint, class_names, device)
    return load_candidate(source, class_names, device)


def video_name(index: DatasetIndex, position: int) -> str:
    """Return the name of a video in the answers; a stretch of a video carries its position."""
    sample = index.samples[position]
    name = index.relative_path(sample)
    return f"{name}@{position}" if sample.start_seconds else name


def run(
    index: DatasetIndex,
    candidates: Sequence[AnyCandidate],
    config: BenchmarkConfig,
    out: Path,
) -> Iterator[dict]:
    """Yield the entry of every video, measured now or read from an earlier run in `out` with the
    same settings.

    An unreadable video yields {"video", "error"}; the others go on.

    Raises:
        UserError: if `out` holds a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [candidate.name for candidate in candidates]
    settings = json.loads(
        json.dumps({"models": names, "data": index.manifest_hash, **asdict(config)})
    )
    settings_file, log_file = out / "settings.json", out / "answers.jsonl"
    if settings_file.is_file() and json.loads(settings_file.read_text()) != settings:
        raise UserError(
            f"{out}: holds a report with other settings; choose another --out, repeat the same "
            "command to resume, or give --force"
        )
    write_json(settings_file, settings, indent=1)
    done = {}
    if log_file.is_file():
        for line in log_file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # empty, or cut short by a kill
            done[entry["video"]] = entry
    readable = 0
    with log_file.open("a", encoding="utf-8") as log:
        log.write("\n" if log.tell() else "")
        for position, sample in enumerate(index.samples):
            name = video_name(index, position)
            entry = done.get(name)
            if entry is None:
                try:
                    entry = measure_video(
                        name,
                        sample,
                        index.label_index(sample),
                        candidates,
                        config,
                        None if readable else out / "examples",
                    )
                except UserError as error:
                    entry = {"video": name, "error": str(error)}
                else:
                    log.write(json.dumps(entry) + "\n")
                    log.flush()
            readable += "error" not in entry
            yield entry
