"""Codec corruptions: the consecutive frames of a whole window go through a real encoder and
decoder, in memory.

Never give these the few frames a model samples: a codec predicts each frame from its neighbours.
Every kind keeps the length: a frame that the bitstream lost repeats the last good one. One thread,
and x264 without its macroblock tree (whose decisions differ between runs), so that the same clip
and generator give the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.errors import UserError
from marey.video.encode import H265_SMALLEST_SIDE

BASE_CRF = 23
"""Quality of the stream that bit errors and packet losses damage: x264's own default."""
PACKET_BYTES = 1400
"""Payload of one network packet."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An encoded window: one packet a frame in decoding order, with what the decoder needs to
    start."""

    codec: str
    """Decoder name."""
    header: bytes
    """Parameter sets, sent out of band, never damaged."""
    packets: tuple[tuple[int, bytes], ...]
    """(presentation index of the frame, bytes) in decoding order."""
    width: int
    """Encoded width in pixels, even."""
    height: int
    """Encoded height in pixels, even."""

    @property
    def num_bytes(self) -> int:
        """Size of all packets."""
        return sum(len(data) for _, data in self.packets)


@lru_cache(maxsize=16)
def require_encoder(name: str) -> None:
    """Check that this FFmpeg has an encoder.

    Raises:
        UserError: naming the encoder that is missing.
    """
    try:
        av.codec.Codec(name, "w")
    except Exception as error:
        raise UserError(
            f"the FFmpeg of PyAV {av.__version__} has no encoder '{name}', which this corruption "
            "needs; install a PyAV wheel from PyPI (it brings libx264 and libx265)"
        ) from error


def _padded(frames: Tensor, encoder: str) -> Tensor:
    """Repeat the last row and column where a side is odd (4:2:0 needs even sides), or shorter than
    the encoder can be trusted with."""
    H, W = frames.shape[-2:]
    smallest = H265_SMALLEST_SIDE if encoder == "libx265" else 0
    below, right = max(H % 2, smallest - H), max(W % 2, smallest - W)
    if below or right:
        frames = F.pad(frames.float(), [0, right, 0, below], mode="replicate").to(torch.uint8)
    return frames


def encode(
    frames: Tensor,
    encoder: str,
    *,
    fps: float = 30.0,
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
    qscale: int | None = None,
) -> Stream:
    """Encode a window, (T, 3, H, W) uint8, 4:2:0.

    Args:
        frames: consecutive frames.
        encoder: an FFmpeg encoder, for example "libx264".
        fps: shown frames per second, for the rate control.
        options: private options of the encoder.
        bit_rate: bits per second for average-bit-rate control, also the maximum and the buffer
            size.
        qscale: fixed quantiser, 1 to 31 (FFmpeg limits greater values to 31).
    """
    require_encoder(encoder)
    padded = _padded(frames.cpu(), encoder)
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = padded.shape[3], padded.shape[2], "yuv420p"
    rate = Fraction(fps).limit_denominator(1000)
    context.time_base, context.framerate = 1 / rate, rate

    settings = dict(options or {})
    if encoder == "libx264":
        settings["x264-params"] = "threads=1:mbtree=0"  # the macroblock tree is not repeatable
    if bit_rate is not None:
        context.bit_rate = bit_rate
        settings |= {"maxrate": str(bit_rate), "bufsize": str(bit_rate)}
    if qscale is not None:
        settings |= {"qmin": str(qscale), "qmax": str(qscale)}
    context.options = settings
    context.thread_count = 1

    packets = []
    images = padded.permute(0, 2, 3, 1).contiguous().numpy()
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = index, context.time_base
        packets.extend(context.encode(frame))
    packets.extend(context.encode(None))
    header = bytes(context.extradata or b"")
    return Stream(
        codec=context.codec.canonical_name,
        header=header,
        width=padded.shape[3],
        height=padded.shape[2],
        packets=tuple((int(packet.pts or 0), bytes(packet)) for packet in packets),
    )


def decode(stream: Stream, num_frames: int, height: int, width: int) -> Tensor:
    """Decode a stream that may be damaged, (num_frames, 3, height, width) uint8.

    A frame that does not come out repeats the last good one; before the first good frame, the first
    good one is shown; when nothing decodes, all frames are black.
    """
    context = av.CodecContext.create(stream.codec, "r")
    context.thread_count = 1
    context.width, context.height = stream.width, stream.height
    # The ffmpeg command shows damaged frames too.
    context.options = {"flags": "+output_corrupt", "flags2": "+showall"}
    if stream.header:
        context.extradata = stream.header

    shown: dict[int, np.ndarray] = {}
    for index, data in [*stream.packets, (-1, b"")]:
        packet = None
        if data:
            packet = av.Packet(len(data))  # allocated with the decoder's padding
            packet.update(data)
            packet.pts = packet.dts = index
        try:
            for frame in context.decode(packet):
                if frame.pts is not None and 0 <= frame.pts < num_frames:
                    shown[frame.pts] = frame.to_ndarray(format="rgb24")
        except av.error.FFmpegError:
            continue  # a damaged packet: its frame repeats another

    result = torch.zeros(num_frames, 3, height, width, dtype=torch.uint8)
    good = sorted(
        index for index in shown if shown[index].shape[:2] == (stream.height, stream.width)
    )
    for i in range(num_frames):
        last = max((index for index in good if index <= i), default=good[0] if good else None)
        if last is not None:
            result[i] = torch.from_numpy(shown[last][:height, :width].copy()).permute(2, 0, 1)
    return result


def _through(frames: Tensor, encoder: str, **arguments: object) -> Tensor:
    """Encode and decode a window."""
    stream = encode(frames, encoder, **arguments)  # type: ignore[arg-type]
    return decode(stream, len(frames), *frames.shape[-2:]).to(frames.device)


def mpeg1(frames: Tensor, *, qscale: int) -> Tensor:
    """Encode as MPEG-4 part 2 at fixed quantiser: what the P-sets call MPEG-1 (`mpeg4 -q:v`)."""
    return _through(frames, "mpeg4", qscale=min(qscale, 31), fps=25.0)


def mpeg2(frames: Tensor, *, qscale: int) -> Tensor:
    """Encode as MPEG-2 at fixed quantiser (`mpeg2video -q:v`)."""
    return _through(frames, "mpeg2video", qscale=min(qscale, 31), fps=25.0)


_QUIET_X265 = "log-level=none:pools=none:frame-threads=1"


def h264_crf(frames: Tensor, *, crf: int, fps: float) -> Tensor:
    """Encode with x264 at constant rate factor `crf`."""
    return _through(frames, "libx264", options={"crf": str(crf)}, fps=fps)


def h265_crf(frames: Tensor, *, crf: int, fps: float) -> Tensor:
    """Encode with x265 at constant rate factor `crf`."""
    return _through(
        frames, "libx265", options={"crf": str(crf), "x265-params": _QUIET_X265}, fps=fps
    )


def estimate_bitrate(frames: Tensor, fps: float) -> float:
    """Return the bits per second x264 spends on the window at its default quality."""
    stream = encode(frames, "libx264", options={"crf": str(BASE_CRF)}, fps=fps)
    return 8 * stream.num_bytes * fps / len(frames)


def _target(frames: Tensor, divisor: int, fps: float, reference_bitrate: float | None) -> int:
    return max(1000, round((reference_bitrate or estimate_bitrate(frames, fps)) / divisor))


def h264_abr(
    frames: Tensor, *, divisor: int, fps: float, reference_bitrate: float | None
) -> Tensor:
    """Encode with x264 at an average bit rate of the reference divided by `divisor`
    (bits per second).

    Without a reference bit rate, x264's rate at its default quality stands in.
    """
    target = _target(frames, divisor, fps, reference_bitrate)
    return _through(frames, "libx264", bit_rate=target, fps=fps)


def h265_abr(
    frames: Tensor, *, divisor: int, fps: float, reference_bitrate: float | None
) -> Tensor:
    """Encode with x265 at an average bit rate of the reference divided by `divisor`
    (bits per second)."""
    target = _target(frames, divisor, fps, reference_bitrate)
    return _through(
        frames, "libx265", bit_rate=target, fps=fps, options={"x265-params": _QUIET_X265}
    )


def frame_rate(frames: Tensor, *, kept_fps: int, fps: float) -> Tensor:
    """Drop to `kept_fps` frames per second, encode with x265, and show each kept frame until the
    next.

    A clip whose rate is already at or below `kept_fps` keeps all its frames.
    """
    T = len(frames)
    # Frame i falls into slot floor(i kept_fps / fps); the first frame of each slot is kept.
    slots = [math.floor(i * min(kept_fps, fps) / fps + 1e-9) for i in range(T)]
    kept = [i for i in range(T) if i == 0 or slots[i] != slots[i - 1]]
    coded = _through(
        frames[kept], "libx265", options={"x265-params": _QUIET_X265}, fps=float(min(kept_fps, fps))
    )
    return coded[torch.tensor(slots, device=coded.device)]


def bit_error(frames: Tensor, *, bytes_per_error: int, fps: float, generator: Generator) -> Tensor:
    """Replace on average one byte in `bytes_per_error` of an x264 stream by a random one.

    The source runs FFmpeg's `noise` bitstream filter over the file; ours encodes the window at
    x264's default quality first, so small frames, with few bytes, meet few errors.
    """
    stream = encode(frames, "libx264", options={"crf": str(BASE_CRF)}, fps=fps)
    damaged = []
    for index, data in stream.packets:
        values = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        hit = (
            torch.rand(len(values), generator=generator, device=generator.device).cpu()
            < 1 / bytes_per_error
        )
        noise = torch.randint(
            0, 256, (int(hit.sum()),), generator=generator, device=generator.device
        )
        values[hit] = noise.to(torch.uint8).cpu()
        damaged.append((index, values.numpy().tobytes()))
    return decode(replace(stream, packets=tuple(damaged)), len(frames), *frames.shape[-2:]).to(
        frames.device
    )


def packet_loss(frames: Tensor, *, loss: float, fps: float, generator: Generator) -> Tensor:
    """Lose each network packet of an x264 stream with probability `loss`.

    The source streams over a simulated two-switch network. Here the stream has a key frame a
    second, a frame travels in packets of 1,400 bytes and parameter sets arrive safely; what is lost
    is missing from the frame's bytes, and the decoder conceals it. A frame that loses its first
    packet, with the header, is lost.
    """
    key = str(max(1, round(fps)))
    stream = encode(frames, "libx264", options={"crf": str(BASE_CRF), "g": key}, fps=fps)
    arrived = []
    for index, data in stream.packets:
        pieces = [data[start : start + PACKET_BYTES] for start in range(0, len(data), PACKET_BYTES)]
        kept = (
            torch.rand(len(pieces), generator=generator, device=generator.device) >= loss
        ).tolist()
        if kept[0]:
            arrived.append(
                (index, b"".join(piece for piece, ok in zip(pieces, kept, strict=True) if ok))
            )
    partial = replace(stream, packets=tuple(arrived))
    return decode(partial, len(frames), *frames.shape[-2:]).to(frames.device)
