"""`marey doctor` and `marey list`: what is installed, and the names that commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from marey.cli.options import Json
from marey.cli.output import print_json
from marey.errors import unknown_name

LISTS = ("models", "recipes", "corruptions", "attacks", "datasets")


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(doctor)
    app.command("list")(list_names)


def doctor(
    json: Json = False,
) -> None:
    """Check this installation: versions, devices, codecs, extras, bundled weights.

    Exit status 1: something every command needs is missing.
    """
    report = examine()
    if json:
        print_json(report)
    else:
        for section, facts in report.items():
            print(section)
            for name, value in facts.items():
                print(f"  {name:<24} {value}")
    if any(value is None for value in report["core"].values()):
        raise typer.Exit(1)


def list_names(
    what: Annotated[str, typer.Argument(help=" | ".join(LISTS))],
    json: Json = False,
) -> None:
    """List the names this version knows: models, recipes, corruptions, attacks or datasets."""
    if what not in LISTS:
        raise unknown_name("list", what, LISTS)
    names = names_of(what)
    if json:
        print_json({what: names})
    else:
        print("\n".join(names))


def names_of(what: str) -> list[str]:
    """Return the names of one of `LISTS`; of models, the bundled weights come first,
    then public ones by short name."""
    import marey

    if what == "models":
        from marey.checkpoints.recommended import PUBLIC_MODELS
        from marey.checkpoints.sources import bundled_names

        return [
            *(f"{name}  (bundled weights)" for name in bundled_names()),
            *(model.line() for model in PUBLIC_MODELS),
            *(f"{name}  (architecture)" for name in marey.list_models()),
        ]
    if what == "datasets":
        from marey.datasets.open import list_datasets

        return list_datasets()
    return {
        "recipes": marey.list_recipes,
        "corruptions": marey.list_corruptions,
        "attacks": marey.list_attacks,
    }[what]()


def examine() -> dict[str, dict[str, Any]]:
    """Return what this installation has, by section; a missing core package is None."""
    import platform
    import sys

    return {
        "system": {"python": sys.version.split()[0], "platform": platform.platform()},
        "core": {
            name: _version(name)
            for name in (
                "marey",
                "torch",
                "torchvision",
                "av",
                "numpy",
                "safetensors",
                "huggingface_hub",
                "einops",
                "typer",
                "rich",
                "accelerate",
            )
        },
        "devices": _devices(),
        "codecs": _codecs(),
        "extras": {
            f"{extra} ({package})": _version(package)
            or f"not installed: pip install 'marey[{extra}]'"
            for extra, package in (
                ("mocap", "pybullet"),
                ("web", "fastapi"),
                ("text", "sentence-transformers"),
                ("hf", "transformers"),
                ("train", "tensorboard"),
                ("plots", "matplotlib"),
                ("explain", "captum"),
                ("yt8m", "google-crc32c"),
                ("export", "onnxscript"),
                ("quant", "torchao"),
                ("scale", "ray"),
            )
        },
        "bundled weights": _bundled(),
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "cpu threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    facts["mps"] = "yes" if torch.backends.mps.is_available() else "none"
    return facts


def _codecs() -> dict[str, str]:
    import av

    facts = {"ffmpeg": ".".join(map(str, av.library_versions.get("libavcodec", ())))}
    for name, mode in (
        ("libx264", "w"),
        ("libx265", "w"),
        ("mpeg4", "w"),
        ("mpeg2video", "w"),
        ("h264", "r"),
        ("hevc", "r"),
        ("vp9", "r"),
        ("av1", "r"),
    ):
        try:
            av.codec.Codec(name, mode)
            facts[f"{'write' if mode == 'w' else 'read'} {name}"] = "yes"
        except av.codec.codec.UnknownCodecError:
            facts[f"{'write' if mode == 'w' else 'read'} {name}"] = (
                "no: this build of FFmpeg lacks it"
            )
    return facts


def _bundled() -> dict[str, str]:
    from marey.checkpoints.sources import WEIGHTS_FOLDER, bundled_names

    return {
        name: f"{sum(f.stat().st_size for f in (WEIGHTS_FOLDER / name).iterdir()) / 1e6:.1f} MB"
        for name in bundled_names()
    } or {"none": "this is not a complete installation"}
