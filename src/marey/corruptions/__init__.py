"""Natural changes of a clip as values: thirty-two kinds at severities 1 to 5 with the constants of
three papers.

    fog = corruption("fog", severity=3, profile="rose")
    foggy = fog(clip, generator=generator)

A name is resolved once, into a `Corruption`, which is then passed on. `marey.corrupt` does both at
once.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from marey.corruptions.kinds import CATEGORIES, KINDS, Kind, kind_of
from marey.corruptions.profiles import PROFILES, SEVERITIES
from marey.errors import UserError

__all__ = [
    "CATEGORIES",
    "KINDS",
    "PROFILES",
    "SEVERITIES",
    "Corruption",
    "Kind",
    "corrupt",
    "corruption",
    "list_corruptions",
]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind at one severity with one paper's constants: a function from a clip to a clip of the
    same shape."""

    name: str
    """One of `list_corruptions()`."""
    severity: int
    """1 (mild) to 5."""
    profile: str
    """Whose constants these are: another profile than the one asked for where that one lacks the
    kind."""
    kind: Kind = field(repr=False)
    """Its function, and how that is applied."""
    strength: dict[str, Any] = field(hash=False)
    """The constants: arguments of the function."""

    @property
    def category(self) -> str:
        """Return the group of kinds that it belongs to (`Kind.category`)."""
        return self.kind.category

    @property
    def domain(self) -> str:
        """Return what it changes: "pixels" of shown frames, the "order" of source frames, or a
        whole "window"."""
        return self.kind.domain

    @property
    def coherence(self) -> str:
        """Return whether its random draw is one per "frame", one per "clip", or "none"."""
        return self.kind.coherence

    def __call__(
        self,
        clip: Tensor,
        *,
        generator: Generator | None = None,
        fps: float = 30.0,
        reference_bitrate: float | None = None,
    ) -> Tensor:
        """Return a corrupted copy, on the clip's device
        (codecs and JPEG work on the CPU and copy back).

        The caller decides which frames to give: the shown ones for the domain "pixels", all
        consecutive ones otherwise.

        Args:
            clip: uint8, (T, 3, H, W), RGB.
            generator: randomness; torch's global generator when absent. Same generator state, same
                result.
            fps: frames per second of the clip, for rate control and `frame_rate`.
            reference_bitrate: bits per second of the source, for the average-bit-rate kinds.

        Returns:
            uint8, (T, 3, H, W).

        Raises:
            UserError: if the clip is not uint8 (T, 3, H, W).
        """
        if not isinstance(clip, Tensor) or clip.dtype != torch.uint8:
            got = clip.dtype if isinstance(clip, Tensor) else type(clip).__name__
            raise UserError(
                f"clip is a uint8 tensor with values 0 to 255, got {got}; corrupt before "
                "normalising"
            )
        if clip.dim() != 4 or clip.shape[1] != 3 or 0 in clip.shape:
            raise UserError(
                f"clip has axes (T, 3, H, W) with at least one frame, got {tuple(clip.shape)}"
            )

        if self.domain == "order":
            order = self.frame_order(len(clip), generator=generator)
            return clip[torch.tensor(order, device=clip.device)]
        return self._apply(clip, generator=generator, fps=fps, reference_bitrate=reference_bitrate)

    def frame_order(self, num_frames: int, *, generator: Generator | None = None) -> list[int]:
        """Return which source frame is shown at each of `num_frames` moments.

        Args:
            num_frames: source frames, at least 1.
            generator: randomness; torch's global generator when absent.

        Raises:
            UserError: if the domain is not "order", or there is no frame.
        """
        if self.domain != "order":
            temporal = [name for name, kind in KINDS.items() if kind.domain == "order"]
            raise UserError(
                f"'{self.name}' changes pixels, not the order of frames; temporal kinds are "
                f"{', '.join(temporal)}"
            )
        if num_frames < 1:
            raise UserError(f"a video needs at least one frame to reorder, got {num_frames}")
        return self._apply(num_frames, generator=generator)

    def _apply(self, clip: Any, *, generator: Generator | None, **available: Any) -> Any:
        """Call the kind's function with its constants and with those of the other arguments that it
        takes."""
        if generator is None:
            generator = torch.default_generator
        available["generator"] = generator

        taken = inspect.signature(self.kind.function).parameters
        given = {name: value for name, value in available.items() if name in taken}
        return self.kind.function(clip, **self.strength, **given)


def corruption(name: str, severity: int = 3, profile: str = "rose") -> Corruption:
    """Look up a corruption by its name.

    Args:
        name: one of `list_corruptions()`.
        severity: 1 (mild) to 5.
        profile: whose constants: "rose", "imagenet-c" or "mini-kinetics-c". A kind that the profile
            lacks takes those of the first other profile that has it, which `Corruption.profile`
            then names.

    Raises:
        UserError: if name, profile or severity are unknown.
    """
    kind, source = kind_of(name, profile)
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise UserError(
            f"severity is one of 1, 2, 3, 4, 5, got {severity!r}; the clean clip is the clip itself"
        )
    return Corruption(
        name=name,
        severity=severity,
        profile=source,
        kind=kind,
        strength=PROFILES[source][name][severity - 1],
    )


def corrupt(
    clip: Tensor,
    kind: str,
    severity: int = 3,
    *,
    generator: Generator | None = None,
    profile: str = "rose",
    fps: float = 30.0,
    reference_bitrate: float | None = None,
) -> Tensor:
    """Return a corrupted copy of a clip, uint8 (T, 3, H, W):
    `corruption(kind, severity, profile)(clip, ...)`.

    Raises:
        UserError: if the clip is not uint8 (T, 3, H, W), or kind, profile or severity are unknown.
    """
    change = corruption(kind, severity, profile)
    return change(clip, generator=generator, fps=fps, reference_bitrate=reference_bitrate)


def list_corruptions() -> list[str]:
    """Return the names `corruption` takes, grouped by category."""
    return list(KINDS)
