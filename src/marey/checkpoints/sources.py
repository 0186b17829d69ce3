"""What the name of a model stands for, found without loading it or torch.

"marey-mini"                      bundled with the package
"runs/jester/best"                a folder written by `save_checkpoint`
"hf:owner/name", "torchvision:m"  a model from elsewhere, not looked for here
"""

from __future__ import annotations

from pathlib import Path

from marey.checkpoints.recommended import SHORT_NAMES, long_name
from marey.errors import UserError, unknown_name

WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""Files of a checkpoint folder."""

ELSEWHERE = ("hf:", "torchvision:")
"""What the names of models from elsewhere begin with."""


def weights_folder(package: Path) -> Path:
    """Return where the bundled checkpoints are: `marey/weights` in an installed wheel, else
    `weights/` of the checkout.

    Args:
        package: the folder of the package `marey`.
    """
    installed = package / "weights"
    return installed if installed.is_dir() else package.parents[1] / "weights"


WEIGHTS_FOLDER = weights_folder(Path(__file__).resolve().parents[1])
"""The bundled checkpoints."""


def bundled_names() -> list[str]:
    """Return the names of the checkpoints that come with the package, sorted."""
    if not WEIGHTS_FOLDER.is_dir():
        return []
    return sorted(folder.name for folder in WEIGHTS_FOLDER.iterdir() if (folder / CONFIG).is_file())


def find_source(source: str | Path) -> Path | str:
    """Return the folder of a checkpoint, or the name of a model from elsewhere with its prefix.

    Args:
        source: as in `load_checkpoint`; of a run's folder the best checkpoint is meant.

    Raises:
        UserError: if there is no such name or folder, or what is there is no folder of a model.
    """
    text = long_name(str(source))
    if text.startswith(ELSEWHERE):
        return text
    if text in bundled_names():
        return WEIGHTS_FOLDER / text
    folder = Path(source)
    if not folder.exists():
        if "/" in text or "\\" in text or not bundled_names():
            said = f"{text}: no such checkpoint folder; bundled names: "
            said += ", ".join(bundled_names()) or "none"
            if not text.startswith((".", "/", "~")):
                said += f"; hub models are written 'hf:{text}'"
            raise UserError(said)
        raise unknown_name("model", text, (*bundled_names(), *SHORT_NAMES))
    if not folder.is_dir():
        raise UserError(
            f"{text}: a file, but a checkpoint is a folder; bring a file in with "
            f"`marey convert {text} --from FORMAT --out DIR`"
        )
    folder = best_of_run(folder) or folder
    if not (folder / CONFIG).exists():
        raise UserError(
            f"{folder / CONFIG}: no such file; a checkpoint is a folder with {CONFIG} and {WEIGHTS}"
        )
    return folder


def best_of_run(folder: Path) -> Path | None:
    """Return the best checkpoint of a training run's folder, else its last one; None where the
    folder is no run."""
    if (folder / WEIGHTS).is_file():
        return None
    inside = (folder / name for name in ("best", "last"))
    return next((path for path in inside if (path / CONFIG).is_file()), None)
