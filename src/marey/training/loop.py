"""The training loop: `train(config, out)`, the same code for every task, one process or many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device, set_seed
from torch import nn
from torch.utils.data import DataLoader

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.features.far_bank import far_clips
from marey.files import FolderLock
from marey.layers.batch_statistics import recalibrate_batch_statistics
from marey.metrics.trust import describe_trust
from marey.training.batches import loader_of, training_parts, without_augmentation
from marey.training.calibration import calibration_keys, embed, embed_far, fit_run
from marey.training.config import TrainConfig
from marey.training.distributed import make_accelerator
from marey.training.initialise import initial_model
from marey.training.linear_probe import fit_linear_probe, probe_keys
from marey.training.logs import Bar, Meter, Progress, Quiet, RunLog
from marey.training.optim import freeze, rate_warning
from marey.training.optimisation import Optimisation
from marey.training.plan import Plan
from marey.training.run_folder import RunFolder, prepare_folder
from marey.training.run_state import RunState, TrainResult
from marey.training.task import RECALIBRATION_BATCHES, Batch, Task
from marey.training.tasks import build_task
from marey.training.validate import evaluate, is_better, numbers_of
from marey.transforms.preprocess import Preprocess


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    task: Task | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train what `config` describes and leave the best and the last checkpoint in `out`.

    Args:
        config: a recipe's, as it is or changed by `config.override`.
        out: folder of the run; must be new or empty unless `resume`.
        resume: go on from the state in `out`; the final weights are bit for bit those of a run
            never interrupted (CPU, same number of processes). Where there is no state the run
            starts fresh and says so.
        quiet: no progress display and no messages.
        task: data, losses and metric; None builds the one `config.objective` describes.
        progress: another display than the default bar.

    Raises:
        UserError: if `out` is in use, the data does not fit, or a loss is not finite.
    """
    run = Run(config, Path(out), resume=resume, task=task, progress=Quiet() if quiet else progress)
    try:
        return run.go()
    finally:
        run.close()


class Run:
    """One training run: everything built once, then `go`."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        *,
        resume: bool,
        task: Task | None,
        progress: Progress | None,
    ) -> None:
        settings = config.train
        self.config, self.out = config, out
        self.log: RunLog | None = None
        self.accelerator = make_accelerator(config)
        self.is_main = self.accelerator.is_main_process
        self.progress: Progress = (
            progress if progress is not None else (Bar() if self.is_main else Quiet())
        )
        self.lock = FolderLock(out) if self.is_main else None
        resuming = prepare_folder(out, resume, self.accelerator, self.progress.say)

        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        set_seed(settings.seed)
        self.task = task if task is not None else build_task(config)
        self.folder = RunFolder(out, config, self.task)
        self.model = initial_model(config, self.task, fresh=not resuming, say=self.progress.say)
        if self.task.prepare_model is not None and not resuming:
            self.task.prepare_model(self.model)
        freeze(self.model, config.model.freeze)

        self.plan = Plan(settings, len(self.task.train_data), self.accelerator.num_processes)
        self.model.to(self.accelerator.device)
        if settings.linear_probe and not resuming:
            self.fit_linear_probe()
        self.meter = Meter()
        self.optimisation = Optimisation(
            self.model, self.task.objective, config, self.plan, self.accelerator, self.meter
        )
        if resuming and self.optimisation.sharded:
            raise UserError(
                f"{out}: a sharded run writes no resume state; train anew into another --out"
            )
        if warning := rate_warning(config.optim):
            self.progress.say(warning)

        self.state = self.restore() if resuming else RunState()
        if self.is_main:
            self.log = RunLog(out, tensorboard=settings.tensorboard, first_step=self.state.step)
            if not resuming:
                if self.task.data_note:
                    self.progress.say(self.task.data_note)
                self.folder.write_config()
                self.look_for_leaks()

    def go(self) -> TrainResult:
        """Do the steps that are left; evaluate and save on the way; calibrate at the end."""
        parts: Iterator[Batch] = (
            self.parts() if self.state.step < self.plan.total_steps else iter(())
        )
        while self.state.step < self.plan.total_steps and not self.state.stopped:
            step = self.state.step
            losses = self.optimisation.one_step(step, parts, f"{self.out}, step {step}")
            self.state.step = step + 1
            self.report(losses)
            if self.plan.is_evaluation_due(step):
                self.evaluate_and_keep_best()
            if self.plan.is_save_due(step):
                self.save_state()
        return self.finish()

    def look_for_leaks(self) -> None:
        """Say how many validation items are training items too, of this run or of what it starts
        from."""
        if self.task.val_data is None:
            return
        seen = self.task.seen_in_training(self.folder.training_videos)
        if seen:
            self.progress.say(
                f"LEAKED: {len(seen)} of {len(self.task.val_data)} validation items are training "
                "items too, of this run or of the checkpoint it starts from: its accuracies are "
                "too high; 'marey data check' lists those of one data set"
            )

    def parts(self) -> Iterator[Batch]:
        """Return this process's parts of all steps that are left, without end."""
        return training_parts(
            self.task,
            self.plan,
            first_step=self.state.step,
            rank=self.accelerator.process_index,
            pin_memory=self.accelerator.device.type == "cuda",
            unreadable=self.name_unreadable,
        )

    def name_unreadable(self, sample: int | str, reason: str) -> None:
        """Say once that a video is left out."""
        if reason not in self.state.unreadable.values():
            self.state.unreadable[str(sample)] = reason
            self.progress.say(f"unreadable, left out: {reason}")

    def report(self, losses: dict[str, float]) -> None:
        """Log the losses and the learning rate of a step."""
        step, meter = self.state.step, self.meter
        rates = f"{meter.clips_per_second:.1f} clips/s  waiting {meter.waiting_share:.0%}"
        self.progress.step(step, self.plan.total_steps, f"loss {losses['loss']:.4f}  {rates}")
        is_due = step % self.config.train.log_every == 0 or step == self.plan.total_steps
        if self.log is not None and is_due:
            self.log.write(
                "train",
                step,
                {
                    **losses,
                    "epoch": step / self.plan.steps_per_epoch,
                    "clips_per_second": round(meter.clips_per_second, 2),
                    "waiting_share": round(meter.waiting_share, 3),
                },
            )

    # ---- evaluation, checkpoints
    # ------------------------------------------------------------------------------------

    def evaluate_and_keep_best(self) -> None:
        """Evaluate on the validation data, save the checkpoint if it is the best, and drive plateau
        and patience."""
        state, weights = self.state, self.optimisation.weights()
        with self.meter.outside():
            if self.task.recalibrates and not self.optimisation.sharded:
                self.recalibrate(weights)
            if self.task.val_data is None:
                state.best_step = state.step
                self.save_checkpoint("best", weights)
                return
            evaluator = evaluate(
                weights,
                self.task,
                self.accelerator,
                batch_size=self.plan.eval_batch_size,
                workers=self.config.train.workers,
                unreadable=lambda sample, reason: self.name_unreadable(
                    f"validation {sample}", reason
                ),
            )
            metrics = numbers_of(evaluator.compute())
            main = metrics[evaluator.main]
            if self.log is not None:
                self.log.write("eval", state.step, metrics)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.progress.say(f"step {state.step}/{self.plan.total_steps}: {shown}")

            self.optimisation.schedule.observe(main, evaluator.higher_is_better)
            if is_better(
                metrics,
                state.metrics,
                evaluator.main,
                evaluator.higher_is_better,
                select=self.config.train.select,
            ):
                state.best, state.best_step, state.metrics, state.evaluations_since_best = (
                    main,
                    state.step,
                    metrics,
                    0,
                )
                self.save_checkpoint("best", weights)
            else:
                state.evaluations_since_best += 1
            patience = self.config.train.patience
            state.stopped = patience is not None and state.evaluations_since_best >= patience

    def recalibrate(self, model: nn.Module) -> None:
        """Measure batch norm statistics anew on the same training items in every process."""

        def forward(batch: Batch) -> None:
            batch = send_to_device(batch, self.accelerator.device)
            with self.accelerator.autocast():
                self.task.objective(model, batch)

        data = self.task.train_data
        count = min(len(data), RECALIBRATION_BATCHES * self.plan.eval_batch_size)
        keys = [(0, position * len(data) // count) for position in range(count)]
        loader = self.loader(data, keys)
        batches = (batch for batch in loader if not set(batch) <= {"unreadable"})
        recalibrate_batch_statistics(model, forward, batches)

    def save_checkpoint(self, name: str, model: nn.Module) -> None:
        """Write a checkpoint folder of the run (main process)."""
        if self.is_main:
            self.folder.save(name, model, self.state)

    def save_state(self) -> None:
        """Write the resume state (main process); a sharded run has none."""
        if self.optimisation.sharded:
            return
        with self.meter.outside():
            if self.is_main:
                self.optimisation.save(self.out, vars(self.state))
            self.accelerator.wait_for_everyone()

    def restore(self) -> RunState:
        """Read the resume state back, and say what is no longer as it was."""
        saved = self.optimisation.restore(self.out)
        if changes := self.folder.changes():
            self.progress.say(
                "settings changed since the run began, so its result is no longer that of one run: "
                + "; ".join(changes)
            )
        if saved["processes"] != self.accelerator.num_processes:
            self.progress.say(
                f"a run of {saved['processes']} processes goes on with "
                f"{self.accelerator.num_processes}: the result will be as good, not identical"
            )
        self.progress.say(f"resuming {self.out} at step {saved['step']} of {saved['total_steps']}")
        return RunState(**{name: saved[name] for name in vars(RunState())})

    # ---- before the first step, after the last
    # ----------------------------------------------------------------------

    def fit_linear_probe(self) -> None:
        """Fit the class head on the embeddings of the augmented training clips; the same in every
        process."""
        loader = self.loader(self.task.train_data, probe_keys(self.plan.num_samples))
        reached = fit_linear_probe(
            self.model,
            loader,
            self.accelerator.device,
            smoothing=self.config.objective.classification.label_smoothing,
        )
        self.progress.say(
            f"class head fitted on the frozen embedding: {reached:.3f} of the training clips"
        )

    def calibrate(self) -> None:
        """Fit trust for both checkpoints, and write them again with the result."""
        if self.task.val_data is None or not (self.out / "best").is_dir():
            self.progress.say("no held-out videos: trust is not fitted")
            return
        train_data, device = without_augmentation(self.task.train_data), self.accelerator.device
        known = self.loader(train_data, calibration_keys(len(train_data)))
        held_out = self.loader(
            self.task.val_data, [(0, sample) for sample in range(len(self.task.val_data))]
        )
        index = getattr(self.task.val_data, "index", None)
        groups = None if index is None else [sample.group for sample in index.samples]
        for name in ("best", "last"):
            model = load_checkpoint(self.out / name).model.to(device)
            try:
                train, val = embed(model, known, device), embed(model, held_out, device)
            except UserError as error:
                self.progress.say(f"trust is not fitted: {error}")
                return
            if len(train["label"]) == 0 or len(val["label"]) == 0:
                return
            far = None
            if isinstance(self.task.preprocess, Preprocess):
                far = embed_far(model, far_clips(self.task.preprocess), device)
            calibration, tensors = fit_run(train, val, groups, far)
            self.folder.save(name, model, self.state, calibration, tensors)
            self.folder.write_card(name, calibration)
        self.progress.say(describe_trust(calibration))

    def loader(self, data: Any, keys: list[tuple[int, int]]) -> DataLoader[Any]:
        """Return a loader of some items, in batches as large as those of evaluation."""
        return loader_of(
            data,
            keys,
            self.task,
            batch_size=self.plan.eval_batch_size,
            workers=self.config.train.workers,
        )

    def finish(self) -> TrainResult:
        """Save the last weights, calibrate both checkpoints, and sum up."""
        self.save_checkpoint("last", self.optimisation.weights())
        self.accelerator.wait_for_everyone()
        if self.config.train.calibrate and self.task.describes_clips and self.is_main:
            self.calibrate()
        self.accelerator.wait_for_everyone()
        warning = self.meter.warning(self.config.train.workers)
        if warning and self.meter.clips:
            self.progress.say(warning)

        state = self.state
        result = TrainResult(
            out=self.out,
            steps=state.step,
            best=state.best,
            best_step=state.best_step,
            metrics=state.metrics,
            unreadable=state.unreadable,
            stopped_early=state.stopped,
            seconds=self.meter.seconds,
            is_main=self.is_main,
        )
        if self.log is not None:
            self.log.write(
                "end",
                state.step,
                {
                    "best": state.best,
                    "best_step": state.best_step,
                    "stopped_early": state.stopped,
                    "seconds": round(result.seconds, 2),
                    "waiting_share": round(self.meter.waiting_share, 3),
                    "processes": self.accelerator.num_processes,
                    "unreadable": list(state.unreadable.values()),
                },
            )
        return result

    def close(self) -> None:
        """Close log files and display."""
        if self.log is not None:
            self.log.close()
        self.progress.close()
        if self.lock is not None:
            self.lock.close()
