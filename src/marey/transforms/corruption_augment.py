"""Augmentation by corruptions that the robustness test does not hold, and by PixMix-like mixing.

Options of every recipe: `--set augment.corruption=mixed --set augment.corruption_probability=0.75`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tv

from marey.corruptions import corruption
from marey.corruptions.weather import plasma
from marey.errors import unknown_name

TRAIN_KINDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "temporal": (("jumble", "freeze", "frame_sampling"),),
    "spatial": (("speckle_noise", "gaussian_noise", "random_rotate"),),
    "mixed": (
        ("jpeg_compression",),
        ("jumble", "freeze", "frame_sampling"),
        ("speckle_noise", "gaussian_noise"),
        ("random_rotate",),
    ),
}
"""Mode -> groups of kinds to train on; a group is drawn, then a kind of it, then a severity of 1,
2, 3."""
TEST_KINDS: dict[str, tuple[str, ...]] = {
    "temporal": ("box_jumble", "reverse_sampling"),
    "spatial": ("shot_noise", "static_rotate", "translate", "impulse_noise"),
    "mixed": (
        "box_jumble",
        "reverse_sampling",
        "shot_noise",
        "static_rotate",
        "translate",
        "impulse_noise",
    ),
}
"""Mode -> kinds kept for the test, at severities 4 and 5 in the source."""
TRAIN_SEVERITIES = (1, 2, 3)
MODES = ("none", *TRAIN_KINDS, "pixmix")


def corrupt_for_training(
    frames: Tensor, mode: str, probability: float, generator: Generator
) -> Tensor:
    """Change a training clip by a random corruption that the test does not hold.

    Schiappa et al., CVPR 2023, train and test on different kinds and severities. Their "mixed"
    draws the training kinds from the test's too; ours keeps `TEST_KINDS` out of every mode.
    Temporal kinds reorder the sampled clip, as theirs do.

    Args:
        frames: uint8, (T, 3, H, W).
        mode: "none", "temporal", "spatial", "mixed" or "pixmix".
        probability: that the clip is changed at all.
        generator: randomness.

    Raises:
        UserError: if the mode is unknown.
    """
    if mode not in MODES:
        raise unknown_name("corruption augmentation", mode, MODES)
    if mode == "none" or float(torch.rand((), generator=generator)) >= probability:
        return frames
    if mode == "pixmix":
        return pixmix(frames, generator)
    group = _pick(TRAIN_KINDS[mode], generator)
    kind, severity = _pick(group, generator), _pick(TRAIN_SEVERITIES, generator)
    return corruption(kind, severity)(frames, generator=generator)


def pixmix(frames: Tensor, generator: Generator, *, rounds: int = 4, severity: int = 3) -> Tensor:
    """Mix a clip with augmented copies of itself and with a fractal picture, the same for all its
    frames.

    Hendrycks et al., "PixMix", CVPR 2022: 0 to `rounds` mixings by a weighted sum or product of
    either the augmented clip or a picture. Their pictures are a download of fractals; ours are
    plasma clouds in random colours.

    Args:
        frames: uint8, (T, 3, H, W).
        generator: randomness.
        rounds: most mixings.
        severity: of the augmentations and the mixing weights; higher keeps more of the clip.
    """
    mixed = (_augmented(frames, severity, generator) if _coin(generator) else frames).float() / 255
    picture = fractal_picture(frames.shape[-2], frames.shape[-1], generator).to(frames.device)
    for _ in range(int(torch.randint(rounds + 1, (), generator=generator))):
        other = (
            _augmented(frames, severity, generator).float() / 255 if _coin(generator) else picture
        )
        mixed = (_sum if _coin(generator) else _product)(mixed, other, severity, generator).clamp(
            0, 1
        )
    return (mixed * 255).round().to(torch.uint8)


def fractal_picture(height: int, width: int, generator: Generator) -> Tensor:
    """Draw a plasma cloud between random colours, float (3, height, width) in [0, 1]."""
    size = 2 ** (max(height, width, 2) - 1).bit_length()
    maps = plasma(
        3, size, 1.5 + float(torch.rand((), generator=generator)), generator, torch.device("cpu")
    )
    return maps[:, :height, :width]


def _pick(choices: tuple, generator: Generator):  # type: ignore[no-untyped-def, type-arg]
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _coin(generator: Generator) -> bool:
    return float(torch.rand((), generator=generator)) < 0.5


def _augmented(frames: Tensor, severity: int, generator: Generator) -> Tensor:
    """Apply one of PixMix's augmentations to the whole clip; none of them is a test corruption."""
    amount = severity / 10 * float(torch.rand((), generator=generator))
    sign = 1 if _coin(generator) else -1
    operations: tuple[Callable[[], Tensor], ...] = (
        lambda: tv.autocontrast(frames),
        lambda: tv.equalize(frames),
        lambda: tv.posterize(frames, bits=max(1, 4 - int(4 * amount))),
        lambda: tv.solarize(frames, threshold=256 * (1 - amount)),
        lambda: tv.affine(
            frames, angle=0.0, translate=[0, 0], scale=1.0, shear=[sign * 30 * amount, 0.0]
        ),
    )
    return _pick(operations, generator)()


def _weights(severity: int, generator: Generator) -> tuple[float, float]:
    """Draw the two weights of PixMix: Beta(s, 1) and Beta(1, s), or 1 + Beta(1, s) and
    -Beta(1, s)."""
    first, second = (float(u) for u in torch.rand(2, generator=generator))
    small = 1 - second ** (1 / severity)
    if _coin(generator):
        return first ** (1 / severity), small
    return 1 + (1 - first ** (1 / severity)), -small


def _sum(clip: Tensor, other: Tensor, severity: int, generator: Generator) -> Tensor:
    a, b = _weights(severity, generator)
    return ((clip * 2 - 1) * a + (other * 2 - 1) * b + 1) / 2


def _product(clip: Tensor, other: Tensor, severity: int, generator: Generator) -> Tensor:
    a, b = _weights(severity, generator)
    return (clip * 2).clamp(min=1e-6) ** a * (other * 2).clamp(min=1e-6) ** b / 2
