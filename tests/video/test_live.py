"""A file that grows while it is watched."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from marey.errors import VideoError
from marey.video.live import is_finished_mp4, iterate_live, newest

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def transport_stream(path: Path, num_frames: int = 50) -> bytes:
    """MPEG-TS at 25 fps whose frame i is grey level 4 * i + 16."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(num_frames):
            picture = np.full((48, 64, 3), 4 * i + 16, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_growing_file_is_read_to_its_last_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = transport_stream(tmp_path / "whole.ts")
    growing = tmp_path / "growing.ts"
    growing.write_bytes(data[: len(data) // 2])
    sleep = time.sleep

    def grow(seconds: float) -> None:
        """The rest of the file comes while its reader waits at the end."""
        if growing.stat().st_size < len(data):
            with growing.open("ab") as stream:
                stream.write(data[len(data) // 2 :])
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", grow)
    frames = list(iterate_live(str(growing), idle_seconds=1.0))
    assert growing.read_bytes() == data
    assert len(frames) == 50
    assert frames[0][0] == 0
    assert frames[-1][0] == pytest.approx(49 / 25, abs=0.01)
    levels = [int(frame.float().mean()) for _, frame in frames]
    assert levels == sorted(levels)


@pytest.mark.parametrize(("options", "finished"), [({}, True), (FRAGMENTED, False)])
def test_a_finished_mp4_is_watched_wherever_its_index_stands(
    tmp_path: Path, options: dict[str, str], finished: bool
) -> None:
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            picture = np.full((48, 64, 3), 4 * i + 16, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert is_finished_mp4(str(path)) is finished
    assert len(list(iterate_live(str(path), idle_seconds=0.2))) == 20

    half = tmp_path / "half.mp4"  # still being written: its index is not there yet
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not is_finished_mp4(str(half))


def test_sources_that_cannot_be_watched_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="nothing.ts: no such file"):
        next(iterate_live(str(tmp_path / "nothing.ts")))
    with pytest.raises(VideoError, match="/dev/video97: no such camera"):
        next(iterate_live("97"))
    (tmp_path / "text.ts").write_text("hello")
    with pytest.raises(VideoError, match=r"text\.ts"):
        next(iterate_live(str(tmp_path / "text.ts"), idle_seconds=0.1))


def test_only_the_newest_frame_waits_and_an_error_comes_through():
    slow, done = threading.Event(), threading.Event()

    def camera():
        yield 0.0, torch.zeros(3, 2, 2, dtype=torch.uint8)
        slow.wait(10)  # until the first frame is being worked on
        for number in range(1, 20):
            yield number / 10, torch.full((3, 2, 2), number, dtype=torch.uint8)
        done.set()
        raise VideoError("camera: unplugged")

    frames = newest(camera())
    assert next(frames)[0] == 0.0
    slow.set()
    assert done.wait(10)
    seconds, frame = next(frames)
    assert (seconds, int(frame[0, 0, 0])) == (1.9, 19)
    with pytest.raises(VideoError, match="unplugged"):
        next(frames)


def test_a_connection_that_is_cut_is_an_error_and_its_pictures_are_answered(
    tmp_path: Path,
) -> None:
    data = transport_stream(tmp_path / "whole.ts")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(data[: len(data) // 2])

        sender = threading.Thread(target=send)
        sender.start()
        seconds: list[float] = []
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        frames = iterate_live(address, idle_seconds=2.0)
        with pytest.raises(VideoError, match=r"ended after \d\.\d s; start the source and watch"):
            seconds.extend(moment for moment, _ in frames)
        sender.join()
    assert len(seconds) >= 15
    assert seconds == sorted(seconds)
