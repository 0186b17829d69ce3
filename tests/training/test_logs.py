"""What a run writes about itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from marey.training.logs import Bar, Meter, RunLog


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": 1.0 / step})
    log.close()
    (tmp_path / "log.jsonl").open("a").write('{"kind": "tra')  # a line cut by a kill
    log = RunLog(tmp_path, tensorboard=False, first_step=2)
    log.write("train", 3, {"loss": 0.1})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == 0.1


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path, tensorboard=True)
    log.write("eval", 3, {"top1": 0.5, "note": "text"})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["eval/top1"]
    assert events.Scalars("eval/top1")[0].value == 0.5


def test_waiting_for_data_is_measured_and_told() -> None:
    meter = Meter()
    assert meter.warning(workers=0) is None
    meter.started -= 100
    meter.waiting_seconds = 9.0
    assert meter.warning(workers=0) is None
    meter.waiting_seconds = 40.0
    assert "40% of the time went into waiting for videos to decode" in str(meter.warning(workers=0))
    assert "marey data pack" in str(meter.warning(workers=1000))


def test_evaluation_does_not_count_as_training_time() -> None:
    meter = Meter()
    with meter.outside():
        time.sleep(0.05)
    assert meter.outside_seconds >= 0.05
    assert meter.seconds <= time.perf_counter() - meter.started - 0.05


def test_the_bar_can_be_driven_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.say("hello")
    bar.step(1, 2, "loss 1")
    bar.close()
    assert capsys.readouterr().out == ""
