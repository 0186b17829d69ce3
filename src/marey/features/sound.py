"""Sound encoders, one vector per second: 16 kHz mono, VGGish's log-mel patches, and two encoders of
a patch.

Source: Hershey et al., "CNN architectures for large-scale audio classification", and the constants
of the released
VGGish: 25 ms window, 10 ms hop, 64 mel bands from 125 to 7,500 Hz, log(mel + 0.01), patches of 96
frames (0.96 s).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from marey.errors import UserError, VideoError
from marey.features.weights import load_weights

SAMPLE_RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512
"""25 ms, 10 ms, and the transform's length, in samples."""
MEL_BANDS, LOWEST_HZ, HIGHEST_HZ, LOG_OFFSET = 64, 125.0, 7500.0, 0.01
PATCH_FRAMES = 96
SUMMARY_CENTRE, SUMMARY_SCALE = (-1.3, 0.6), (1.65, 0.5)
"""Log-mel summary: offset and unit of the bands' means and standard deviations; silence gives -2
and -1.2."""


def decode_sound(path: str | Path, max_seconds: float = 300.0) -> Tensor | None:
    """Decode the first sound track of a file.

    Returns:
        float32 (samples,) in [-1, 1] at 16 kHz, mono; None where the file has no sound track. A
        track that breaks off is returned as far as it can be decoded.

    Raises:
        VideoError: if the file cannot be opened.
    """
    if Path(path).is_dir():
        return None
    parts, count = [], 0
    try:
        with av.open("file:" + str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                return None
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in _frames(container):
                try:
                    resampled = resampler.resample(frame)
                except ValueError:  # damage: the track goes on at another rate or layout
                    break
                for part in resampled:
                    parts.append(part.to_ndarray().reshape(-1))
                    count += parts[-1].size
                if count >= max_seconds * SAMPLE_RATE:
                    break
            parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(None)]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: its sound cannot be read ({error})") from error
    if not parts:
        return None
    sound = np.concatenate(parts)[: int(max_seconds * SAMPLE_RATE)].astype(np.float32)
    return torch.from_numpy(np.nan_to_num(sound).clip(-1, 1))


def _frames(container: Any) -> Any:
    try:
        yield from container.decode(audio=0)
    except (av.error.FFmpegError, IndexError):
        return


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Return the (257, 64) matrix from spectrum bins to mel bands: triangles in mel, 1127 ln(1 + f
    / 700)."""

    def mel(hz: NDArray | float) -> Any:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    # Triangle b rises from edge b to edge b + 1 and falls to edge b + 2.
    edges = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), MEL_BANDS + 2)
    bins = mel(np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0  # no constant (DC) part
    return torch.from_numpy(weights).float()


def log_mel(sound: Tensor) -> Tensor:
    """Return the log-mel spectrogram of (..., samples): float (..., frames, 64), one frame each 10
    ms."""
    # Windows of 25 ms every 10 ms, Hann-weighted: (..., frames, 400) -> (..., frames, 257).
    frames = sound.unfold(-1, WINDOW, HOP) * torch.hann_window(WINDOW, periodic=True)
    spectrum = torch.fft.rfft(frames, FFT).abs()
    return (spectrum @ mel_filters() + LOG_OFFSET).log()


def sound_patches(sound: Tensor | None, seconds: int) -> Tensor:
    """Cut a log-mel patch of 0.96 s at the start of every second, so that sound and frames stay
    aligned.

    (Consecutive VGGish patches would drift by 12 s in 5 minutes.) Where there is no sound, patches
    are silence.

    Args:
        sound: (samples,) at 16 kHz, or None.
        seconds: T.

    Returns:
        float (T, 96, 64).
    """
    length = seconds * SAMPLE_RATE
    padded = torch.zeros(length)
    if sound is not None:
        padded[: min(length, len(sound))] = sound[:length]
    window = (PATCH_FRAMES - 1) * HOP + WINDOW
    return log_mel(padded.view(seconds, SAMPLE_RATE)[:, :window])


def log_mel_summary(patches: Tensor) -> Tensor:
    """Describe each patch by 128 numbers without learned weights: mean and standard deviation over
    time of 64 bands.

    Means are shifted by 1.3 and divided by 1.65, standard deviations shifted by -0.6 and divided by
    0.5, which puts silence at -2 and -1.2 and most sounds inside [-2, 2].

    Args:
        patches: float (T, 96, 64).

    Returns:
        float (T, 128).
    """
    values = (patches.mean(1), patches.std(1, unbiased=False))
    return torch.cat(
        [
            (value - centre) / scale
            for value, centre, scale in zip(values, SUMMARY_CENTRE, SUMMARY_SCALE, strict=True)
        ],
        dim=1,
    )


class VGGish(nn.Module):
    """The VGG-shaped encoder of YouTube-8M's sound: a 96 x 64 patch in, 128 numbers out.

    Parameters are named as in the public PyTorch port (`features.0.weight`, ...,
    `embeddings.4.bias`).
    """

    def __init__(self) -> None:
        """Build it; the weights come from a file the user has."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool"):
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 4 * 6, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
            nn.ReLU(),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Return (T, 128) for log-mel patches (T, 96, 64)."""
        maps = self.features(patches[:, None])
        return self.embeddings(
            maps.permute(0, 2, 3, 1).flatten(1)
        )  # the original flattens channels last


class SoundEncoder:
    """Sound of a file -> (T, dim) features: `log-mel`, or VGGish with weights from a file."""

    def __init__(self, source: str = "log-mel") -> None:
        """Load the encoder.

        Args:
            source: "log-mel", or "vggish:FILE" (.safetensors, or a .pth of plain tensors).

        Raises:
            UserError: if the source is neither, or the file does not fit.
        """
        self.source, self.model = source, None
        if source.startswith("vggish:"):
            self.model = load_weights(VGGish(), source.partition(":")[2])
        elif source != "log-mel":
            raise UserError(
                f"sound encoder '{source}' is neither 'log-mel' nor 'vggish:FILE' (weights are "
                "never "
                "random)"
            )

    @torch.inference_mode()
    def __call__(self, path: str | Path, seconds: int, start_seconds: float = 0.0) -> Tensor:
        """Return float (T, 128) from a time on; silence where the file has no sound track."""
        sound = decode_sound(path, start_seconds + seconds)
        patches = sound_patches(
            None if sound is None else sound[round(start_seconds * SAMPLE_RATE) :], seconds
        )
        if self.model is None:
            return log_mel_summary(patches)
        return torch.cat([self.model(part) for part in patches.split(32)])
