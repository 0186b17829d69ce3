"""A small data set in the YouTube-8M format, made here: short local events in long distractors,
with sound.

What a video is about is planted as events of a few seconds in which two visual motifs take turns,
second by second, while two sound motifs do. The same motifs also stand alone elsewhere for as many
seconds as an event shows them, so which motifs occur, and for how long, says little; which occur
close together says everything. A leaf class is a pair of visual motifs, its parent a pair of sound
motifs.

Held out by construction: scenes, drifts and the looks of the motifs come from pools that the
partitions do not share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.datasets.youtube8m import FrameExample, quantize, write_examples
from marey.datasets.youtube8m_labels import write_vocabulary
from marey.datasets.youtube8m_shards import write_sidecar
from marey.errors import UserError
from marey.files import write_csv

CLASSES = {
    "Music": ("Guitar", "Drums", "Piano"),
    "Sports": ("Boxing", "Tennis", "Diving"),
    "Food": ("Baking", "Grilling", "Salad"),
    "Vehicle": ("Racing", "Tractor", "Tram"),
    "Animal": ("Dog", "Horse", "Parrot"),
    "Game": ("Chess", "Arcade", "Cards"),
}
"""Parent -> leaves; the vocabulary is the leaves, hierarchy.csv adds the parents."""
PARTITIONS = {"train": 1200, "validate": 300, "test": 600}
"""Videos of each partition."""


@dataclass(frozen=True, kw_only=True)
class MiniWorld:
    """How the videos are drawn."""

    dims: tuple[int, int] = (32, 16)
    """Values a second of `rgb` and `audio` (the real data has 1024 and 128)."""
    motifs: tuple[int, int] = (8, 4)
    """Visual and sound motifs that all classes share."""
    seconds: tuple[int, int] = (30, 44)
    """Shortest and longest video."""
    event_seconds: tuple[int, int] = (6, 8)
    """Shortest and longest event."""
    decoys: float = 0.15
    """Lone motifs a second, in either modality; each lasts half as long as an event."""
    strength: float = 4.0
    """Length of a motif; a scene has length 1."""
    noise: float = 1.0
    """Expected length of the noise of a second."""
    scenes: int = 12
    """Backgrounds in the pool of a partition."""
    looks: int = 6
    """Variants of every motif in the pool of a partition."""
    look_change: float = 0.25
    """How far a look is from its motif, in lengths of the motif."""


def leaf_names() -> list[str]:
    """Return the leaf classes in the order of their label ids."""
    return [leaf for leaves in CLASSES.values() for leaf in leaves]


def unit_rows(values: NDArray) -> NDArray:
    """Scale rows to length 1."""
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


class Pool:
    """What one partition draws a modality from: motifs common to all partitions, looks and scenes
    of its own."""

    def __init__(self, world: MiniWorld, modality: int, seed: int, partition: int) -> None:
        """Draw the pool; motifs depend on the seed only."""
        dim, count = world.dims[modality], world.motifs[modality]
        motifs = unit_rows(np.random.default_rng([seed, modality]).normal(size=(count, dim)))
        own = np.random.default_rng([seed, modality, 1 + partition])
        looks = unit_rows(own.normal(size=(count, world.looks, dim))) * world.look_change
        self.looks = world.strength * unit_rows(motifs[:, None] + looks)  # (motif, look, dim)
        self.scenes = unit_rows(own.normal(size=(world.scenes, dim)))
        self.pairs = list(combinations(range(count), 2))

    def background(self, seconds: int, world: MiniWorld, generator: np.random.Generator) -> NDArray:
        """Return scenes of 8 to 20 seconds with noise, (T, dim)."""
        dim = self.scenes.shape[1]
        frames, t = world.noise * generator.normal(size=(seconds, dim)) / dim**0.5, 0
        while t < seconds:
            length = int(generator.integers(8, 21))
            frames[t : t + length] += self.scenes[generator.integers(len(self.scenes))]
            t += length
        return frames

    def show(
        self,
        frames: NDArray,
        motif: int,
        start: int,
        length: int,
        step: int,
        generator: np.random.Generator,
    ) -> None:
        """Add a motif in one of its looks to every `step`-th of some seconds."""
        frames[start : start + length : step] += self.looks[
            motif, generator.integers(self.looks.shape[1])
        ]


def draw_video(
    name: str, pools: tuple[Pool, Pool], world: MiniWorld, generator: np.random.Generator
) -> tuple[FrameExample, list[tuple[int, int, int]]]:
    """Draw one video with one to three labels.

    Returns:
        The example, and its events as (label, start second, end second).
    """
    T = int(generator.integers(world.seconds[0], world.seconds[1] + 1))
    frames = [pool.background(T, world, generator) for pool in pools]
    for pool, track in zip(pools, frames, strict=True):
        for _ in range(generator.poisson(world.decoys * T)):
            length = (
                int(generator.integers(world.event_seconds[0], world.event_seconds[1] + 1)) // 2
            )
            pool.show(
                track,
                int(generator.integers(len(pool.looks))),
                int(generator.integers(T)),
                length,
                1,
                generator,
            )
    labels = generator.choice(
        len(leaf_names()), size=generator.choice([1, 2, 3], p=[0.5, 0.35, 0.15]), replace=False
    )
    events = []
    for label in labels.tolist():
        parent = label // len(next(iter(CLASSES.values())))
        for _ in range(int(generator.integers(1, 3))):
            length = int(generator.integers(world.event_seconds[0], world.event_seconds[1] + 1))
            start = int(generator.integers(T - length + 1))
            for pool, track, pair in zip(
                pools, frames, (pools[0].pairs[label], pools[1].pairs[parent]), strict=True
            ):
                first = int(generator.integers(2))
                for turn in (0, 1):
                    pool.show(
                        track, pair[(first + turn) % 2], start + turn, length - turn, 2, generator
                    )
            events.append((label, start, start + length))
    arrays = {key: quantize(track) for key, track in zip(("rgb", "audio"), frames, strict=True)}
    return FrameExample(id=name, labels=tuple(sorted(labels.tolist())), features=arrays), sorted(
        events
    )


def render_youtube8m_mini(
    out: str | Path,
    *,
    videos: Mapping[str, int] | None = None,
    seed: int = 0,
    world: MiniWorld | None = None,
    shards: int = 4,
) -> Path:
    """Write the data set: train*, validate* and test* shards, vocabulary, hierarchy, events and a
    description.

    Args:
        out: new folder.
        videos: partition -> number of videos; default `PARTITIONS`.
        seed: same seed, same bytes.
        world: how videos are drawn.
        shards: files a partition.

    Raises:
        UserError: if the folder already holds something or a partition is unknown.
    """
    out, world, sizes = (
        Path(out),
        world or MiniWorld(),
        dict(PARTITIONS if videos is None else videos),
    )
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: already holds something; choose another --out")
    for name in sizes:
        if name not in PARTITIONS:
            raise UserError(
                f"partition '{name}' is unknown; it must be one of {', '.join(PARTITIONS)}"
            )
    pairs = world.motifs[0] * (world.motifs[0] - 1) // 2
    if pairs < len(leaf_names()) or world.motifs[1] * (world.motifs[1] - 1) // 2 < len(CLASSES):
        raise UserError(
            f"{world.motifs} motifs give too few pairs for {len(leaf_names())} leaves and "
            f"{len(CLASSES)} parents; use at least 7 and 4"
        )
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for partition, (name, count) in enumerate((name, sizes.get(name, 0)) for name in PARTITIONS):
        pools = (Pool(world, 0, seed, partition), Pool(world, 1, seed, partition))
        drawn = [
            draw_video(
                f"{name[0]}{number:05d}",
                pools,
                world,
                np.random.default_rng([seed, 7, partition, number]),
            )
            for number in range(count)
        ]
        rows += [
            [example.id, leaf_names()[label], start, end]
            for example, events in drawn
            for label, start, end in events
        ]
        for shard, numbers in enumerate(
            np.array_split(np.arange(count), min(shards, count)) if count else []
        ):
            write_examples(
                out / f"{name}{shard:04d}.tfrecord", (drawn[number][0] for number in numbers)
            )
    write_csv(out / "events.csv", [["id", "label", "start_seconds", "end_seconds"], *rows])
    paths = [
        [leaf_names().index(leaf), f"{parent}:{leaf}"]
        for parent, leaves in CLASSES.items()
        for leaf in leaves
    ]
    write_csv(out / "hierarchy.csv", [["Index", "Path"], *paths])
    write_vocabulary(out / "vocabulary.csv", leaf_names())
    write_sidecar(
        out, dict(zip(("rgb", "audio"), world.dims, strict=True)), leaf_names(), seed=seed
    )
    return out
