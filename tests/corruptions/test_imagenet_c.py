"""The deterministic kinds against the published code, at points of one frame (values pinned by the
PyPI package)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import marey
from marey.corruptions import corruption
from marey.corruptions.blur import motion_blur_at

GOLDEN = json.loads((Path(__file__).parent / "imagenet_c_golden.json").read_text())
EXACT = ("contrast", "jpeg_compression", "pixelate")


@pytest.fixture(scope="module")
def frame() -> Tensor:
    """Gradients, a product pattern, a chequerboard and three flat patches, (1, 3, 224, 224)."""
    y, x = np.mgrid[:224, :224]
    image = np.stack(
        [(x * 5 + y * 3) % 256, (x * y // 7) % 256, np.where((x // 16 + y // 16) % 2, 230, 20)], -1
    )
    image[40:60, 40:90], image[100:120, 10:50], image[150:170, 150:200] = 0, 255, 77
    return torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1)[None].contiguous()


def picked(clip: Tensor) -> Tensor:
    points = clip[0].permute(1, 2, 0)[GOLDEN["rows"]][:, GOLDEN["columns"]]
    return points.flatten().int()


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [kind for kind in GOLDEN["kinds"] if kind != "motion_blur"])
def test_a_deterministic_kind_equals_the_published_code_within_one_level(
    kind: str, severity: int, frame: Tensor
) -> None:
    ours = marey.corrupt(frame, kind, severity, profile="imagenet-c")
    golden = GOLDEN["kinds"][kind][severity - 1]
    difference = (picked(ours) - torch.tensor(golden["values"])).abs()
    assert difference.max() <= (0 if kind in EXACT else 1)
    assert abs(ours.float().mean().item() - golden["mean"]) < (1e-3 if kind in EXACT else 0.45)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_motion_blur_at_an_angle_equals_the_published_loop_within_one_level(
    severity: int, frame: Tensor
) -> None:
    golden = GOLDEN["kinds"]["motion_blur"][severity - 1]
    taps = corruption("motion_blur", severity, "imagenet-c").strength
    ours = motion_blur_at(frame[0], degrees=golden["degrees"], **taps)[None]
    assert (picked(ours) - torch.tensor(golden["values"])).abs().max() <= 1
    assert abs(ours.float().mean().item() - golden["mean"]) < 0.45


def test_pixelate_and_jpeg_equal_pillow_on_random_pixels() -> None:
    from io import BytesIO

    image_module = pytest.importorskip("PIL.Image")
    pixels = torch.randint(
        0, 256, (1, 3, 97, 131), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    image = image_module.fromarray(pixels[0].permute(1, 2, 0).numpy())
    for severity in range(1, 6):
        scale = corruption("pixelate", severity).strength["scale"]
        coarse = image.resize((int(131 * scale), int(97 * scale)), image_module.BOX)
        coarse = coarse.resize((131, 97), image_module.NEAREST)
        ours = marey.corrupt(pixels, "pixelate", severity)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ours, np.array(coarse))
        file = BytesIO()
        image.save(
            file, "JPEG", quality=corruption("jpeg_compression", severity).strength["quality"]
        )
        ours = marey.corrupt(pixels, "jpeg_compression", severity)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ours, np.array(image_module.open(file)))
