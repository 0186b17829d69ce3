"""Public models worth starting from, and short names for them.

    marey predict clip.mp4 --model kinetics400
    marey teach videos/ --encoder videomae --out my-model

Nothing here is downloaded before it is asked for; the licence is that of the weights, as their page
on the hub states it, and is the user's to check.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublicModel:
    """A public model."""

    name: str
    """Short name."""
    hub_id: str
    classes: str
    """What it names, or "encoder": it names nothing and learns your actions by `marey teach`."""
    clip: str
    """Frames x pixels per side."""
    size: str
    """Parameters."""
    licence: str

    def line(self) -> str:
        """Return one line for `marey list models`."""
        return (
            f"{self.name}  hf:{self.hub_id}  ({self.classes}; {self.clip}; {self.size}; "
            f"{self.licence})"
        )


PUBLIC_MODELS = (
    PublicModel(
        "kinetics400",
        "MCG-NJU/videomae-base-finetuned-kinetics",
        "400 actions of Kinetics",
        "16 x 224",
        "87 M",
        "cc-by-nc-4.0",
    ),
    PublicModel(
        "kinetics400-timesformer",
        "facebook/timesformer-base-finetuned-k400",
        "400 actions of Kinetics",
        "8 x 224",
        "121 M",
        "cc-by-nc-4.0",
    ),
    PublicModel(
        "kinetics600",
        "facebook/timesformer-base-finetuned-k600",
        "600 actions of Kinetics",
        "8 x 224",
        "122 M",
        "cc-by-nc-4.0",
    ),
    PublicModel(
        "kinetics400-vivit",
        "google/vivit-b-16x2-kinetics400",
        "400 actions of Kinetics",
        "32 x 224",
        "89 M",
        "mit",
    ),
    PublicModel(
        "ssv2",
        "facebook/vjepa2-vitl-fpc16-256-ssv2",
        "174 actions of Something-Something v2",
        "16 x 256",
        "375 M",
        "mit",
    ),
    PublicModel("videomae", "MCG-NJU/videomae-base", "encoder", "16 x 224", "94 M", "cc-by-nc-4.0"),
    PublicModel("vjepa2", "facebook/vjepa2-vitl-fpc64-256", "encoder", "64 x 256", "326 M", "mit"),
    PublicModel("dinov2", "facebook/dinov2-base", "encoder of images", "224", "87 M", "apache-2.0"),
    PublicModel(
        "siglip",
        "google/siglip-base-patch16-224",
        "encoder of images",
        "224",
        "203 M",
        "apache-2.0",
    ),
    PublicModel(
        "xclip",
        "microsoft/xclip-base-patch32",
        "encoder of video",
        "8 x 224",
        "197 M",
        "mit",
    ),
)
SHORT_NAMES = {model.name: f"hf:{model.hub_id}" for model in PUBLIC_MODELS}


def long_name(source: str) -> str:
    """Return what a short name stands for; anything else, and a folder of that name, as it is."""
    return source if Path(source).exists() else SHORT_NAMES.get(source, source)
