"""Every kind keeps shape, dtype and length, repeats with its generator, and grows with severity
where it should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import marey
from marey.corruptions import CATEGORIES, KINDS, PROFILES, corruption
from marey.errors import UserError

PIXEL = [name for name, kind in KINDS.items() if kind.domain == "pixels"]
CODEC = [name for name, kind in KINDS.items() if kind.category == "codec"]


def moving_clip(T: int = 6, H: int = 64, W: int = 72) -> Tensor:
    """A textured scene that pans by one pixel a frame, (T, 3, H, W) uint8."""
    base = torch.randint(
        0, 256, (3, H // 4, (W + T) // 4 + 1), generator=torch.Generator().manual_seed(0)
    ).float()
    scene = torch.nn.functional.interpolate(base[None], size=(H, W + T), mode="bilinear")[0]
    return torch.stack([scene[..., t : t + W] for t in range(T)]).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_names_are_those_of_the_design() -> None:
    assert " ".join(marey.list_corruptions()) == (
        "gaussian_noise shot_noise impulse_noise speckle_noise defocus_blur motion_blur zoom_blur "
        "gaussian_blur "
        "jpeg_compression contrast brightness saturate pixelate fog rain mpeg1 mpeg2 h264_crf "
        "h264_abr h265_crf "
        "h265_abr frame_rate bit_error packet_loss frame_sampling reverse_sampling jumble "
        "box_jumble freeze "
        "static_rotate random_rotate translate"
    )
    assert len(PROFILES["rose"]) == 18
    assert CATEGORIES == ("noise", "blur", "digital", "weather", "codec", "temporal", "camera")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in CODEC])
def test_shape_dtype_and_repeatability(kind: str, profile: str) -> None:
    clip = moving_clip()
    before = clip.clone()
    for severity in (1, 5):
        changed = marey.corrupt(clip, kind, severity, generator=seeded(7), profile=profile)
        assert changed.shape == clip.shape
        assert changed.dtype == torch.uint8
        assert torch.equal(
            changed, marey.corrupt(clip, kind, severity, generator=seeded(7), profile=profile)
        )
    assert torch.equal(clip, before)


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in CODEC])
def test_a_clip_of_one_frame_stays_one_frame(kind: str) -> None:
    assert marey.corrupt(moving_clip(1), kind, 5).shape == (1, 3, 64, 72)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", [name for name in PIXEL if KINDS[name].monotone])
def test_a_higher_severity_is_further_from_the_clean_clip(kind: str, profile: str) -> None:
    clip = moving_clip(4, 96, 96)
    if KINDS[kind].category == "camera":  # a ramp: distance grows with displacement
        clip = (
            torch.arange(96)
            .add(torch.arange(96)[:, None])
            .to(torch.uint8)
            .expand(4, 3, 96, 96)
            .contiguous()
        )
    distances = []
    for severity in range(1, 6):
        changed = [
            marey.corrupt(clip, kind, severity, generator=seeded(seed), profile=profile)
            for seed in range(6)
        ]
        distances.append(
            torch.stack([(c.float() - clip.float()).abs().mean() for c in changed]).mean().item()
        )
    assert distances == sorted(distances), distances
    assert distances[-1] > distances[0]


def test_saturate_is_not_monotone_because_its_table_first_greys_and_then_floods() -> None:
    factors = [corruption("saturate", severity).strength["factor"] for severity in range(1, 6)]
    assert factors == [0.3, 0.1, 2.0, 5.0, 20.0]


def test_fog_grows_except_from_three_to_four_where_only_its_roughness_changes() -> None:
    amounts = [corruption("fog", severity).strength["amount"] for severity in range(1, 6)]
    assert amounts == [1.5, 2.0, 2.5, 2.5, 3.0]
    clip = moving_clip(4, 96, 96)
    distances = [
        (marey.corrupt(clip, "fog", severity, generator=seeded()).float() - clip.float())
        .abs()
        .mean()
        for severity in range(1, 6)
    ]
    assert distances[0] < distances[1] < distances[2] < distances[4]


def test_noise_has_the_spread_of_its_table() -> None:
    grey = torch.full((2, 3, 128, 128), 128, dtype=torch.uint8)
    gaussian = marey.corrupt(grey, "gaussian_noise", 1, generator=seeded()).float()
    assert gaussian.sub(128).std().item() == pytest.approx(0.08 * 255, rel=0.02)
    assert gaussian.mean().item() == pytest.approx(127.5, abs=0.3)
    speckle = marey.corrupt(grey, "speckle_noise", 1, generator=seeded()).float()
    assert speckle.std().item() == pytest.approx(0.15 * 128, rel=0.02)
    shot = (
        marey.corrupt(grey, "shot_noise", 1, generator=seeded(), profile="imagenet-c").float() / 255
    )
    assert shot.mean().item() == pytest.approx(128 / 255, abs=0.004)
    assert shot.var().item() == pytest.approx(128 / 255 / 60, rel=0.04)
    impulse = marey.corrupt(grey, "impulse_noise", 5, generator=seeded())
    assert (impulse == 0).float().mean().item() == pytest.approx(0.135, abs=0.004)
    assert (impulse == 255).float().mean().item() == pytest.approx(0.135, abs=0.004)


def test_noise_is_new_in_every_frame() -> None:
    still = torch.full((2, 3, 40, 40), 100, dtype=torch.uint8)
    noisy = marey.corrupt(still, "gaussian_noise", 3)
    assert not torch.equal(noisy[0], noisy[1])


def test_fog_has_one_map_per_clip_only_in_mini_kinetics_c() -> None:
    still = torch.full((2, 3, 40, 40), 100, dtype=torch.uint8)
    one = marey.corrupt(still, "fog", 3, profile="mini-kinetics-c")
    many = marey.corrupt(still, "fog", 3, profile="imagenet-c")
    assert torch.equal(one[0], one[1])
    assert not torch.equal(many[0], many[1])
    assert corruption("fog", profile="mini-kinetics-c").coherence == "clip"


def test_motion_blur_of_mini_kinetics_c_averages_neighbouring_frames() -> None:
    values = torch.arange(12, dtype=torch.uint8) * 10
    clip = values.view(12, 1, 1, 1).expand(12, 3, 8, 8).contiguous()
    blurred = marey.corrupt(clip, "motion_blur", 1, profile="mini-kinetics-c")[:, 0, 0, 0].tolist()
    assert blurred[5] == (20 + 30 + 40 + 50 + 60 + 70) // 6  # frames 2 to 7
    assert blurred[0] == (0 + 10 + 20) // 3  # the frames of the window that exist


def test_brightness_of_a_worked_pixel() -> None:
    clip = torch.tensor([[100, 0], [50, 0], [25, 0]], dtype=torch.uint8).view(1, 3, 1, 2)
    changed = marey.corrupt(clip, "brightness", 2)  # V 100 -> 151, black -> 51
    assert changed[0, :, 0, 0].tolist() == [151, 75, 37]
    assert changed[0, :, 0, 1].tolist() == [51, 51, 51]


def test_a_kind_that_a_profile_lacks_falls_back_by_name() -> None:
    assert corruption("fog", profile="rose").profile == "imagenet-c"
    assert corruption("rain", profile="rose").profile == "mini-kinetics-c"
    assert corruption("jumble", profile="imagenet-c").profile == "rose"
    assert corruption("shot_noise", profile="rose").profile == "rose"


def test_what_is_wrong_with_the_input_is_said() -> None:
    clip = moving_clip(2)
    with pytest.raises(UserError, match="did you mean 'gaussian_noise'"):
        marey.corrupt(clip, "gausian_noise")
    for severity in (0, 6, 2.5, True):
        with pytest.raises(UserError, match="severity is one of 1, 2, 3, 4, 5"):
            marey.corrupt(clip, "fog", severity)
    with pytest.raises(UserError, match="uint8 tensor with values 0 to 255, got torch.float32"):
        marey.corrupt(clip.float(), "fog")
    with pytest.raises(UserError, match=r"axes \(T, 3, H, W\).*got \(3, 64, 72\)"):
        marey.corrupt(clip[0], "fog")
    with pytest.raises(UserError, match="unknown corruption profile 'roze'"):
        marey.corrupt(clip, "fog", profile="roze")


def test_without_a_generator_the_global_one_is_drawn_from() -> None:
    clip = torch.full((2, 3, 16, 16), 128, dtype=torch.uint8)
    torch.manual_seed(3)
    first, second = marey.corrupt(clip, "gaussian_noise"), marey.corrupt(clip, "gaussian_noise")
    torch.manual_seed(3)
    again = marey.corrupt(clip, "gaussian_noise")
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
