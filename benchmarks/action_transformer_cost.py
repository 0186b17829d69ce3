"""Parameters of the Action Transformer beside Table 1, and what one training step at paper size costs, computed.

    python benchmarks/action_transformer_cost.py --out results/action_transformer_cost.json

Nothing is run at paper size: shapes go through the network on PyTorch's meta device, multiply-adds are counted by
PyTorch's own counter, and memory is the sum of what the backward pass keeps (inputs of convolutions, batch norms,
pools and linear layers) in float32.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from marey.layers.i3d_blocks import ConvUnit, MaxPoolSame
from marey.models.action_transformer import ActionTransformer, count_parameters

PAPER = {"i3d": 16.2, "tx lowres": 13.9, "tx highres": 19.3}


def parameters() -> dict[str, Any]:
    """Count parameters of Table 1's three models, 60 classes and background."""
    models = {"i3d": {"head": "i3d"}, "tx lowres": {"query": "lowres"}, "tx highres": {"query": "highres"}}
    table = {}
    with torch.device("meta"):
        for name, arguments in models.items():
            ours = count_parameters(ActionTransformer(num_classes=60, background=True, **arguments))
            table[name] = {key: round(value, 3) for key, value in ours.items()} | {"paper_total": PAPER[name]}
    return table


def cost(module: nn.Module, features: torch.Tensor) -> tuple[float, float]:
    """Return multiply-adds of a forward pass in billions, and bytes kept for the backward pass in GiB."""
    kept = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
        nonlocal kept
        if isinstance(layer, (ConvUnit, MaxPoolSame, nn.BatchNorm3d, nn.Conv2d, nn.Linear)):
            kept += inputs[0].numel() * 4

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    with FlopCounterMode(display=False) as counter:
        module(features)
    for handle in handles:
        handle.remove()
    return counter.get_total_flops() / 2e9, kept / 2**30


def main() -> None:
    """Compute and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with torch.device("meta"):
        model = ActionTransformer(num_classes=60, head="tx+i3d", background=True).train()
        trunk = cost(model.trunk, torch.empty(1, 3, 64, 400, 400))
        tail = cost(model.i3d.tail, torch.empty(64, 832, 16, 7, 7))
        rpn = cost(model.rpn.head.conv, torch.empty(1, 832, 25, 25))
    step = {"trunk": trunk, "i3d_head_64_boxes": tail, "rpn": rpn}
    clip_macs, clip_gib = (sum(part[i] for part in step.values()) for i in range(2))
    weights_gib = sum(p.numel() for p in model.parameters()) * 4 * 3 / 2**30
    result = {
        "command": "python benchmarks/action_transformer_cost.py --out results/action_transformer_cost.json",
        "date": date.today().isoformat(), "parameters_millions": parameters(),
        "paper_size_step": {
            "kind": "computed from shapes, not measured: no GPU was at hand",
            "setting": "64 frames of 400 x 400, I3D trunk, Tx + I3D heads, 64 sampled boxes, float32, one clip",
            "forward_gmac": {name: round(value[0], 1) for name, value in step.items()},
            "kept_activations_gib": {name: round(value[1], 2) for name, value in step.items()},
            "one_clip": {"forward_and_backward_tflop": round(6 * clip_macs / 1000, 2),
                         "activations_gib": round(clip_gib, 1),
                         "weights_gradients_momentum_gib": round(weights_gib, 2)},
            "step_of_30_clips": {"tflop": round(30 * 6 * clip_macs / 1000, 1),
                                 "hours_for_500k_steps_at_100_tflops": round(30 * 6 * clip_macs / 1e5 * 5e5 / 3.6e3)}},
        "reading": "Parameters agree with Table 1 to 0.1 M with 512 channels in the proposal network, an FFN of 512, "
                   "384 channels after the query's 1 x 1 convolution and 64 location channels. The trunk is nearly all "
                   "of the step's memory; the figures are computed and leave out RoI pooling, attention and "
                   "workspace."}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
