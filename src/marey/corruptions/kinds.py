"""The thirty-two kinds of corruption by name: the function of each, and how it is applied to a
clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from marey.corruptions import blur, camera, codec, digital, noise, temporal, weather
from marey.corruptions.profiles import source_profile
from marey.errors import unknown_name


@dataclass(frozen=True)
class Kind:
    """One kind of corruption, without its strength."""

    function: Callable[..., Any]
    """Takes a clip uint8 (T, 3, H, W), or a number of frames in the domain "order", and the
    strength by keyword."""
    category: str
    """noise, blur, digital, weather, codec, temporal or camera; averages are taken per category."""
    domain: str
    """What the function is applied to:

    * `pixels`: each shown frame, at short side 256 and centre crop 224; other sizes scale the
      radii.
    * `order`: the indices of the SOURCE frames, before a model's frames are sampled.
    * `window`: the consecutive source frames of the whole window
      (codecs; the average of neighbouring frames).
    """
    coherence: str
    """frame: drawn anew for each frame; clip: one draw for all frames; none: no randomness."""
    monotone: bool = True
    """Whether a higher severity moves the clip further from the clean one, on average. The
    exceptions: qscale stops at 31; saturate first greys, then floods; fog 4 is as dense as fog 3;
    at 90 degrees a rotation has no black corners; jumble disturbs less with every severity,
    box_jumble and reversal depend on the length."""


KINDS: dict[str, Kind] = {
    "gaussian_noise": Kind(noise.gaussian_noise, "noise", "pixels", "frame"),
    "shot_noise": Kind(noise.shot_noise, "noise", "pixels", "frame"),
    "impulse_noise": Kind(noise.impulse_noise, "noise", "pixels", "frame"),
    "speckle_noise": Kind(noise.speckle_noise, "noise", "pixels", "frame"),
    "defocus_blur": Kind(blur.defocus_blur, "blur", "pixels", "none"),
    "motion_blur": Kind(blur.motion_blur, "blur", "pixels", "frame"),
    "zoom_blur": Kind(blur.zoom_blur, "blur", "pixels", "none"),
    "gaussian_blur": Kind(blur.gaussian_blur, "blur", "pixels", "none"),
    "jpeg_compression": Kind(digital.jpeg_compression, "digital", "pixels", "none"),
    "contrast": Kind(digital.contrast, "digital", "pixels", "none"),
    "brightness": Kind(digital.brightness, "digital", "pixels", "none"),
    "saturate": Kind(digital.saturate, "digital", "pixels", "none", monotone=False),
    "pixelate": Kind(digital.pixelate, "digital", "pixels", "none"),
    "fog": Kind(weather.fog, "weather", "pixels", "frame", monotone=False),
    "rain": Kind(weather.rain, "weather", "pixels", "frame"),
    "mpeg1": Kind(codec.mpeg1, "codec", "window", "none", monotone=False),
    "mpeg2": Kind(codec.mpeg2, "codec", "window", "none", monotone=False),
    "h264_crf": Kind(codec.h264_crf, "codec", "window", "none"),
    "h264_abr": Kind(codec.h264_abr, "codec", "window", "none"),
    "h265_crf": Kind(codec.h265_crf, "codec", "window", "none"),
    "h265_abr": Kind(codec.h265_abr, "codec", "window", "none"),
    "frame_rate": Kind(codec.frame_rate, "codec", "window", "none"),
    "bit_error": Kind(codec.bit_error, "codec", "window", "clip"),
    "packet_loss": Kind(codec.packet_loss, "codec", "window", "clip"),
    "frame_sampling": Kind(temporal.frame_sampling, "temporal", "order", "none"),
    "reverse_sampling": Kind(
        temporal.reverse_sampling, "temporal", "order", "none", monotone=False
    ),
    "jumble": Kind(temporal.jumble, "temporal", "order", "clip", monotone=False),
    "box_jumble": Kind(temporal.box_jumble, "temporal", "order", "clip", monotone=False),
    "freeze": Kind(temporal.freeze, "temporal", "order", "clip"),
    "static_rotate": Kind(camera.static_rotate, "camera", "pixels", "none", monotone=False),
    "random_rotate": Kind(camera.random_rotate, "camera", "pixels", "frame"),
    "translate": Kind(camera.translate, "camera", "pixels", "clip"),
}
"""Every kind under its public name."""

CATEGORIES = tuple(dict.fromkeys(kind.category for kind in KINDS.values()))

_KINDS_OF_ONE_PROFILE = {
    ("motion_blur", "mini-kinetics-c"): Kind(blur.neighbour_average, "blur", "window", "none"),
    ("fog", "mini-kinetics-c"): Kind(weather.fog, "weather", "pixels", "clip", monotone=False),
}
"""(name, profile) -> the kind, where one paper means something else by the name."""


def kind_of(name: str, profile: str) -> tuple[Kind, str]:
    """Return what a name means in a profile, and the profile whose constants it takes
    (`source_profile`).

    Raises:
        UserError: if the name or the profile is unknown; the nearest known one is named.
    """
    if name not in KINDS:
        raise unknown_name("corruption", name, KINDS)
    source = source_profile(name, profile)
    return _KINDS_OF_ONE_PROFILE.get((name, source), KINDS[name]), source
