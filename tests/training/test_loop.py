"""The loop: what it keeps, how it resumes, how several processes share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_training import (
    AdversarialToy,
    adversarial_toy,
    shared_toy,
    toy_config,
    toy_model,
    toy_task,
)

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.training.config import ModelConfig, OptimConfig, TrainConfig
from marey.training.logs import Quiet
from marey.training.loop import Run, train
from marey.training.objective_config import ClassificationConfig, ObjectiveConfig
from marey.training.step import Stepper
from marey.training.task import Batch

MIXING = ObjectiveConfig(classification=ClassificationConfig(mixup_alpha=0.4, cutmix_alpha=0.4))


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


def weights(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(out / name / "model.safetensors")


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def run_until(
    config: TrainConfig,
    out: Path,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    resume: bool = False,
) -> None:
    """Train and die just before step number `step` updates the weights."""
    whole = Stepper.one_step

    def one_step(self: Stepper, parts: Iterator[Batch], name: str) -> dict[str, float]:
        if name.endswith(f"step {step}"):
            raise KilledError
        return whole(self, parts, name)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "one_step", one_step)
        with pytest.raises(KilledError):
            train(config, out, task=toy_task(config), resume=resume, quiet=True)


def test_a_run_leaves_best_last_config_and_log(tmp_path: Path) -> None:
    config = toy_config(epochs=6)
    result = train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    assert result.steps == 23  # 6 epochs of 30 clips in batches of 8
    assert result.best is not None
    assert result.best >= 0.9
    checkpoint = load_checkpoint(tmp_path / "run" / "best")
    assert checkpoint.class_names == ["bright", "dark", "grey"]
    assert checkpoint.extra["task"] == "clips"
    assert TrainConfig.from_dict(checkpoint.extra["config"]) == config
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [4, 8, 12, 15, 19, 23]
    assert lines[-1]["kind"] == "end"
    assert {"loss", "class", "lr", "clips_per_second", "waiting_share"} <= {*lines[2]}


@pytest.mark.parametrize(
    ("step", "settings", "optim"),
    [
        (
            5,
            {"average": "ema", "save_every": 3},
            OptimConfig(name="sgd", lr=0.05, schedule="plateau", plateau_patience=0),
        ),
        (
            10,
            {"average": "swa", "swa_start": 0.3, "balanced_sampler": True},
            OptimConfig(lr=2e-3, schedule="onecycle"),
        ),
        (9, {"accumulate": 2, "save_every": 4}, OptimConfig(lr=2e-3, warmup=0.2, clip_norm=0.5)),
        (1, {}, OptimConfig(name="adam", lr=2e-3)),
    ],
)
def test_a_run_killed_at_any_step_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, settings: dict, optim: OptimConfig
) -> None:
    config = toy_config(optim=optim, objective=MIXING, **settings)
    train(config, tmp_path / "whole", task=toy_task(config), quiet=True)
    run_until(config, tmp_path / "cut", step, monkeypatch)
    result = train(config, tmp_path / "cut", task=toy_task(config), resume=True, quiet=True)
    assert result.steps == 12
    for name in ("best", "last"):
        assert_equal(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    evals = [
        [
            line
            for line in (tmp_path / run / "log.jsonl").read_text().splitlines()
            if '"eval"' in line
        ]
        for run in ("whole", "cut")
    ]
    assert evals[0] == evals[1]


def test_a_run_killed_twice_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(save_every=2)
    train(config, tmp_path / "whole", task=toy_task(config), quiet=True)
    run_until(config, tmp_path / "cut", 3, monkeypatch)
    run_until(config, tmp_path / "cut", 7, monkeypatch, resume=True)
    train(config, tmp_path / "cut", task=toy_task(config), resume=True, quiet=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import os, signal\nfrom pathlib import Path\nfrom toy_training import toy_config, "
        "toy_task\n"
        "from marey.training.loop import Run, train\nconfig = toy_config(save_every=2)\n"
        "step = Run.report\n"
        "def report(self, losses):\n"
        "    step(self, losses)\n"
        "    if self.state.step == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Run.report = report\n"
        f"train(config, {str(tmp_path / 'cut')!r}, task=toy_task(config), quiet=True)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], check=False, env=one_thread()).returncode
        == -9
    )
    config = toy_config(save_every=2)
    train(config, tmp_path / "cut", task=toy_task(config), resume=True, quiet=True)
    train(config, tmp_path / "whole", task=toy_task(config), quiet=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_workers_and_parts_do_not_change_the_weights(tmp_path: Path) -> None:
    plain = toy_config(epochs=1, model=toy_model(dropout=0.0))
    workers, parts = (
        toy_config(epochs=1, model=toy_model(dropout=0.0), **change)
        for change in ({"workers": 2}, {"accumulate": 4})
    )
    for name, config in (("plain", plain), ("workers", workers), ("parts", parts)):
        train(config, tmp_path / name, task=toy_task(config), quiet=True)
    assert_equal(weights(tmp_path / "plain"), weights(tmp_path / "workers"))
    for key, value in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[key], value, rtol=1e-3, atol=2e-5)


PROCESS = """
import sys; sys.path.insert(0, sys.argv[1])
from toy_training import adversarial_toy, shared_toy
from marey.training.loop import train
for name, (config, task) in (("plain", shared_toy()), ("adversarial", adversarial_toy())):
    train(config, f"{sys.argv[2]}/{name}", task=task, quiet=True)
"""


@pytest.mark.parametrize(
    "launcher",
    [
        ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port={port}"],
        [
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes=2",
            "--num_machines=1",
            "--mixed_precision=no",
            "--dynamo_backend=no",
            "--main_process_port={port}",
        ],
    ],
    ids=["torchrun", "accelerate"],
)
def test_two_processes_train_and_evaluate_as_one(tmp_path: Path, launcher: list[str]) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    for name, (config, task) in (("plain", shared_toy()), ("adversarial", adversarial_toy())):
        train(config, tmp_path / "one" / name, task=task, quiet=True)
    command = [word.format(port=20000 + os.getpid() % 20000 + len(launcher)) for word in launcher]
    done = subprocess.run(
        [sys.executable, *command, str(script), str(Path(__file__).parent), str(tmp_path / "two")],
        check=False,
        capture_output=True,
        text=True,
        env=one_thread(),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("plain", "adversarial"):
        assert_equal_logs(tmp_path / "one" / name, tmp_path / "two" / name)


def assert_equal_logs(first: Path, second: Path) -> None:
    one, two = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (first, second)
    )
    assert (one[-1]["processes"], two[-1]["processes"]) == (1, 2)
    assert [line["kind"] for line in one] == [line["kind"] for line in two]
    for mine, theirs in zip(one, two, strict=True):
        for key in {"top1", "mean_class_accuracy", "videos", "loss", "adversarial"} & mine.keys():
            assert theirs[key] == pytest.approx(mine[key], abs=2e-5), (mine["step"], key)


def test_an_existing_folder_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"already holds a run; go on with it by --resume, or choose another --out"
    ):
        train(toy_config(), tmp_path / "run", task=toy_task(toy_config()), quiet=True)


class Listening:
    """A display that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def step(self, step: int, total: int, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_resume_without_a_state_starts_fresh_and_says_so(tmp_path: Path) -> None:
    config, display = toy_config(epochs=1), Listening()
    train(config, tmp_path / "run", task=toy_task(config), resume=True, progress=display)
    assert any("nothing to resume, starting fresh" in line for line in display.said)
    display.said.clear()
    result = train(config, tmp_path / "run", task=toy_task(config), resume=True, progress=display)
    assert result.steps == 4  # a finished run has nothing to do
    assert any("at step 4 of 4" in line for line in display.said)


def test_settings_changed_on_resume_are_named(tmp_path: Path) -> None:
    config, display = toy_config(epochs=1), Listening()
    train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    longer = toy_config(epochs=2)
    result = train(longer, tmp_path / "run", task=toy_task(longer), resume=True, progress=display)
    assert result.steps == 8
    assert any(
        "settings changed since the run began" in line and "train.epochs: 1.0 -> 2.0" in line
        for line in display.said
    )


def test_resuming_another_model_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until(toy_config(save_every=1), tmp_path / "run", 2, monkeypatch)
    other = toy_config(model=toy_model(depth=1))
    with pytest.raises(UserError, match=r"resume\.safetensors: cannot resume: .*same recipe"):
        train(other, tmp_path / "run", task=toy_task(other), resume=True, quiet=True)


def test_the_thread_count_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        run_until(toy_config(threads=2, save_every=1), tmp_path / "run", 2, monkeypatch)
        torch.set_num_threads(1)
        config = toy_config(threads=None, save_every=1)
        train(config, tmp_path / "run", task=toy_task(config), resume=True, quiet=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_unreadable_videos_are_named_and_never_replaced(tmp_path: Path) -> None:
    config, display = toy_config(epochs=2), Listening()
    result = train(
        config, tmp_path / "run", task=toy_task(config, unreadable=(3, 4)), progress=display
    )
    assert sorted(result.unreadable.values()) == ["clip3.mp4: broken", "clip4.mp4: broken"]
    assert sum("clip3.mp4: broken" in line for line in display.said) == 1


def test_a_data_set_nothing_of_which_can_be_read_is_an_error(tmp_path: Path) -> None:
    config = toy_config()
    with pytest.raises(UserError, match="no video of a whole part of a batch can be read"):
        train(
            config, tmp_path / "run", task=toy_task(config, unreadable=tuple(range(30))), quiet=True
        )


def test_a_loss_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    config = toy_config(optim=OptimConfig(name="sgd", lr=1e20))
    with pytest.raises(
        UserError, match=r"run, step \d+: the loss is not finite \(class=nan\); lower optim.lr"
    ):
        train(config, tmp_path / "run", task=toy_task(config), quiet=True)


def test_patience_stops_early(tmp_path: Path) -> None:
    config = toy_config(epochs=30, patience=2, optim=OptimConfig(lr=1e-12))
    result = train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    assert result.stopped_early
    assert result.steps < 113


def test_evaluation_every_so_many_steps(tmp_path: Path) -> None:
    config = toy_config(max_steps=7, eval_every=3)
    train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [3, 6, 7]


def test_a_batch_that_does_not_divide_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError,
        match="train.batch_size=9 does not divide into train.accumulate=2 equal parts",
    ):
        toy_config(batch_size=9, accumulate=2)


def test_bf16_trains(tmp_path: Path) -> None:
    config = toy_config(epochs=6, precision="bf16")
    result = train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    assert result.best is not None
    assert result.best > 0.6
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "run").values())


def test_an_objective_may_take_several_passes_and_input_gradients(tmp_path: Path) -> None:
    config, task = adversarial_toy()
    result = train(config, tmp_path / "run", task=task, quiet=True)
    assert result.steps == 8


def test_a_loss_term_without_a_weight_is_an_error(tmp_path: Path) -> None:
    config = toy_config(epochs=1)
    task = toy_task(config)
    task.objective = AdversarialToy({"class": 1.0})
    with pytest.raises(UserError, match="unknown loss term .* 'adversarial'"):
        train(config, tmp_path / "run", task=task, quiet=True)


def test_frozen_parameters_do_not_move_and_averages_are_what_is_saved(tmp_path: Path) -> None:
    model = ModelConfig(
        name="timesformer", arguments=toy_model().arguments, freeze=("blocks.0", "patch_embed")
    )
    config = toy_config(model=model, epochs=2)
    run = Run(config, tmp_path / "run", resume=False, task=toy_task(config), progress=Quiet())
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.go()
    run.close()
    moved = {
        name.split(".")[0] + "." + name.split(".")[1]
        for name, value in run.model.state_dict().items()
        if "." in name and not torch.equal(value, before[name])
    }
    assert "blocks.1" in moved
    assert not {"blocks.0", "patch_embed.proj"} & moved


def test_calibration_is_stored_in_both_checkpoints(tmp_path: Path) -> None:
    config = toy_config(epochs=4)
    train(config, tmp_path / "run", task=toy_task(config, describes_clips=True), quiet=True)
    for name in ("best", "last"):
        checkpoint = load_checkpoint(tmp_path / "run" / name)
        assert checkpoint.calibration is not None
        assert checkpoint.calibration["trust"]["reason"].startswith("not calibrated: ")
        assert not checkpoint.calibrated
        assert checkpoint.temperature == 1.0
