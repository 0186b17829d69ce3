"""The training loop: `train(config, out)`, the same code for every task, one process or many."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device, set_seed
from torch import nn
from torch.utils.data import DataLoader

from marey.errors import UserError
from marey.files import write_json
from marey.training import checkpoint
from marey.training.average import WeightAverage
from marey.training.config import TrainConfig, changed_settings, migrate
from marey.training.distributed import gather, make_accelerator, shard, sync_only
from marey.training.initialise import initial_model
from marey.training.linear_probe import warm_start
from marey.training.logs import Bar, Meter, Progress, Quiet, RunLog
from marey.training.optim import build_optimizer, freeze, rate_warning
from marey.training.sampler import PartSampler, SampleStream, finishes_epoch, steps_of_epochs
from marey.training.schedule import Schedule
from marey.training.task import Batch, Evaluator, Objective, Task
from marey.training.tasks import build_task


@dataclass(kw_only=True)
class TrainResult:
    """What a finished run hands back."""

    out: Path
    """The run's folder: best/, last/, config.json, log.jsonl."""
    steps: int
    best: float | None
    """Best main metric on the validation data; None without validation data."""
    best_step: int
    metrics: dict[str, float]
    """All metrics of the best evaluation."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Videos of the training data that could not be read, with the reason."""
    stopped_early: bool = False
    seconds: float = 0.0
    is_main: bool = True
    """False in all but one of several processes."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        return {**{key: value for key, value in vars(self).items() if key != "is_main"}, "out": str(self.out)}


@dataclass
class RunState:
    """What changes while a run goes on, besides tensors; JSON types, saved for resume."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)


class StepModule(nn.Module):
    """Model and objective as one module: DDP wraps this, so the objective may use the plain model as it likes."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Any:
        """Return the objective's (outputs, terms)."""
        return self.objective(self.model, batch)


def train(config: TrainConfig, out: str | Path, *, resume: bool = False, quiet: bool = False,
          task: Task | None = None, progress: Progress | None = None) -> TrainResult:
    """Train what `config` describes and leave the best and the last checkpoint in `out`.

    Args:
        out: folder of the run; must be new or empty unless `resume`.
        resume: go on from the state in `out`; the final weights are bit for bit those of a run never interrupted (CPU,
            same number of processes). Where there is no state the run starts fresh and says so.
        quiet: no progress display and no messages.
        task: data, losses and metric; None builds what `config.objective.kind` names.
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

    def __init__(self, config: TrainConfig, out: Path, *, resume: bool, task: Task | None,
                 progress: Progress | None) -> None:
        settings = config.train
        self.config, self.out = config, out
        self.accelerator = make_accelerator(config)
        main = self.accelerator.is_main_process
        self.progress: Progress = progress if progress is not None else (Bar() if main else Quiet())
        resuming = prepare_folder(out, resume, self.accelerator, self.progress)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        set_seed(settings.seed)
        self.task = task if task is not None else build_task(config)
        self.model = initial_model(config, self.task, fresh=not resuming, say=self.progress.say)
        if self.task.prepare_model is not None and not resuming:
            self.task.prepare_model(self.model)
        freeze(self.model, config.model.freeze)
        self.plan_steps()
        self.model.to(self.accelerator.device)
        if settings.head_warm_start and not resuming:
            warm_start(self)
        self.sharded = settings.shard and self.accelerator.num_processes > 1
        if self.sharded:
            if resuming:
                raise UserError(f"{out}: a sharded run writes no resume state; train anew into another --out")
            self.whole = copy.deepcopy(self.model)
            shard(self.model)
        module = StepModule(self.model, self.task.objective).to(self.accelerator.device)
        optimizer = build_optimizer(self.model, config.optim, self.task.objective)
        if warning := rate_warning(config.optim):
            self.progress.say(warning)
        self.schedule = Schedule(optimizer, config.optim, self.total_steps, self.steps_per_epoch)
        self.average = (None if settings.average == "none" else
                        WeightAverage(self.model, settings, self.total_steps))
        if self.sharded:
            self.module, self.optimizer = module, self.accelerator.prepare(optimizer)
        else:
            self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.state = self.restore() if resuming else RunState()
        self.meter = Meter()
        self.log = RunLog(out, tensorboard=settings.tensorboard, first_step=self.state.step) if main else None
        if main and not resuming:
            write_json(out / "config.json", config.to_dict())

    def plan_steps(self) -> None:
        """Work out how many steps the run has and how each is cut into parts."""
        settings, world = self.config.train, self.accelerator.num_processes
        self.num_samples = len(self.task.train_data)
        parts = settings.accumulate * world
        if settings.batch_size % parts:
            raise UserError(f"train.batch_size={settings.batch_size} does not divide into {parts} equal parts "
                            f"(train.accumulate={settings.accumulate} x {world} processes); choose a multiple of it")
        self.part_size = settings.batch_size // parts
        self.steps_per_epoch = self.num_samples / settings.batch_size
        self.total_steps = settings.max_steps or steps_of_epochs(settings.epochs, self.num_samples, settings.batch_size)

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> TrainResult:
        """Do the steps that are left; evaluate and save on the way; calibrate at the end."""
        parts = self.parts(self.state.step) if self.state.step < self.total_steps else iter(())
        while self.state.step < self.total_steps and not self.state.stopped:
            step = self.state.step
            seed_step(self.config.train.seed, step, self.accelerator.process_index)
            rate = self.schedule.rate
            self.task.objective.step, self.task.objective.total_steps = step, self.total_steps
            terms = self.one_step(parts)
            self.schedule.step()
            if self.average is not None:
                self.average.update(self.model, step, self.finishes_epoch(step))
            self.state.step = step + 1
            self.report(rate, terms)
            if self.is_evaluation_due(step):
                self.evaluate_and_keep_best()
            if self.is_save_due(step):
                self.save_state()
        return self.finish()

    def one_step(self, parts: Iterator[Batch]) -> dict[str, float]:
        """Forward and backward of every part of a step, then one update; returns the mean of the loss terms."""
        accelerator, accumulate = self.accelerator, self.config.train.accumulate
        sums: dict[str, float] = {}
        self.module.train()
        for part in range(accumulate):
            with self.meter.waiting():
                batch = send_to_device(next(parts), accelerator.device)
            last = part == accumulate - 1
            with sync_only(accelerator, self.module, last):
                with self.accelerator.autocast() if self.sharded else nullcontext():
                    _, terms = self.module(batch)
                loss = self.task.objective.total(terms)
                self.require_finite(terms, loss)
                accelerator.backward(loss / accumulate)
            for name, value in {**terms, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / accumulate
        if self.config.optim.clip_norm is not None:
            accelerator.clip_grad_norm_(self.module.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.meter.clips += self.config.train.batch_size
        return self.mean_over_processes(sums)

    def mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean of each value over all processes, whose parts of a step are equally large."""
        if self.accelerator.num_processes == 1:
            return values
        together = torch.tensor(list(values.values()), device=self.accelerator.device)
        mean = self.accelerator.reduce(together, reduction="mean")
        return dict(zip(values, mean.tolist(), strict=True))

    def require_finite(self, terms: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
        """Stop before a loss that is not finite reaches the weights."""
        if not torch.isfinite(loss.detach()):
            values = ", ".join(f"{name}={float(term.detach()):g}" for name, term in terms.items())
            raise UserError(f"{self.out}: the loss is not finite at step {self.state.step} ({values}); lower optim.lr, "
                            "set optim.clip_norm=1, or check the data with 'marey data check'")

    def parts(self, first_step: int) -> Iterator[Batch]:
        """Return this process's parts of all steps from `first_step` on, without end."""
        settings, data = self.config.train, self.task.train_data
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if hasattr(data, "batches"):
            return data.batches(first_step * settings.accumulate, self.part_size, rank, world)
        stream = SampleStream(self.num_samples, settings.seed, self.task.labels if settings.balanced_sampler else None)
        sampler = PartSampler(stream, batch_size=settings.batch_size, accumulate=settings.accumulate, rank=rank,
                              world=world, first_step=first_step)
        loader = DataLoader(data, batch_sampler=sampler, collate_fn=self.task.collate, num_workers=settings.workers,
                            pin_memory=self.accelerator.device.type == "cuda")
        return self.readable(iter(loader))

    def readable(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, naming each unreadable video once; a part with nothing readable is an error."""
        for batch in batches:
            for sample, reason in batch.pop("unreadable", ()) if isinstance(batch, dict) else ():
                if reason not in self.state.unreadable.values():
                    self.state.unreadable[str(sample)] = reason
                    self.progress.say(f"unreadable, left out: {reason}")
            if isinstance(batch, dict) and not batch:
                raise UserError(f"no video of a whole part of a batch can be read (the last: {reason}); "
                                "list them all with 'marey data check'")
            yield batch

    # ---- evaluation, checkpoints ------------------------------------------------------------------------------------

    def finishes_epoch(self, step: int) -> bool:
        """Return whether a step uses the last sample of an epoch."""
        return finishes_epoch(step, self.num_samples, self.config.train.batch_size)

    def is_evaluation_due(self, step: int) -> bool:
        """Return whether to evaluate after a step."""
        every = self.config.train.eval_every
        due = self.finishes_epoch(step) if every is None else (step + 1) % every == 0
        return due or step + 1 == self.total_steps

    def is_save_due(self, step: int) -> bool:
        """Return whether to write the resume state after a step."""
        every = self.config.train.save_every
        return self.is_evaluation_due(step) or (every is not None and (step + 1) % every == 0)

    def evaluate_and_keep_best(self) -> None:
        """Evaluate on the validation data, save the checkpoint if it is the best, and drive plateau and patience."""
        state, weights = self.state, self.weights()
        with self.meter.outside():
            if self.task.val_data is None:
                state.best_step = state.step
                self.save_checkpoint("best", weights)
                return
            evaluator = evaluate(weights, self.task, self.accelerator, batch_size=self.config.train.eval_batch_size
                                 or self.part_size, workers=self.config.train.workers)
            metrics = numbers_of(evaluator.compute())
            main = metrics[evaluator.main]
            if self.log is not None:
                self.log.write("eval", state.step, metrics)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.progress.say(f"step {state.step}/{self.total_steps}: {shown}")
            self.schedule.observe(main, evaluator.higher_is_better)
            if is_better(metrics, state.metrics, evaluator.main, evaluator.higher_is_better,
                         select=self.config.train.select):
                state.best, state.best_step, state.metrics, state.evaluations_since_best = main, state.step, metrics, 0
                self.save_checkpoint("best", weights)
            else:
                state.evaluations_since_best += 1
            patience = self.config.train.patience
            state.stopped = patience is not None and state.evaluations_since_best >= patience

    def weights(self) -> nn.Module:
        """Return the module that is evaluated and saved: the average, if any; buffers are the main process's."""
        if self.sharded:
            module = gather(self.model, self.whole)
        else:
            module = self.model if self.average is None else self.average.weights_of(self.model)
        if self.accelerator.num_processes > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)
        return module

    def save_checkpoint(self, name: str, model: nn.Module, calibration: dict[str, Any] | None = None,
                        tensors: dict[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint folder of the run (main process)."""
        from marey.checkpoints.folder import save_checkpoint

        if self.accelerator.is_main_process:
            task = self.task
            extra = {"task": self.config.objective.kind, **task.extra, "config": self.config.to_dict(),
                     "step": self.state.step, "metrics": self.state.metrics}
            save_checkpoint(self.out / name, model, class_names=list(task.class_names), preprocess=task.preprocess,
                            calibration=calibration, extra=extra, tensors={**task.tensors, **(tensors or {})})

    def save_state(self) -> None:
        """Write the resume state (main process); a sharded run has none."""
        if self.sharded:
            return
        with self.meter.outside():
            if self.accelerator.is_main_process:
                state = {**vars(self.state), "schedule": self.schedule.state(), "threads": torch.get_num_threads(),
                         "processes": self.accelerator.num_processes, "total_steps": self.total_steps}
                checkpoint.save_resume(self.out, self.resumable(), self.optimizer, state)
            self.accelerator.wait_for_everyone()

    def resumable(self) -> dict[str, nn.Module]:
        """Return the modules whose tensors belong to the resume state."""
        modules = {"step": self.accelerator.unwrap_model(self.module)}
        return modules if self.average is None else {**modules, "average": self.average.module}

    def restore(self) -> RunState:
        """Read the resume state back: weights, optimiser, average, schedule, thread count."""
        saved = checkpoint.load_resume(self.out, self.resumable(), self.optimizer)
        before = json.loads((self.out / "config.json").read_text(encoding="utf-8"))
        if changes := changed_settings(migrate(before), self.config.to_dict()):
            self.progress.say("settings changed since the run began, so its result is no longer that of one run: "
                              + "; ".join(changes))
        torch.set_num_threads(saved["threads"])
        self.schedule.resume(saved["step"], saved.get("schedule", saved.get("plateau")))
        if saved["processes"] != self.accelerator.num_processes:
            self.progress.say(f"a run of {saved['processes']} processes goes on with {self.accelerator.num_processes}: "
                              "the result will be as good, not identical")
        self.progress.say(f"resuming {self.out} at step {saved['step']} of {saved['total_steps']}")
        return RunState(**{name: saved[name] for name in vars(RunState())})

    def report(self, rate: float, terms: dict[str, float]) -> None:
        """Log the losses of a step."""
        step, meter = self.state.step, self.meter
        text = (f"loss {terms['loss']:.4f}  {meter.clips_per_second:.1f} clips/s  "
                f"waiting {meter.waiting_share:.0%}")
        self.progress.step(step, self.total_steps, text)
        if self.log is not None and (step % self.config.train.log_every == 0 or step == self.total_steps):
            self.log.write("train", step, {**terms, "lr": rate, "epoch": step / self.steps_per_epoch,
                                           "clips_per_second": round(meter.clips_per_second, 2),
                                           "waiting_share": round(meter.waiting_share, 3)})

    def finish(self) -> TrainResult:
        """Save the last weights, calibrate both checkpoints, and sum up."""
        self.save_checkpoint("last", self.weights())
        self.accelerator.wait_for_everyone()
        if self.config.train.calibrate and self.task.describes_clips and self.accelerator.is_main_process:
            from marey.training.calibration import calibrate_run

            calibrate_run(self)
        self.accelerator.wait_for_everyone()
        warning = self.meter.warning(self.config.train.workers)
        if warning and self.meter.clips:
            self.progress.say(warning)
        state = self.state
        result = TrainResult(out=self.out, steps=state.step, best=state.best, best_step=state.best_step,
                             metrics=state.metrics, unreadable=state.unreadable, stopped_early=state.stopped,
                             seconds=self.meter.seconds, is_main=self.accelerator.is_main_process)
        if self.log is not None:
            self.log.write("end", state.step, {"best": state.best, "best_step": state.best_step,
                                               "stopped_early": state.stopped, "seconds": round(result.seconds, 2),
                                               "waiting_share": round(self.meter.waiting_share, 3),
                                               "processes": self.accelerator.num_processes,
                                               "unreadable": list(state.unreadable.values())})
        return result

    def close(self) -> None:
        """Close log files and display."""
        log = getattr(self, "log", None)
        if log is not None:
            log.close()
        self.progress.close()


# ---- parts of the loop that need no run -----------------------------------------------------------------------------

@torch.no_grad()
def evaluate(model: nn.Module, task: Task, accelerator: Accelerator, *, batch_size: int, workers: int = 0) -> Evaluator:
    """Run the task's evaluator over its validation data, shared among the processes; every process gets all rows."""
    data = task.val_data
    if data is None:
        raise UserError("this task has no validation data to evaluate on")
    evaluator = task.make_evaluator()
    mine = [(0, place) for place in range(accelerator.process_index, len(data), accelerator.num_processes)]
    batches = [mine[start:start + batch_size] for start in range(0, len(mine), batch_size)]
    loader = DataLoader(data, batch_sampler=batches, collate_fn=task.collate, num_workers=workers)   # type: ignore[arg-type]
    model.eval()
    for batch in loader:
        if isinstance(batch, dict) and set(batch) <= {"unreadable"}:
            continue
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            outputs, _ = task.objective(model, batch)
        evaluator.update(outputs, batch)
    evaluator.merge(gather_object([evaluator.state()]))
    return evaluator


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step of one process, so that no step depends on what ran before it."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


def prepare_folder(out: Path, resume: bool, accelerator: Accelerator, progress: Progress) -> bool:
    """Make the run's folder; returns whether there is a state to resume from.

    Raises:
        UserError: if the folder holds something and `resume` is not asked for.
    """
    filled = out.exists() and any(out.iterdir())
    has_state = (out / checkpoint.RESUME_FILE).exists()
    accelerator.wait_for_everyone()
    if filled and not resume:
        raise UserError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
    if resume and not has_state:
        progress.say(f"{out}: nothing to resume, starting fresh")
    out.mkdir(parents=True, exist_ok=True)
    return resume and has_state


def is_better(metrics: dict[str, float], best: dict[str, float], main: str, higher_is_better: bool, *,
              select: str = "metric") -> bool:
    """Return whether an evaluation beats the best so far; NaN never does.

    Args:
        select: "metric" (at a tie, "loss"), "loss" where the evaluator gives one, or "last": always.
    """
    if select == "loss" and "loss" in metrics:
        main, higher_is_better = "loss", False
    value = metrics[main]
    if math.isnan(value) or not best or select == "last":
        return not math.isnan(value)
    if value == best[main]:
        return metrics.get("loss", 0.0) < best.get("loss", 0.0)
    return value > best[main] if higher_is_better else value < best[main]


def numbers_of(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the plain numbers among an evaluator's metrics."""
    return {name: float(value) for name, value in metrics.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)}


