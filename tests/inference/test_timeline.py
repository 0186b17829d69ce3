"""Long videos as segments."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from marey.errors import UserError
from marey.inference.predictor import Predictor
from marey.inference.timeline import (
    Segment,
    Window,
    iterate_windows,
    merge_windows,
    timeline,
    windows_of,
    write_csv,
    write_srt,
)
from marey.video.decode import VideoReader, open_video


def test_windows_cover_the_video_and_the_last_ends_with_it() -> None:
    assert windows_of(5.0, 2.0, 1.0) == [(0, 2), (1, 3), (2, 4), (3, 5)]
    assert windows_of(4.5, 2.0, 1.0)[-1] == (2.5, 4.5)
    assert windows_of(1.0, 2.0, 1.0) == [(0.0, 1.0)]
    with pytest.raises(UserError, match="must both be positive"):
        windows_of(5.0, 0.0, 1.0)


def test_neighbours_with_one_answer_merge_and_borders_lie_in_the_overlap() -> None:
    def window(start: float, label: int, unknown: bool = False) -> Window:
        return Window(
            start_seconds=start,
            end_seconds=start + 2,
            probabilities=torch.eye(2)[label] * 0.8 + 0.1,
            unknown=unknown,
        )

    segments = merge_windows(
        [window(0, 0), window(1, 0), window(2, 1), window(3, 1, unknown=True)], ["a", "b"]
    )
    assert [(s.label, s.start_seconds, s.end_seconds) for s in segments] == [
        ("a", 0, 2.5),
        ("b", 2.5, 3.5),
        ("unknown", 3.5, 5),
    ]
    assert segments[0].probability == pytest.approx(0.9)


def test_day_turns_into_night_at_the_right_time(tiny_checkpoint: Path, day_and_night: Path) -> None:
    segments = timeline(
        Predictor.load(tiny_checkpoint), day_and_night, window_seconds=1.0, step_seconds=0.5
    )
    assert [s.label for s in segments] == ["bright", "dark"]
    assert segments[0].end_seconds == pytest.approx(4.0, abs=0.5)
    assert segments[-1].end_seconds == pytest.approx(8.0, abs=0.05)


def test_every_frame_is_decoded_once(
    tiny_checkpoint: Path, day_and_night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    decode = VideoReader.frames_at
    monkeypatch.setattr(
        VideoReader,
        "frames_at",
        lambda self, places: (asked.extend(places), decode(self, places))[1],
    )
    with open_video(day_and_night) as reader:
        windows = list(
            iterate_windows(
                Predictor.load(tiny_checkpoint), reader, window_seconds=1.6, step_seconds=0.4
            )
        )
    assert len(windows) > 8
    assert len(asked) == len(set(asked))


def test_segments_are_written_as_csv_and_subtitles() -> None:
    segments = [Segment(start_seconds=0, end_seconds=3661.5, label="run", probability=0.75)]
    csv, srt = io.StringIO(), io.StringIO()
    write_csv(segments, csv)
    write_srt(segments, srt)
    assert csv.getvalue().splitlines() == [
        "start_seconds,end_seconds,label,probability",
        "0,3661.5,run,0.75",
    ]
    assert srt.getvalue() == "1\n00:00:00,000 --> 01:01:01,500\nrun (75%)\n\n"


def test_shared_frames_are_embedded_once_with_the_same_answers(
    tiny_checkpoint: Path, day_and_night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    embedded: list[int] = []
    embed = type(predictor.model).embed_frames
    monkeypatch.setattr(
        type(predictor.model),
        "embed_frames",
        lambda self, frames: (embedded.append(len(frames)), embed(self, frames))[1],
    )

    def answers() -> torch.Tensor:
        with open_video(day_and_night) as reader:
            return torch.stack(
                [
                    window.probabilities
                    for window in iterate_windows(
                        predictor, reader, window_seconds=1.6, step_seconds=0.4
                    )
                ]
            )

    shared = answers()
    frames_of_windows = len(shared) * predictor.preprocess.sampling.num_frames
    assert 0 < sum(embedded) < 0.6 * frames_of_windows
    monkeypatch.setattr("marey.inference.timeline.shares_frames", lambda *_: False)
    torch.testing.assert_close(answers(), shared, atol=1e-5, rtol=0)
