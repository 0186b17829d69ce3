"""Fixtures every room shares: where the real videos are, one thread and one seed a test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "persons" / "golden.npz"

People = list[tuple[float, float, float]]
"""Per person x of the left side, y of the top and height, in pixels."""

torch.set_num_threads(int(os.environ.get("MAREY_TEST_THREADS", "1")))

# A shell lets what it starts in the background ignore Ctrl-C, and tests press it.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_draws_in_every_order() -> None:
    """Seed torch's global generator, which corruptions draw from where no generator is given."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real videos and golden values (`../shared`, or MAREY_SHARED); skips where it
    is absent."""
    folder = Path(os.environ.get("MAREY_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"{folder} is absent: this test measures on real videos kept outside the repository"
        )
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-class classifier of 4 frames of 32 pixels that says "bright" where the clip is bright,
    else "dark"."""
    from marey.checkpoints.folder import save_checkpoint
    from marey.models import create_model
    from marey.transforms.preprocess import Preprocess
    from marey.video.sampling import ClipSampling

    torch.manual_seed(0)
    model = create_model(
        "timesformer",
        num_classes=2,
        num_frames=4,
        image_size=32,
        patch_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=4), short_side=32, image_size=32
    )
    bright, dark = (torch.full((8, 4, 3, 32, 32), value) for value in (2.0, -2.0))
    clip, label = (
        torch.cat([bright, dark]) + 0.3 * torch.randn(16, 4, 3, 32, 32),
        torch.tensor([0] * 8 + [1] * 8),
    )
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(clip)["logits"], label).backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(
        folder,
        model,
        class_names=["bright", "dark"],
        preprocess=preprocess,
        calibration={"temperature": 2.0},
    )
    return folder


@pytest.fixture(scope="session")
def tiny_pose_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of keypoints with the actions "stand" and "walk", and "other": it always says walk,
    .9 against .05 and .05, and calls unknown what it gives less than .6."""
    from marey.checkpoints.folder import save_checkpoint
    from marey.models import create_model
    from marey.transforms.pose_clip import PoseSampling

    torch.manual_seed(0)
    model = create_model(
        "sevitar",
        num_classes=3,
        num_frames=16,
        stem="pose",
        embed_dim=16,
        depth=1,
        num_heads=2,
        time_attention="cosine",
        cls_in_time=True,
        label_dim=4,
        label_hidden=[8],
        class_hidden=[8],
    )
    last: Any = model.class_mlp[-1]  # type: ignore[index]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.05, 0.05, 0.9]).log()
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny_pose"
    save_checkpoint(
        folder,
        model,
        class_names=["other", "stand", "walk"],
        preprocess=PoseSampling(),
        calibration={"temperature": 1.0, "unknown": {"threshold": 0.4}},
        extra={"other_class": "other"},
        tensors={"label_embeddings": torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)},
    )
    return folder


@pytest.fixture(scope="session")
def small_config() -> Any:
    """A `TrainConfig` of a few seconds on the CPU: a TimeSformer of one block on two frames of 16
    pixels, a third of the videos to validate on."""
    from marey.training.config import DataConfig, ModelConfig, RunConfig, TrainConfig
    from marey.transforms.preprocess import Preprocess
    from marey.video.sampling import ClipSampling

    return TrainConfig(
        recipe="small",
        model=ModelConfig(
            name="timesformer",
            arguments={"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
        ),
        data=DataConfig(
            preprocess=Preprocess(
                sampling=ClipSampling(kind="equidistant", num_frames=2),
                short_side=16,
                image_size=16,
            ),
            val_fraction=0.34,
        ),
        train=RunConfig(batch_size=2, epochs=2, save_every=1, tensorboard=False, device="cpu"),
    )


@pytest.fixture(scope="session")
def day_and_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 8 s at 10 fps, 64 x 48: bright for 4 s, then dark; a spot moves to the right."""
    from marey.video.encode import write_video

    path = tmp_path_factory.mktemp("videos") / "day and night #1.mp4"
    frames = torch.full((80, 3, 48, 64), 235, dtype=torch.uint8)
    frames[40:] = 20
    for t, frame in enumerate(frames):
        frame[:, 20:24, t % 60 : t % 60 + 4] = 128
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(scope="session")
def public_i3d_names() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from the state dict of our I3D to the layout of `rgb_imagenet.pt`."""

    def rename(state: dict[str, Any]) -> dict[str, Any]:
        parts = {name: name.partition(".") for name in state}
        return {
            f"logits.conv3d.{rest}" if part == "logits" else rest: state[name]
            for name, (part, _, rest) in parts.items()
        }

    return rename


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Drawn frames and what TF.js answered to them (tools/golden_person_networks.py)."""
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def draw(golden) -> Callable[..., Tensor]:
    """A function that draws people, cut out of a golden frame, on an empty background."""
    person, nobody = golden["one/frame"], golden["nobody/frame"]
    mask = (person != nobody).any(axis=2)
    rows, columns = np.nonzero(mask)
    part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def draw_people(people: People, size: tuple[int, int] = (256, 256)) -> Tensor:
        frame = Image.fromarray(nobody).resize(size[::-1])
        for x, y, height in people:
            width = round(height * mask[part].shape[1] / mask[part].shape[0])
            picture = Image.fromarray(person[part]).resize((width, round(height)))
            shape = Image.fromarray(mask[part]).resize((width, round(height)))
            frame.paste(picture, (round(x), round(y)), shape)
        return torch.from_numpy(np.array(frame)).permute(2, 0, 1)

    return draw_people


@pytest.fixture(scope="session")
def walkers(draw, tmp_path_factory) -> Path:
    """A video of 2 s at 12.5 fps, 320 x 240: one person walks right, a smaller one walks left."""
    from marey.video.encode import write_video

    path = tmp_path_factory.mktemp("videos") / "walkers.mp4"
    frames = [
        draw([(10 + 4 * t, 40, 170), (250 - 4 * t, 30, 120)], size=(240, 320)) for t in range(25)
    ]
    write_video(path, torch.stack(frames), fps=12.5)
    return path
