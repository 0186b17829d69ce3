"""The constants of every corruption at severities 1 to 5, one table per paper.

The same name means different strengths in different papers, so a strength is always
(profile, kind, severity):

* `rose`: Schiappa et al., "A Large-scale Robustness Analysis of Video Action Recognition Models",
  CVPR 2023 (UCF101-P, HMDB51-P, Kinetics400-P; the ROSE challenge). Numbers of the released code.
* `imagenet-c`: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
  Corruptions and Perturbations", ICLR 2019. Numbers of the released code at 224 x 224.
* `mini-kinetics-c`: Yi et al., "Benchmarking the Robustness of Spatial-Temporal Models Against
  Corruptions", NeurIPS 2021 (Mini Kinetics-C). Numbers of the released code.
"""

from __future__ import annotations

from typing import Any

from marey.errors import unknown_name

SEVERITIES = (1, 2, 3, 4, 5)

Strengths = tuple[dict[str, Any], ...]


def _each(**columns: tuple[Any, ...]) -> Strengths:
    """Turn columns of five values into five dictionaries of arguments, severity 1 first."""
    return tuple(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


_GAUSSIAN = _each(std=(0.08, 0.12, 0.18, 0.26, 0.38))
_IMPULSE = _each(amount=(0.03, 0.06, 0.09, 0.17, 0.27))
_DEFOCUS = _each(radius=(3, 4, 6, 8, 10), alias_sigma=(0.1, 0.5, 0.5, 0.5, 0.5))
_MOTION = _each(radius=(10, 15, 15, 15, 20), sigma=(3, 5, 8, 12, 15))
_ZOOM = _each(stop=(1.11, 1.16, 1.21, 1.26, 1.31), step=(0.01, 0.01, 0.02, 0.02, 0.03))
_JPEG = _each(quality=(25, 18, 15, 10, 7))
_BRIGHTNESS = _each(shift=(0.1, 0.2, 0.3, 0.4, 0.5))
_SATURATE = _each(factor=(0.3, 0.1, 2.0, 5.0, 20.0), shift=(0.0, 0.0, 0.0, 0.1, 0.2))
_FOG = ((1.5, 2.0, 2.5, 2.5, 3.0), (2.0, 2.0, 1.7, 1.5, 1.4))
_SHOT_IMAGENET = _each(photons=(60, 25, 12, 5, 3))

PROFILES: dict[str, dict[str, Strengths]] = {
    "rose": {
        "gaussian_noise": _GAUSSIAN,
        "shot_noise": _each(photons=(250, 100, 50, 30, 15)),
        "impulse_noise": _IMPULSE,
        "speckle_noise": _each(std=(0.15, 0.20, 0.25, 0.30, 0.35)),
        "defocus_blur": _DEFOCUS,
        "motion_blur": _MOTION,
        "zoom_blur": _ZOOM,
        "jpeg_compression": _JPEG,
        "mpeg1": _each(qscale=(15, 30, 45, 60, 75)),
        "mpeg2": _each(qscale=(20, 40, 60, 80, 100)),
        "frame_sampling": _each(stride=(2, 4, 8, 16, 32)),
        "reverse_sampling": _each(stride=(2, 4, 8, 16, 32)),
        "jumble": _each(segment=(32, 16, 8, 4, 2)),
        "box_jumble": _each(segment=(4, 9, 16, 25, 36)),
        "freeze": _each(kept_share=(0.4, 0.2, 0.1, 0.05, 0.0), kept_least=(1, 1, 1, 2, 1)),
        "static_rotate": _each(degrees=(7.5, 15.0, 30.0, 45.0, 90.0)),
        "random_rotate": _each(max_degrees=(7, 13, 19, 25, 31)),
        "translate": _each(max_shift=(8, 16, 24, 32, 40)),
    },
    "imagenet-c": {
        "gaussian_noise": _GAUSSIAN,
        "shot_noise": _SHOT_IMAGENET,
        "impulse_noise": _IMPULSE,
        "speckle_noise": _each(std=(0.15, 0.2, 0.35, 0.45, 0.6)),
        "defocus_blur": _DEFOCUS,
        "motion_blur": _MOTION,
        "zoom_blur": _ZOOM,
        "gaussian_blur": _each(sigma=(1, 2, 3, 4, 6)),
        "jpeg_compression": _JPEG,
        "contrast": _each(factor=(0.4, 0.3, 0.2, 0.1, 0.05)),
        "brightness": _BRIGHTNESS,
        "saturate": _SATURATE,
        "pixelate": _each(scale=(0.6, 0.5, 0.4, 0.3, 0.25)),
        "fog": _each(amount=_FOG[0], decay=_FOG[1], per_clip=(False,) * 5),
    },
    "mini-kinetics-c": {
        "shot_noise": _SHOT_IMAGENET,
        "motion_blur": _each(half_window=(3, 5, 7, 9, 11)),
        "contrast": _each(factor=(0.5, 0.4, 0.3, 0.2, 0.1)),
        "brightness": _BRIGHTNESS,
        "saturate": _SATURATE,
        "fog": _each(amount=_FOG[0], decay=_FOG[1], per_clip=(True,) * 5),
        "rain": _each(
            area_per_drop=(770, 770, 770, 500, 400),
            length=(10, 30, 60, 60, 80),
            darken=(0.8, 0.8, 0.7, 0.6, 0.5),
        ),
        "frame_rate": _each(kept_fps=(20, 16, 12, 9, 6)),
        "bit_error": _each(bytes_per_error=(100_000, 50_000, 30_000, 20_000, 10_000)),
        "packet_loss": _each(loss=(0.01, 0.02, 0.03, 0.04, 0.06)),
        "h264_crf": _each(crf=(23, 30, 37, 44, 51)),
        "h265_crf": _each(crf=(27, 33, 39, 45, 51)),
        "h264_abr": _each(divisor=(2, 4, 8, 16, 32)),
        "h265_abr": _each(divisor=(2, 4, 8, 16, 32)),
    },
}
"""Profile -> kind -> the arguments of the kind's function at severities 1 to 5.

Zoom factors are `np.arange(1, stop, step)`, whose float rounding includes 1.11 at severity 1
(12 factors)."""


def source_profile(kind: str, profile: str) -> str:
    """Return the profile whose constants `kind` takes when `profile` is asked for.

    A kind that the profile's paper does not have takes the numbers of the first other paper that
    has it.

    Raises:
        UserError: if the profile or the kind is unknown.
    """
    if profile not in PROFILES:
        raise unknown_name("corruption profile", profile, PROFILES)
    for candidate in (profile, *PROFILES):
        if kind in PROFILES[candidate]:
            return candidate
    raise unknown_name("corruption", kind, {name for table in PROFILES.values() for name in table})
