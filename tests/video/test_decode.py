"""Exactness by brute force: whatever order and however few frames are asked for, they equal a full
linear decode."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from marey.errors import UserError, VideoError
from marey.video.decode import open_video
from marey.video.packet_source import DROPS_NONREF
from marey.video.stream import VideoFile

VARIABLE = [i * 40 + (i % 5) * 7 + (i // 10) * 100 for i in range(40)]
MAKES = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"b_frames": 3},
    "h264_b_pyramid_long_gop.mkv": {
        "b_frames": 3,
        "gop": 250,
        "options": {"x264-params": "b-pyramid=normal:bframes=3:b-adapt=0"},
    },
    "h264_open_gop.mp4": {
        "options": {"x264-params": "open-gop=1:bframes=3:keyint=9:min-keyint=9:b-adapt=0"}
    },
    "h264_open_gop.mkv": {
        "options": {"x264-params": "open-gop=1:bframes=3:keyint=9:min-keyint=9:b-adapt=0"}
    },
    "h264_intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "h264_interlaced.mp4": {"b_frames": 2, "options": {"x264-params": "tff=1"}},
    "h264_variable_rate.mp4": {"b_frames": 2, "pts": VARIABLE},
    "h264_variable_rate.mkv": {"b_frames": 2, "pts": VARIABLE},
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le", "b_frames": 2},
    "h264_gray.mp4": {"pix_fmt": "gray"},
    "h264_444_odd.mp4": {"pix_fmt": "yuv444p", "size": (63, 85), "b_frames": 2},
    "h264_b_frames.avi": {"b_frames": 2},
    "h264_b_frames.ts": {"b_frames": 2},
    "h264_open_gop.ts": {
        "options": {"x264-params": "open-gop=1:bframes=3:keyint=9:min-keyint=9:b-adapt=0"}
    },
    "h264_intra_refresh.ts": {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "h264_intra_refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "h264.flv": {"b_frames": 2},
    "hevc_open_gop.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:log-level=none"},
    },
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4_b_frames.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2_b_frames.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "vp8_hidden.webm": {
        "codec": "libvpx",
        "options": {
            "auto-alt-ref": "1",
            "lag-in-frames": "10",
            "crf": "10",
            "b": "1M",
            "cpu-used": "8",
        },
    },
    "vp9_hidden.webm": {
        "codec": "libvpx-vp9",
        "options": {
            "auto-alt-ref": "1",
            "lag-in-frames": "10",
            "crf": "20",
            "b": "0",
            "cpu-used": "8",
        },
    },
    "av1.mp4": {
        "codec": "libsvtav1",
        "options": {"preset": "12", "svtav1-params": "keyint=12:lp=1"},
    },
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1", "size": (63, 85), "pix_fmt": "yuv420p"},
    "gray16.mkv": {"codec": "ffv1", "pix_fmt": "gray16le"},
    "palette.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "one_frame.mp4": {"num": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_video):
    """Function from a name in MAKES to its file, made once."""
    folder = tmp_path_factory.mktemp("videos")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else make_video(path, **MAKES[name])

    return get


def assert_exact(path, reference, times=None, *, tries=4):
    """Every way of reading `path` gives the frames of `reference` at their indices."""
    L = len(reference)
    draw = random.Random(0)
    with open_video(path, threads=1) as reader:
        assert reader.num_frames == L
        assert (reader.height, reader.width) == reference[0].shape[:2]
        if times is not None and np.all(
            np.diff(times) > 0
        ):  # AVI gives reordered frames no usable times
            np.testing.assert_allclose(reader.frame_seconds, np.array(times) - times[0], atol=1e-9)
        for _ in range(tries):
            indices = [draw.randrange(L) for _ in range(5)]
            clip = reader.frames_at(indices)
            assert clip.frame_indices == tuple(indices)
            for frame, index in zip(clip.frames, indices, strict=True):
                np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), reference[index])
        streamed = [frame for clip in reader.iterate(1, None, 3, chunk=4) for frame in clip.frames]
        for frame, expected in zip(streamed, reference[1::3], strict=True):
            np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), expected)
        some = sorted({draw.randrange(L) for _ in range(4)})
        for index, frame in reader.stream(tuple(some)):
            assert index == some.pop(0)
            np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), reference[index])
        assert some == []
    for cache_bytes, threads in ((0, 1), (0, 2), (1 << 25, 2)):
        file = VideoFile(
            str(path), threads=threads, max_pixels=10**8, max_seconds=1e6, cache_bytes=cache_bytes
        )
        for indices in (range(L), sorted(draw.sample(range(L), min(L, 3))), [L - 1], [L // 2]):
            np.testing.assert_array_equal(
                file.decode(indices), np.stack([reference[i] for i in indices])
            )
        file.close()


@pytest.mark.parametrize("name", MAKES)
def test_frames_equal_a_full_decode(name, made, brute_force):
    path = made(name)
    assert_exact(path, *brute_force(path))


@pytest.mark.parametrize("name", [n for n in MAKES if n not in ("one_frame.mp4", "palette.gif")])
def test_the_number_in_the_pixels_is_the_index(name, made, read_number):
    with open_video(made(name)) as reader:
        clip = reader.frames_at([39, 0, 17, 17, 5])
        assert [read_number(frame.permute(1, 2, 0).numpy()) for frame in clip.frames] == [
            39,
            0,
            17,
            17,
            5,
        ]


@pytest.mark.parametrize(
    ("name", "by_packets"),
    [
        ("h264_b_frames.mp4", True),
        ("vp9_hidden.webm", True),
        ("mpeg4.avi", True),
        ("mpeg4_b_frames.avi", False),
        ("h264_b_frames.ts", False),
    ],
)
def test_packets_are_trusted_only_where_they_tell_the_truth(name, by_packets, made):
    file = VideoFile(str(made(name)), threads=1, max_pixels=10**8, max_seconds=1e6)
    assert file.by_packets is by_packets
    file.close()


def test_a_long_transport_stream_is_reached_by_seeking_not_counted_from_the_start(
    made, monkeypatch
):
    file = VideoFile(
        str(made("h264_b_frames.ts")), threads=1, max_pixels=10**8, max_seconds=1e6, cache_bytes=0
    )
    monkeypatch.setattr(file, "_decode_all", lambda: pytest.fail("decoded from the start"))
    assert file.decode([20, 38]).shape == (2, 64, 84, 3)
    file.close()


def test_dropping_unasked_non_reference_frames_changes_nothing_and_decodes_fewer(made, monkeypatch):
    path = made("h264_b_pyramid_long_gop.mkv")
    counts = {}
    for drop in (True, False):
        file = VideoFile(str(path), threads=1, max_pixels=10**8, max_seconds=1e6, drop_nonref=drop)
        feed, seen = file._feed, []
        monkeypatch.setattr(
            file,
            "_feed",
            lambda packets, feed=feed, seen=seen: (seen.append(f) or f for f in feed(packets)),
        )
        counts[drop] = (file.decode([3, 31]), seen)
        file.close()
    np.testing.assert_array_equal(counts[True][0], counts[False][0])
    assert len(counts[True][1]) < len(counts[False][1])


def test_mpeg4_with_b_frames_never_takes_the_dropping_path():
    assert {"h264", "hevc"} == DROPS_NONREF


@pytest.mark.parametrize(
    "clip",
    [
        "Basketball_ucf101_v_Basketball_g01_c01.avi",
        "CricketShot_ucf101_v_CricketShot_g04_c01_rgb.gif",
        "abseiling_k400.mp4",
        "archery_ucf101_paddlevideo_example.avi",
        "arm_wrestling_k400_mmaction2_demo.mp4",
        "flipping_pancake_k400.mkv",
        "wlasl_drink_17730.mp4",
    ],
)
def test_real_clips_equal_a_full_decode(clip, shared_dir, brute_force):
    path = shared_dir / "clips" / clip
    assert_exact(path, *brute_force(path), tries=2)


def test_an_edit_list_hides_the_frames_before_it(tmp_path, make_video, brute_force, read_number):
    path = make_video(tmp_path / "edited.mp4", b_frames=2, gop=12)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # after the name, version and flags, count
    duration, media_time = struct.unpack(">Ii", data[entry : entry + 8])
    timescale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    data[entry : entry + 8] = struct.pack(">Ii", duration, media_time + 5 * timescale // 25)
    path.write_bytes(data)
    reference, times = brute_force(path)
    assert read_number(reference[0]) == 5
    assert_exact(path, reference, times)


TURNS = {
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "90 counter-clockwise": (0, -1, 1, 0),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_metadata_is_applied(turn, tmp_path, make_video, brute_force):
    path = make_video(tmp_path / "phone.mp4", num=6, size=(48, 84))
    upright = brute_force(path)[0][0]
    data = bytearray(path.read_bytes())
    a, b, c, d = (v << 16 for v in TURNS[turn])
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    expected = np.rot90(upright, {"90 clockwise": -1, "180": 2, "90 counter-clockwise": 1}[turn])
    with open_video(path) as reader:
        assert (reader.height, reader.width) == expected.shape[:2]
        np.testing.assert_array_equal(
            reader.frames_at([0]).frames[0].permute(1, 2, 0).numpy(), expected
        )


def test_a_mirrored_display_matrix_is_applied(tmp_path, make_video, brute_force):
    path = make_video(tmp_path / "selfie.mp4", num=3, size=(48, 84))
    plain = brute_force(path)[0][2]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with open_video(path) as reader:
        np.testing.assert_array_equal(
            reader.frames_at([2]).frames[0].permute(1, 2, 0).numpy(), plain[:, ::-1]
        )


@pytest.mark.parametrize(
    "name",
    [
        "a#b.mp4",
        "what?.mp4",
        "100%.mp4",
        "%d.mp4",
        'it\'s "quoted".mp4',
        "two  spaces.mp4",
        "a:b.mp4",
        "-dash.mp4",
    ],
)
def test_any_name_opens(name, tmp_path, made):
    path = tmp_path / name
    path.write_bytes(made("h264.mp4").read_bytes())
    with open_video(path) as reader:
        assert reader.num_frames == 40


def colour_file(path, matrix, full, rgb, height=64):
    """One flat colour as yuv444 with the named matrix and range, tagged so."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    r, g, b = (v / 255 for v in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    planes = (
        [y * 255, u * 255 + 128, v * 255 + 128]
        if full
        else [16 + 219 * y, 128 + 224 * u, 128 + 224 * v]
    )
    array = np.stack([np.full((height, 64), round(p), np.uint8) for p in planes])
    name = "bt709" if matrix == "bt709" else "smpte170m"
    params = f"colormatrix={name}:fullrange={'on' if full else 'off'}:qp=1"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"x264-params": params})
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv444p"
        stream.codec_context.color_range = 2 if full else 1
        stream.codec_context.colorspace = 1 if matrix == "bt709" else 6
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(array, format="yuv444p")
            frame.color_range, frame.colorspace = 2 if full else 1, 1 if matrix == "bt709" else 6
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize(
    "rgb", [(200, 40, 60), (30, 180, 90), (20, 60, 220), (255, 255, 255), (0, 0, 0)]
)
def test_matrix_and_range_named_in_the_file_are_honoured(matrix, full, rgb, tmp_path):
    with open_video(colour_file(tmp_path / "colour.mp4", matrix, full, rgb)) as reader:
        seen = reader.frames_at([1]).frames[0].float().mean((1, 2)).tolist()
    assert seen == pytest.approx(rgb, abs=4)


@pytest.mark.parametrize(
    ("pix_fmt", "params"),
    [
        ("yuv420p10le", "qp=1"),
        ("yuv444p10le", "qp=1"),
        ("yuv422p", "qp=1"),
        ("yuvj420p", "qp=1"),
        ("gray", "qp=1:fullrange=on"),
        ("gray", "qp=1"),
    ],
)
def test_depth_sampling_and_grey_keep_their_colours(pix_fmt, params, tmp_path):
    rgb = np.full((64, 64, 3), 120, np.uint8)
    rgb[:, :32] = 120 if pix_fmt == "gray" else (200, 40, 60)
    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"x264-params": params})
        stream.height, stream.width, stream.pix_fmt = 64, 64, pix_fmt
        for _ in range(3):
            out.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
                )
            )
        out.mux(stream.encode(None))
    with open_video(tmp_path / "x.mp4") as reader:
        seen = reader.frames_at([1]).frames[0].permute(1, 2, 0).numpy().astype(int)
    allowed = 4 if pix_fmt != "gray" else 8
    assert np.abs(seen[8:-8, [8, 50]] - rgb[8:-8, [8, 50]]).max() <= allowed


def test_times_select_the_frame_shown_then(made):
    with open_video(made("h264_variable_rate.mp4")) as reader:
        seconds = [t / 1000 for t in VARIABLE]
        assert reader.frame_seconds == pytest.approx(seconds)
        asked = [0.0, seconds[7], seconds[7] - 0.001, seconds[7] + 0.001, 1e9]
        assert reader.indices_at_seconds(asked) == [0, 7, 6, 7, 39]
        assert reader.frames_at_seconds([seconds[7]]).frame_seconds == pytest.approx([seconds[7]])
        assert reader.frame_range(seconds[3], seconds[9]) == (3, 9)
        assert reader.frame_range(seconds[3], seconds[9] + 1e-3) == (3, 10)
        assert reader.frame_range() == (0, 40)


def test_frame_rate_and_duration_of_a_plain_file(made):
    with open_video(made("h264_b_frames.mp4")) as reader:
        assert reader.fps == 25
        assert reader.duration_seconds == pytest.approx(1.6)


def test_a_folder_of_frames_is_a_video_in_the_order_of_its_numbers(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((10, 14, 3), 20 * i, np.uint8)).save(tmp_path / f"img_{i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    with open_video(tmp_path, folder_fps=12) as reader:
        assert (reader.num_frames, reader.fps, reader.duration_seconds) == (12, 12, 1.0)
        clip = reader.frames_at([11, 2, 2])
        assert clip.frames[:, 0, 0, 0].tolist() == [220, 40, 40]
        assert [len(c.frames) for c in reader.iterate(chunk=5)] == [5, 5, 2]


def test_a_16_bit_grey_frame_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "1.png")
    with open_video(tmp_path) as reader:
        assert reader.frames_at([0]).frames.unique().tolist() == [100]


# ---- bad input ----


def bad_files(folder: Path, good: Path) -> dict[str, Path]:
    """Name of the trouble -> file."""
    files = {
        name: folder / f"{name}.mp4"
        for name in ("empty", "text", "noise", "no_index", "playlist", "script")
    }
    files["empty"].write_bytes(b"")
    files["text"].write_text("this is not a video\n" * 50)
    files["noise"].write_bytes(
        np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    )
    files["no_index"].write_bytes(good.read_bytes()[:900])
    files["playlist"].write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{good}\n#EXT-X-ENDLIST\n"
    )
    files["script"].write_text(f"ffconcat version 1.0\nfile {good}\n")
    files["missing"] = folder / "nowhere.mp4"
    (folder / "no_frames").mkdir()
    files["no_frames"] = folder / "no_frames"
    files["sound"] = folder / "sound.m4a"
    with av.open(str(files["sound"]), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return files


def test_every_bad_file_is_one_line_that_starts_with_its_path(tmp_path, made):
    for trouble, path in bad_files(tmp_path, made("h264.mp4")).items():
        with pytest.raises(VideoError) as caught:
            open_video(path)
        message = str(caught.value)
        assert message.startswith(str(path)), trouble
        assert "\n" not in message
        assert ";" in message, f"{trouble}: no remedy in {message}"


def test_the_messages_name_the_trouble(tmp_path, made):
    files = bad_files(tmp_path, made("h264.mp4"))
    for trouble, words in {
        "empty": "is empty",
        "missing": "no such file",
        "sound": "has no video stream",
        "no_frames": "holds no frames",
    }.items():
        with pytest.raises(VideoError, match=words):
            open_video(files[trouble])


def test_a_picture_bomb_is_refused_at_once(tmp_path):
    path = tmp_path / "bomb.gif"
    path.write_bytes(
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(3)
        + b"\xff" * 3
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\x16"
        + bytes(22)
        + b"\x00;"
    )
    with pytest.raises(VideoError, match=r"bomb\.gif: .*beyond \d+ pixels"):
        open_video(path)


def test_limits_are_enforced_and_can_be_raised(made):
    with pytest.raises(VideoError, match=r"84 x 64.*raise max_pixels"):
        open_video(made("h264.mp4"), max_pixels=1000)
    with pytest.raises(VideoError, match=r"lasts 2 s, the limit is 1 s.*raise max_seconds"):
        open_video(made("h264.mp4"), max_seconds=1)
    open_video(made("h264.mp4"), max_pixels=84 * 64, max_seconds=2).close()


@pytest.mark.parametrize("name", ["h264_b_pyramid_long_gop.mkv", "mpeg4.avi", "mpeg4_b_frames.avi"])
def test_a_file_cut_short_serves_what_is_there_and_says_so(name, made, tmp_path, read_number):
    data = made(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 6 // 10])
    with open_video(path) as reader:
        assert "cut short" in reader.damaged
        assert 5 < reader.num_frames < 40
        clips = list(reader.iterate())
        numbers = [
            read_number(frame.permute(1, 2, 0).numpy()) for clip in clips for frame in clip.frames
        ]
        assert numbers[:-4] == list(range(reader.num_frames - 4))


def test_a_faststart_mp4_cut_short_serves_what_is_there(made, tmp_path, make_video, read_number):
    whole = make_video(tmp_path / "whole.mp4", b_frames=0, gop=5)
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "+faststart"}) as out,
    ):
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) - len(data) // 4])
    with open_video(path) as reader:
        assert "cut short" in reader.damaged
        L = reader.num_frames
        assert 5 < L < 40
        assert [
            read_number(f.permute(1, 2, 0).numpy()) for f in reader.frames_at(range(L)).frames
        ] == list(range(L))


def test_an_undamaged_file_says_nothing(made):
    for name in ("h264.mp4", "vp9_hidden.webm", "mpeg4.avi", "h264_b_frames.ts", "palette.gif"):
        with open_video(made(name)) as reader:
            assert reader.damaged is None


def test_a_frame_lost_to_damage_is_an_error_that_names_it(made, tmp_path):
    path = tmp_path / "hole.mp4"
    data = bytearray(made("h264.mp4").read_bytes())
    with av.open(str(made("h264.mp4"))) as container:
        packet = [p for p in container.demux(video=0) if p.size][36]
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    with open_video(path) as reader:
        assert reader.frames_at([35]).frame_indices == (35,)
        with pytest.raises(VideoError, match=r"frame 36 \(of 40\) cannot be decoded"):
            reader.frames_at([36])
        assert reader.frames_at([2, 35]).num_frames == 2  # the reader lives on


def test_wrong_indices_are_named(made):
    with open_video(made("h264.mp4")) as reader:
        with pytest.raises(VideoError, match=r"has frames 0 to 39, frame 40 was asked for"):
            reader.frames_at([40])
        with pytest.raises(VideoError, match="frame -1"):
            reader.frames_at([-1])
        with pytest.raises(UserError, match="no frame was asked for"):
            reader.frames_at([])
        with pytest.raises(UserError, match="start counts from 0"):
            next(reader.iterate(-3))
        with pytest.raises(VideoError, match="is empty or outside"):
            reader.frame_range(5, 6)


def test_two_reads_at_once_are_refused_not_mixed_up(made):
    with open_video(made("h264.mp4")) as reader:
        running = reader.iterate(chunk=2)
        next(running)
        reader.frames_at([3])
        with pytest.raises(RuntimeError, match="another read began"):
            next(running)
