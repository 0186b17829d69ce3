"""Processes, devices and sharded weights of a training run."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from marey.training.config import TrainConfig


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Build the Accelerator: device, number of processes and precision."""
    settings = config.train
    # Accelerate keeps device and precision of the first Accelerator for the whole process; runs may
    # differ.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=settings.unused_parameters)]
    return Accelerator(
        cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        kwargs_handlers=handlers,
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
    )


def shard(model: nn.Module) -> None:
    """Divide every block of a model, and what is left of it, over the processes (PyTorch's
    FSDP2)."""
    for block in getattr(model, "blocks", ()):
        fully_shard(block)
    fully_shard(model)


def gather(model: nn.Module, whole: nn.Module) -> nn.Module:
    """Fill `whole`, a copy of a sharded model from before it was divided, with its weights and
    buffers."""
    whole.load_state_dict(
        get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    )
    return whole


def sync_only(accelerator: Accelerator, module: nn.Module, last: bool) -> Any:
    """Return the context in which gradients travel between processes only in the last part of a
    step."""
    return nullcontext() if last else accelerator.no_sync(module)


def mean_over_processes(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """Return the mean of each value over all processes, whose parts of a step are equally large."""
    if accelerator.num_processes == 1:
        return values
    together = torch.tensor(list(values.values()), device=accelerator.device)
    mean = accelerator.reduce(together, reduction="mean")
    return dict(zip(values, mean.tolist(), strict=True))


def zero_gradient(*outputs: Tensor | None) -> Tensor:
    """Return 0 with a gradient of 0 for every output, where it is not None.

    Added to a loss, it gives a head that no term reads a gradient in every process: DDP waits for
    those of all parameters.
    """
    return 0.0 * torch.stack([output.sum() for output in outputs if output is not None]).sum()
