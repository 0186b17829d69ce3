"""Features that `benchmarks.trust` reads: videos as they are and under corruptions, computed once.

The encoder is "frames" of `marey teach` (eight frames at 4 per second from the middle of a video).
Corruptions change the picture at 224 x 224 before it is resized; one kind of each category was
named before anything was measured.
"""

from __future__ import annotations

import csv
import os
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from marey.checkpoints.encoders import LoadedEncoder, load_encoder
from marey.corruptions import corruption
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.manifest import read_manifest
from marey.evaluation.changed_clips import (
    changed_clips,
    clean_clips,
    decode_video,
    model_pixels,
)
from marey.features.poses import pose_vector
from marey.features.video_vectors import VideoVectors
from marey.files import atomic
from marey.inference.picture_quality import PictureQuality, picture_quality
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.synthetic.dataset import PackedClips, RenderPlan, render_dataset
from marey.video.clip import Clip

KINDS = (
    "gaussian_noise",
    "motion_blur",
    "jpeg_compression",
    "fog",
    "h264_crf",
    "freeze",
    "translate",
)
"""One corruption of each category."""
SEVERITIES = (1, 3, 5)
RENDERS = 360
RENDER_PLAN = RenderPlan(size=96, reversals="none", seed=16)
"""The sum of scores was chosen on these."""
NEW_RENDERS = 240
NEW_RENDER_PLAN = RenderPlan(size=160, num_frames=24, fps=12.0, reversals="none", seed=17)
"""Rendered after that choice, dense enough to measure motion."""
VECTORS = ("frames", "motion")
MAX_FRAMES = 100
"""Source frames around the middle of a video that are decoded."""


@dataclass(frozen=True)
class Videos:
    """Labelled videos of one data set."""

    name: str
    paths: list[Path]
    labels: list[str]
    groups: list[str]

    def every(self, step: int) -> Videos:
        """Return every `step`-th video."""
        return Videos(self.name, self.paths[::step], self.labels[::step], self.groups[::step])


def open_videos(name: str, data: Path) -> Videos:
    """Return a data set of `data`; "clips" are the single clips beside it, each its own class."""
    if name == "clips":
        paths = sorted(path for path in (data.parent / name).iterdir() if path.suffix != ".md")
        names = [path.stem for path in paths]
        return Videos(name, paths, names, names)
    with (data / name / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    root = data / name if (data / name / rows[0]["path"]).exists() else data
    return Videos(
        name,
        [root / row["path"] for row in rows],
        [row["label"] for row in rows],
        [row.get("group") or f"video {number}" for number, row in enumerate(rows)],
    )


def tags() -> list[str]:
    """Return "clean" and every corruption as "kind/severity"."""
    return ["clean", *(f"{kind}/{severity}" for kind in KINDS for severity in SEVERITIES)]


def frame_features(videos: Videos, folder: Path, *, corrupted: bool) -> dict[str, Tensor]:
    """Return the embeddings (N, D) of some videos by tag, stored in `folder` video by video.

    Args:
        corrupted: whether every tag of `tags` is computed, or "clean" alone.
    """
    wanted = tags() if corrupted else ["clean"]
    changes = [corruption(kind, severity) for kind in KINDS for severity in SEVERITIES]
    loaded = load_encoder("frames")
    rows: dict[str, list[Tensor]] = {tag: [] for tag in wanted}
    for path in videos.paths:
        stored = folder / videos.name / f"{path.stem}.safetensors"
        found = load_file(stored) if stored.exists() else {}
        if not set(wanted) <= set(found):
            video = decode_video(
                path.name,
                Sample(path=path, label=None),
                [loaded.preprocess],
                at=224,
                max_frames=MAX_FRAMES,
            )
            clips = clean_clips(video)
            if corrupted:
                clips += [changed_clips(video, change, seed=0)[0] for change in changes]
            found = {}
            for tag, clip in zip(wanted, clips, strict=True):
                found[tag] = encoded(clip, loaded)
            stored.parent.mkdir(parents=True, exist_ok=True)
            with atomic(stored) as temporary:
                save_file(found, temporary)
        for tag in wanted:
            rows[tag].append(found[tag].float())
    return {tag: torch.stack(parts) for tag, parts in rows.items()}


def picture_flaws(videos: Videos, folder: Path, *, corrupted: bool) -> dict[str, Tensor]:
    """Return by tag in which videos, bool (N,), `marey predict` warns of the pictures themselves;
    what was measured is stored video by video.

    Args:
        corrupted: whether every tag of `tags` is looked at, or "clean" alone.
    """
    wanted = tags() if corrupted else ["clean"]
    changes = [corruption(kind, severity) for kind in KINDS for severity in SEVERITIES]
    shown = load_encoder("frames").preprocess
    rows: dict[str, list[bool]] = {tag: [] for tag in wanted}
    for path in videos.paths:
        stored = folder / "picture_quality" / videos.name / f"{path.stem}.safetensors"
        found = load_file(stored) if stored.exists() else {}
        if not set(wanted) <= set(found):
            video = decode_video(
                path.name, Sample(path=path, label=None), [shown], at=224, max_frames=MAX_FRAMES
            )
            clips = clean_clips(video)
            if corrupted:
                clips += [changed_clips(video, change, seed=0)[0] for change in changes]
            found = {
                tag: torch.tensor(astuple(picture_quality(clip)))
                for tag, clip in zip(wanted, clips, strict=True)
            }
            stored.parent.mkdir(parents=True, exist_ok=True)
            with atomic(stored) as temporary:
                save_file(found, temporary)
        for tag in wanted:
            noise, blur, repeated = found[tag].tolist()
            quality = PictureQuality(noise=noise, blur=blur, repeated=repeated)
            rows[tag].append(bool(quality.flaws))
    return {tag: torch.tensor(parts) for tag, parts in rows.items()}


def render_features(folder: Path) -> tuple[Tensor, list[str], list[str]]:
    """Return embeddings (N, D), labels and groups of rendered people, 15 actions; stored."""
    index = rendered(folder / "renders", RENDERS, RENDER_PLAN)
    stored = folder / f"renders-{RENDERS}.safetensors"
    if not stored.exists():
        loaded = load_encoder("frames")
        rows = [encoded(clip["frames"], loaded) for clip in PackedClips(folder / "renders")]
        with atomic(stored) as temporary:
            save_file({"clean": torch.stack(rows)}, temporary)
    labels = [str(sample.label) for sample in index.samples]
    return load_file(stored)["clean"].float(), labels, [str(s.group) for s in index.samples]


def new_render_features(folder: Path) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return what `VECTORS` measure of other renders, name -> (N, D), their labels and groups;
    stored clip by clip."""
    index = rendered(folder / "new_renders", NEW_RENDERS, NEW_RENDER_PLAN)
    loaded = load_encoder("frames")
    vectors = VideoVectors([name for name in VECTORS if name != "frames"])
    found: dict[str, list[Tensor]] = {name: [] for name in VECTORS}
    for number, packed in enumerate(PackedClips(folder / "new_renders")):
        stored = folder / "new_render_features" / f"{number:04d}.safetensors"
        if not stored.exists():
            frames = packed["frames"]
            clip = Clip(
                frames=frames,
                frame_indices=tuple(range(len(frames))),
                frame_seconds=tuple(t / NEW_RENDER_PLAN.fps for t in range(len(frames))),
                fps=NEW_RENDER_PLAN.fps,
                path=f"render {number}",
            )
            stored.parent.mkdir(parents=True, exist_ok=True)
            with atomic(stored) as temporary:
                # "frames" are looked at 4 times a second
                save_file(
                    {"frames": encoded(frames[1::3], loaded), **vectors.of_clip(clip)},
                    temporary,
                )
        for name, values in load_file(stored).items():
            found[name].append(values.float())
    labels = [str(sample.label) for sample in index.samples]
    groups = [str(sample.group) for sample in index.samples]
    return {name: torch.stack(rows) for name, rows in found.items()}, labels, groups


def rendered(folder: Path, count: int, plan: RenderPlan) -> DatasetIndex:
    """Return rendered people, rendered where they are missing."""
    return read_manifest(
        render_dataset(folder, count, plan, workers=0) / "manifest.csv", frames=folder
    )


@torch.inference_mode()
def encoded(frames: Tensor, loaded: LoadedEncoder) -> Tensor:
    """Return the embedding (D,) of the frames (8, 3, S, S) of one clip."""
    pixels = model_pixels(frames, loaded.preprocess)
    outputs = loaded.encoder(loaded.preprocess.normalise(pixels[None]))
    return outputs["embedding"][0].half().clone()


def pose_features(videos: Videos, folder: Path) -> Tensor:
    """Return the pose vectors (N, E) of some videos; their poses are stored in `folder`."""
    rows = []
    for path in videos.paths:
        stored = folder / "poses" / videos.name / f"{path.stem}.npz"
        if not stored.exists():
            stored.parent.mkdir(parents=True, exist_ok=True)
            read_poses(path).save(stored)
        rows.append(pose_vector(PoseTracks.load(stored)))
    return torch.stack(rows)


if __name__ == "__main__":
    features = Path(os.environ.get("FEATURES", "runs/trust_features"))
    root = Path("../shared/data")
    frame_features(open_videos("clips", root), features, corrupted=False)
    frame_features(open_videos("surv_fight", root), features, corrupted=False)
    frame_features(open_videos("ut_interaction", root), features, corrupted=True)
    frame_features(open_videos("surv_fight", root).every(6), features, corrupted=True)
    for name, step in (("ut_interaction", 1), ("surv_fight", 6)):
        picture_flaws(open_videos(name, root).every(step), features, corrupted=True)
        picture_flaws(open_videos(name, root), features, corrupted=False)
