from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.features.sound import (
    SAMPLE_RATE,
    SoundEncoder,
    VGGish,
    decode_sound,
    log_mel,
    log_mel_summary,
    mel_filters,
    sound_patches,
)


def tone(hz: float, seconds: float, volume: float = 0.3) -> torch.Tensor:
    """A sine at 16 kHz."""
    return volume * torch.sin(
        2 * math.pi * hz * torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    )


def write_sound(path, sound, rate=SAMPLE_RATE, layout="mono"):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        samples = (sound.numpy() * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def test_every_mel_band_is_a_triangle_between_125_and_7500_hz():
    filters = mel_filters()
    assert filters.shape == (257, 64)
    hz = torch.linspace(0, SAMPLE_RATE / 2, 257)
    assert (filters[(hz < 125) | (hz > 7500)] == 0).all()
    assert filters.max() <= 1
    assert (filters.argmax(0).diff() >= 0).all()


def test_a_tone_lights_up_its_own_band():
    patch = log_mel(tone(1000, 1.0))
    centres = [
        700 * (math.exp(m / 1127) - 1)
        for m in np.linspace(1127 * math.log1p(125 / 700), 1127 * math.log1p(7500 / 700), 66)[1:-1]
    ]
    assert abs(centres[int(patch.mean(0).argmax())] - 1000) < 60


def test_a_second_gives_96_frames_and_silence_is_log_of_the_offset():
    patches = sound_patches(None, 3)
    assert patches.shape == (3, 96, 64)
    assert torch.allclose(patches, torch.tensor(math.log(0.01)))


def test_patches_keep_step_with_the_seconds():
    sound = torch.cat([torch.zeros(SAMPLE_RATE * 2), tone(500, 1.0)])
    patches = sound_patches(sound, 4)
    assert patches[2].max() > 0
    assert torch.allclose(patches[[0, 1, 3]], torch.tensor(math.log(0.01)))


def test_the_summary_is_mean_and_standard_deviation_by_band_inside_the_quantised_range():
    silent, loud = (
        log_mel_summary(sound_patches(None, 1)),
        log_mel_summary(sound_patches(tone(440, 1.0), 1)),
    )
    assert silent.shape == (1, 128)
    assert silent[0, 0].item() == pytest.approx((math.log(0.01) + 1.3) / 1.65, abs=1e-5)
    assert silent[0, 64].item() == pytest.approx(-1.2, abs=1e-4)
    assert loud[0, :64].max() > 1


def test_sound_of_any_rate_is_decoded_to_16_khz(tmp_path):
    write_sound(tmp_path / "a.wav", tone(440, 1.5))
    sound = decode_sound(tmp_path / "a.wav")
    assert len(sound) == int(1.5 * SAMPLE_RATE)
    write_sound(
        tmp_path / "b.wav", tone(440, 1.0), rate=8000
    )  # the same samples last twice as long
    assert abs(len(decode_sound(tmp_path / "b.wav")) - 2 * SAMPLE_RATE) < 200
    assert len(decode_sound(tmp_path / "a.wav", max_seconds=0.5)) == SAMPLE_RATE // 2


def test_a_video_without_sound_is_silence(tmp_path):
    from marey.video.encode import write_video

    write_video(tmp_path / "v.mp4", torch.zeros(8, 3, 32, 32, dtype=torch.uint8), fps=8)
    assert decode_sound(tmp_path / "v.mp4") is None
    assert torch.equal(
        SoundEncoder()(tmp_path / "v.mp4", 2), log_mel_summary(sound_patches(None, 2))
    )


def test_vggish_is_named_like_the_public_port():
    with torch.device("meta"):
        names = VGGish().state_dict()
    assert {
        "features.0.weight",
        "features.13.bias",
        "embeddings.0.weight",
        "embeddings.4.bias",
    } <= set(names)
    assert names["embeddings.0.weight"].shape == (4096, 12288)


def test_weights_are_never_random(tmp_path):
    with pytest.raises(UserError, match="weights are never random"):
        SoundEncoder("vggish")
    with pytest.raises(UserError, match=r"no such file.*random ones are refused"):
        SoundEncoder(f"vggish:{tmp_path / 'absent.pth'}")
