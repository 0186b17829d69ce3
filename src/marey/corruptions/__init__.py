"""Natural change to a clip: thirty-two kinds, severities 1 to 5, constants of three papers.

    marey.corrupt(clip, "gaussian_noise", severity=3, generator=generator)

A corruption takes a clip and gives a clip of the same shape and dtype. `KINDS` says of each kind where it applies:

* `pixel`: on each shown frame, at short side 256 and centre crop 224; other sizes scale the radii.
* `index`: a new order of the SOURCE frames, before a model's frames are sampled (`temporal_indices`).
* `window`: on the consecutive source frames of the whole window (codecs; the average of neighbouring frames).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marey.corruptions.profiles import PROFILES, SEVERITIES, source_profile, strength
from marey.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["CATEGORIES", "KINDS", "PROFILES", "SEVERITIES", "Kind", "corrupt", "kind_for", "list_corruptions",
           "source_profile", "strength", "temporal_indices"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where one kind of corruption lives and how it behaves."""

    function: str
    """"module:function" inside this package."""
    category: str
    """noise, blur, digital, weather, codec, temporal or camera; averages are taken per category."""
    where: str
    """pixel, index or window (see the module)."""
    coherence: str
    """frame: drawn anew for each frame; clip: one draw for all frames; none: no randomness."""
    monotone: bool = True
    """Whether a higher severity moves the clip further from the clean one, on average. The exceptions: qscale stops at
    31; saturate first greys, then floods; fog 4 is as dense as fog 3; at 90 degrees a rotation has no black corners;
    jumble disturbs less with every severity, box_jumble and reversal depend on the length."""


KINDS: dict[str, Kind] = {
    "gaussian_noise": Kind(function="noise:gaussian_noise", category="noise", where="pixel", coherence="frame"),
    "shot_noise": Kind(function="noise:shot_noise", category="noise", where="pixel", coherence="frame"),
    "impulse_noise": Kind(function="noise:impulse_noise", category="noise", where="pixel", coherence="frame"),
    "speckle_noise": Kind(function="noise:speckle_noise", category="noise", where="pixel", coherence="frame"),
    "defocus_blur": Kind(function="blur:defocus_blur", category="blur", where="pixel", coherence="none"),
    "motion_blur": Kind(function="blur:motion_blur", category="blur", where="pixel", coherence="frame"),
    "zoom_blur": Kind(function="blur:zoom_blur", category="blur", where="pixel", coherence="none"),
    "gaussian_blur": Kind(function="blur:gaussian_blur", category="blur", where="pixel", coherence="none"),
    "jpeg_compression": Kind(function="digital:jpeg_compression", category="digital", where="pixel",
                             coherence="none"),
    "contrast": Kind(function="digital:contrast", category="digital", where="pixel", coherence="none"),
    "brightness": Kind(function="digital:brightness", category="digital", where="pixel", coherence="none"),
    "saturate": Kind(function="digital:saturate", category="digital", where="pixel", coherence="none",
                     monotone=False),
    "pixelate": Kind(function="digital:pixelate", category="digital", where="pixel", coherence="none"),
    "fog": Kind(function="weather:fog", category="weather", where="pixel", coherence="frame", monotone=False),
    "rain": Kind(function="weather:rain", category="weather", where="pixel", coherence="frame"),
    "mpeg1": Kind(function="codec:mpeg1", category="codec", where="window", coherence="none", monotone=False),
    "mpeg2": Kind(function="codec:mpeg2", category="codec", where="window", coherence="none", monotone=False),
    "h264_crf": Kind(function="codec:h264_crf", category="codec", where="window", coherence="none"),
    "h264_abr": Kind(function="codec:h264_abr", category="codec", where="window", coherence="none"),
    "h265_crf": Kind(function="codec:h265_crf", category="codec", where="window", coherence="none"),
    "h265_abr": Kind(function="codec:h265_abr", category="codec", where="window", coherence="none"),
    "frame_rate": Kind(function="codec:frame_rate", category="codec", where="window", coherence="none"),
    "bit_error": Kind(function="codec:bit_error", category="codec", where="window", coherence="clip"),
    "packet_loss": Kind(function="codec:packet_loss", category="codec", where="window", coherence="clip"),
    "frame_sampling": Kind(function="temporal:frame_sampling", category="temporal", where="index",
                           coherence="none"),
    "reverse_sampling": Kind(function="temporal:reverse_sampling", category="temporal", where="index",
                             coherence="none", monotone=False),
    "jumble": Kind(function="temporal:jumble", category="temporal", where="index", coherence="clip", monotone=False),
    "box_jumble": Kind(function="temporal:box_jumble", category="temporal", where="index", coherence="clip",
                       monotone=False),
    "freeze": Kind(function="temporal:freeze", category="temporal", where="index", coherence="clip"),
    "static_rotate": Kind(function="camera:static_rotate", category="camera", where="pixel", coherence="none",
                          monotone=False),
    "random_rotate": Kind(function="camera:random_rotate", category="camera", where="pixel", coherence="frame"),
    "translate": Kind(function="camera:translate", category="camera", where="pixel", coherence="clip"),
}
"""Every kind under its public name."""

_OTHER_MEANING = {
    ("motion_blur", "mini-kinetics-c"): Kind(function="blur:neighbour_average", category="blur", where="window",
                                             coherence="none"),
    ("fog", "mini-kinetics-c"): Kind(function="weather:fog", category="weather", where="pixel", coherence="clip",
                                      monotone=False),
}
"""Kinds to which one profile gives another meaning."""

CATEGORIES = tuple(dict.fromkeys(kind.category for kind in KINDS.values()))


def list_corruptions() -> list[str]:
    """Return the names `corrupt` takes, grouped by category."""
    return list(KINDS)


def kind_for(name: str, profile: str = "rose") -> Kind:
    """Return what a name means in a profile.

    Raises:
        UserError: if the name or the profile is unknown; the nearest known one is named.
    """
    if name not in KINDS:
        raise unknown_name("corruption", name, KINDS)
    return _OTHER_MEANING.get((name, source_profile(name, profile)), KINDS[name])


def _function(kind: Kind) -> Callable[..., Any]:
    module, attribute = kind.function.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def _generator(generator: Generator | None) -> Generator:
    import torch

    return torch.Generator().manual_seed(0) if generator is None else generator


def temporal_indices(name: str, num_frames: int, severity: int = 3, *, generator: Generator | None = None,
                     profile: str = "rose") -> list[int]:
    """Return which source frame a temporal kind shows at each of `num_frames` moments.

    Args:
        name: a kind whose `where` is "index".
        num_frames: source frames, at least 1.
        severity: 1 to 5.
        generator: randomness; a fresh one with seed 0 when absent.
        profile: whose constants.

    Raises:
        UserError: if the kind is not a temporal one, or there is no frame.
    """
    kind = kind_for(name, profile)
    if kind.where != "index":
        temporal = [other for other, value in KINDS.items() if value.where == "index"]
        raise UserError(f"'{name}' changes pixels, not the order of frames; temporal kinds are {', '.join(temporal)}")
    if num_frames < 1:
        raise UserError(f"a video needs at least one frame to reorder, got {num_frames}")
    arguments = strength(name, severity, profile)
    function = _function(kind)
    if "generator" in inspect.signature(function).parameters:
        arguments["generator"] = _generator(generator)
    return function(num_frames, **arguments)


def corrupt(clip: Tensor, kind: str, severity: int = 3, *, generator: Generator | None = None, profile: str = "rose",
            fps: float = 30.0, reference_bitrate: float | None = None) -> Tensor:
    """Return a corrupted copy of a clip, on the clip's device (codecs and JPEG work on the CPU and copy back).

    The caller decides which frames to give: the shown ones for pixel kinds, all consecutive ones for `index` and
    `window` kinds (`KINDS[kind].where`).

    Args:
        clip: uint8, (T, 3, H, W), RGB.
        kind: one of `list_corruptions()`.
        severity: 1 (mild) to 5.
        generator: randomness; a fresh one with seed 0 when absent. Same generator state, same result.
        profile: whose constants: "rose", "imagenet-c" or "mini-kinetics-c" (`source_profile` says where a kind that
            the profile lacks takes them from).
        fps: frames per second of the clip, for rate control and `frame_rate`.
        reference_bitrate: bits per second of the source, for the average-bit-rate kinds.

    Returns:
        uint8, (T, 3, H, W).

    Raises:
        UserError: if the clip is not uint8 (T, 3, H, W), or kind, profile or severity are unknown.
    """
    import torch

    if not isinstance(clip, torch.Tensor) or clip.dtype != torch.uint8:
        got = clip.dtype if isinstance(clip, torch.Tensor) else type(clip).__name__
        raise UserError(f"clip is a uint8 tensor with values 0 to 255, got {got}; corrupt before normalising")
    if clip.dim() != 4 or clip.shape[1] != 3 or 0 in clip.shape:
        raise UserError(f"clip has axes (T, 3, H, W) with at least one frame, got {tuple(clip.shape)}")
    meaning = kind_for(kind, profile)
    if meaning.where == "index":
        order = temporal_indices(kind, len(clip), severity, generator=generator, profile=profile)
        return clip[torch.tensor(order, device=clip.device)]
    arguments = strength(kind, severity, profile)
    function = _function(meaning)
    known = inspect.signature(function).parameters
    available = {"generator": generator, "fps": fps, "reference_bitrate": reference_bitrate}
    arguments |= {key: value for key, value in available.items() if key in known}
    if "generator" in arguments:
        arguments["generator"] = _generator(generator)
    return function(clip, **arguments)
