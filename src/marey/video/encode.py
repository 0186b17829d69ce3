"""Writing video files; H.264 as every browser plays it: yuv420p, faststart, even sizes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from marey.errors import UserError, unknown_name
from marey.files import atomic

CODECS = {
    "h264": ("libx264", "libopenh264", "mpeg4"),
    "h265": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "mpeg4": ("mpeg4",),
    "av1": ("libsvtav1", "libaom-av1"),
    "ffv1": ("ffv1",),
}
"""Codec name -> encoders tried in turn."""
MP4_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus"})
"""Sound that an MP4 file holds as it is."""
H265_SMALLEST_SIDE = 72
"""In pixels. Below it x265 4.2 writes beyond its memory (sides of about 50), which ends the
process, and gives other bytes in every run (sides of 32 and 64)."""
SMPTE170M, LIMITED_RANGE = 6, 1
"""Matrix and range that swscale converts RGB to (AVColorSpace, AVColorRange); named in the file, so
that players do not guess BT.709 for large pictures."""


def write_video(
    path: str | os.PathLike[str],
    frames: Tensor | Iterable[Tensor],
    fps: float,
    codec: str = "h264",
    *,
    crf: int = 20,
    gop: int | None = None,
    audio_from: str | os.PathLike[str] | None = None,
    options: dict[str, str] | None = None,
) -> str:
    """Write frames to a video file; an old file under that name survives a failure.

    Args:
        path: target; the suffix chooses the container (.mp4, .mkv, .webm, .avi, ...).
        frames: uint8, (T, 3, H, W) RGB, or an iterator of such clips or of single frames (3, H, W).
        fps: frames per second.
        codec: h264, h265, vp9, mpeg4, av1 or ffv1 (lossless up to the change to yuv). H.264 falls
            back to another encoder where libx264 is missing.
        crf: quality, lower is better (h264, h265, vp9, av1).
        gop: largest distance between key frames; None leaves the encoder's own.
        audio_from: a file whose first audio stream is copied unchanged; one that an MP4 cannot hold
            (PCM, for example) is encoded as AAC.
        options: further encoder options, FFmpeg's names.

    Returns:
        The name of the encoder used.

    Raises:
        UserError: if the codec is unknown or no encoder for it is present, there is no frame, a
            side is too short for H.265, or the disk refuses.
    """
    if codec not in CODECS:
        raise unknown_name("codec", codec, CODECS)
    if not fps > 0:
        raise UserError(f"{path}: fps is a rate above 0, got {fps}")
    target = Path(path)
    encoder = _encoder(codec)
    try:
        with atomic(target) as temporary:
            _write(
                temporary,
                _single_frames(frames, target),
                fps,
                encoder,
                crf,
                gop,
                audio_from,
                options or {},
                target,
            )
    except UserError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(
            f"{target}: cannot be written ({' '.join(str(error).split())}); check the disk, the "
            "name and the codec"
        ) from error
    return encoder


def _encoder(codec: str) -> str:
    for name in CODECS[codec]:
        try:
            av.codec.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        if name != CODECS[codec][0]:
            warnings.warn(f"{CODECS[codec][0]} is not in this FFmpeg; {name} is used", stacklevel=3)
        return name
    raise UserError(
        f"no encoder for '{codec}' in this FFmpeg (tried {', '.join(CODECS[codec])}); choose "
        "another codec"
    )


def _single_frames(frames: Tensor | Iterable[Tensor], target: Path) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) uint8, padded to even sizes by repeating the last row or column."""
    some = False
    for item in [frames] if isinstance(frames, Tensor) else frames:
        if item.dtype != torch.uint8 or item.ndim not in (3, 4) or item.shape[-3] != 3:
            raise UserError(
                f"{target}: frames to write are uint8 RGB (T, 3, H, W), got {item.dtype} "
                f"{tuple(item.shape)}"
            )
        for frame in item if item.ndim == 4 else item[None]:
            some = True
            pixels = frame.permute(1, 2, 0).cpu().numpy()
            if pixels.shape[0] % 2 or pixels.shape[1] % 2:
                pixels = np.pad(
                    pixels,
                    ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)),
                    mode="edge",
                )
            yield np.ascontiguousarray(pixels)
    if not some:
        raise UserError(f"{target}: there is no frame to write; give at least one")


def _write(
    temporary: Path,
    frames: Iterator[np.ndarray],
    fps: float,
    encoder: str,
    crf: int,
    gop: int | None,
    audio_from: str | os.PathLike[str] | None,
    options: dict[str, str],
    target: Path,
) -> None:
    first = next(frames)
    if encoder == "libx265" and min(first.shape[:2]) < H265_SMALLEST_SIDE:
        raise UserError(
            f"{target}: H.265 is written for sides of {H265_SMALLEST_SIDE} pixels and more, got "
            f"{first.shape[:2]}; write h264"
        )
    muxer = (
        {"movflags": "+faststart"} if target.suffix.lower() in (".mp4", ".mov", ".m4v", "") else {}
    )
    container = None if target.suffix else "mp4"
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(
            av.open(f"file:{temporary}", "w", format=container, options=muxer)
        )
        takes_crf = encoder in ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1")
        quality = {"crf": str(crf)} if takes_crf else {}
        if encoder == "libvpx-vp9":
            quality["b"] = "0"
        if encoder == "libx264":
            # without it, one encoding in a hundred differs: AVX2 code reads memory nobody wrote
            quality["x264-params"] = "cpu-independent=1"
        if encoder == "libx265":
            quality["x265-params"] = "log-level=none"
        if encoder == "mpeg4":
            quality["qscale"] = "3"
        stream: Any = out.add_stream(
            encoder, rate=Fraction(fps).limit_denominator(65535), options={**quality, **options}
        )
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = SMPTE170M, LIMITED_RANGE
        if gop is not None:
            stream.codec_context.gop_size = gop
        audio = _audio(stack, out, audio_from, is_mp4=bool(muxer))
        for pixels in _chain(first, frames):
            if pixels.shape != first.shape:
                raise UserError(
                    f"{target}: all frames of a video have one size, got {first.shape[:2]} and "
                    f"then {pixels.shape[:2]}"
                )
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
        for packet in audio:
            out.mux(packet)


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _audio(
    stack: contextlib.ExitStack, out: Any, source: str | os.PathLike[str] | None, *, is_mp4: bool
) -> Iterator[Any]:
    """Packets of the source's first audio stream, bound to a copy of it in `out`; none where there
    is no sound."""
    if source is None:
        return iter(())
    container: Any = stack.enter_context(
        av.open("file:" + os.fspath(source), metadata_errors="ignore")
    )
    if not container.streams.audio:
        return iter(())
    sound = container.streams.audio[0]
    if is_mp4 and sound.codec_context.name not in MP4_SOUND:
        return _encoded_sound(container, sound, out.add_stream("aac", rate=sound.rate))
    copy = out.add_stream_from_template(sound)

    def packets() -> Iterator[Any]:
        for packet in container.demux(sound):
            if packet.dts is not None:
                packet.stream = copy
                yield packet

    return packets()


def _encoded_sound(container: Any, sound: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of an audio stream encoded anew."""
    for frame in container.decode(sound):
        frame.pts = None  # counted by the encoder
        yield from stream.encode(frame)
    yield from stream.encode(None)
