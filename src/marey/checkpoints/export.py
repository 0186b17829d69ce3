"""Export a model to other runtimes; its outputs there are compared with ours before the file is
written."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.huggingface import save_hf
from marey.datasets.clips import ClipDataset
from marey.datasets.open import open_dataset
from marey.errors import UserError, import_extra, unknown_name
from marey.files import atomic
from marey.layers.transformer_block import fold_temporal_projection

TOLERANCE = 1e-3
"""Largest difference of an output from the eager model's, in units of the largest value of that
output (at least 1)."""

INT8_TOLERANCE = 0.3
"""The same for 8-bit weights and activations, whose rounding changes every output; a larger
difference is an error."""

OUTPUTS = ("logits", "order_logits", "label_embedding", "embedding")
"""The tensors an exported model returns, in this order, where the model has them."""


class TensorsOnly(nn.Module):
    """A model that returns a tuple of tensors, in the order of `names`, instead of a dict."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return the named outputs for a clip (B, T, 3, S, S)."""
        outputs = self.model(clip)
        return tuple(outputs[name] for name in self.names)


def example_clip(checkpoint: Checkpoint, batch: int = 2) -> Tensor:
    """Return a random clip (batch, T, 3, S, S) of the size the checkpoint's model takes, or, for a
    pose model, a random window of keypoints (batch, T, P * 17, 3).

    Raises:
        UserError: if the checkpoint does not contain that size.
    """
    if checkpoint.pose_sampling is not None:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(batch, *checkpoint.pose_sampling.shape, generator=generator)
    arguments, preprocess = checkpoint.arguments, checkpoint.preprocess
    T = arguments.get("num_frames") or (preprocess.sampling.num_frames if preprocess else None)
    S = arguments.get("image_size") or (preprocess.image_size if preprocess else None)
    if T is None or S is None:
        raise UserError(
            f"{checkpoint.source}: neither its arguments nor its preprocessing contain the clip's "
            "size; only models that take clips can be exported"
        )
    return torch.randn(batch, T, 3, S, S, generator=torch.Generator().manual_seed(0))


def prepared(checkpoint: Checkpoint) -> tuple[TensorsOnly, Tensor]:
    """Return the model ready to be traced, with an example clip; TimeSformer's temporal projection
    is folded."""
    clip = example_clip(checkpoint)
    model = checkpoint.model.eval()
    fold_temporal_projection(model)
    with torch.no_grad():
        names = tuple(name for name in OUTPUTS if name in model(clip))
    return TensorsOnly(model, names).eval(), clip


def description(checkpoint: Checkpoint, names: tuple[str, ...]) -> str:
    """Return the JSON text stored in the file: class names, preprocessing, names of the outputs."""
    return json.dumps(
        {
            "model": checkpoint.name,
            "class_names": checkpoint.class_names,
            "outputs": list(names),
            "preprocess": checkpoint.preprocess.to_dict() if checkpoint.preprocess else None,
            "pose_sampling": checkpoint.pose_sampling and checkpoint.pose_sampling.to_dict(),
            "calibration": checkpoint.calibration,
        }
    )


def compare(
    model: TensorsOnly,
    run: Callable[[Tensor], Any],
    clips: list[Tensor],
    what: str,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the largest relative difference between the exported and the eager outputs.

    Raises:
        UserError: if it is above `tolerance`, or an output's shape differs.
    """
    worst = 0.0
    for clip in clips:
        with torch.no_grad():
            expected = model(clip)
        for name, ours, theirs in zip(model.names, expected, run(clip), strict=True):
            theirs = torch.as_tensor(theirs).detach()
            if ours.shape != theirs.shape:
                raise UserError(
                    f"{what}: '{name}' has shape {tuple(theirs.shape)}, the model "
                    f"{tuple(ours.shape)}; nothing was written"
                )
            worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1.0)))
    if not worst <= tolerance:
        raise UserError(
            f"{what}: outputs differ from the model's by {worst:.2g} of their size, above "
            f"{tolerance}; nothing was written"
        )
    return worst


def export_onnx(checkpoint: Checkpoint, path: str | Path, *, int8: bool = False) -> float:
    """Write an ONNX file with a free batch axis, checked by ONNX Runtime; returns the largest
    relative difference.

    Class names and preprocessing are in its metadata under "marey", as JSON.

    Args:
        int8: 8-bit weights, one scale per output channel (one per matrix where ONNX Runtime refuses
            that), and activations rounded to 8 bits while running (its dynamic quantisation): a
            quarter of the size, faster where the processor multiplies 8-bit numbers.

    Raises:
        UserError: if the extra `export` is missing, or the outputs differ from the model's.
    """
    onnx = import_extra("onnx", "export", "ONNX export")
    onnxruntime = import_extra("onnxruntime", "export", "checking an ONNX export")
    import_extra("onnxscript", "export", "ONNX export")
    model, clip = prepared(checkpoint)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it logs every folding it skips

    def write(temporary: Path) -> float:
        with torch.no_grad():
            program = torch.onnx.export(
                model,
                (clip,),
                dynamo=True,
                input_names=["clip"],
                verbose=False,
                output_names=list(model.names),
                dynamic_shapes={"clip": {0: "batch"}},
            )
        assert program is not None
        proto = program.model_proto
        entry = proto.metadata_props.add()
        entry.key, entry.value = "marey", description(checkpoint, model.names)
        onnx.save(proto, str(temporary))
        if int8:
            try:
                to_int8(temporary)
                silent = onnxruntime.SessionOptions()
                silent.log_severity_level = 4
                session = onnxruntime.InferenceSession(
                    str(temporary), silent, providers=["CPUExecutionProvider"]
                )
                session.run(None, {"clip": clip.numpy()})
            except Exception:  # constant operands of more than two axes have no scale per channel
                onnx.save(proto, str(temporary))
                to_int8(temporary, per_channel=False)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        return compare(
            model,
            lambda frames: session.run(None, {"clip": frames.numpy()}),
            [clip, clip[:1]],
            "ONNX int8" if int8 else "ONNX",
            INT8_TOLERANCE if int8 else TOLERANCE,
        )

    return checked_file(path, write)


def to_int8(path: Path, *, per_channel: bool = True) -> None:
    """Replace the matrix products with constant weights in an ONNX file by 8-bit ones; the metadata
    stays."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = onnx.load(str(path))
    del proto.graph.value_info[:]  # the quantiser fails on stored shapes; it infers them
    onnx.save(proto, str(path))
    logging.getLogger().addFilter(_without_preprocessing_advice)
    try:
        quantize_dynamic(
            path,
            path,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    finally:
        logging.getLogger().removeFilter(_without_preprocessing_advice)


def _without_preprocessing_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def accuracy_cost(
    checkpoint: Checkpoint,
    path: str | Path,
    data: str | Path,
    *,
    limit: int | None = None,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Compare an ONNX file with the model it was made from on labelled videos, one view each.

    Args:
        data: as `--data` of `marey evaluate`; its "test" split where there is one, else "val", else
            all.
        limit: use that many videos, spread evenly.

    Returns:
        "videos", "top1_model", "top1_file" (fractions; None where the classes are not the model's),
        "same_answer" (fraction of videos on which both name the same class), "unreadable".

    Raises:
        UserError: if no video can be read.
    """
    onnxruntime = import_extra("onnxruntime", "export", "running an ONNX file")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    index = open_dataset(data, dataset=dataset)
    splits = {sample.split for sample in index.samples}
    chosen = next((index.split(name) for name in ("test", "val") if name in splits), index)
    if limit is not None and limit < len(chosen):
        step = len(chosen) / limit
        chosen = replace(
            chosen, samples=tuple(chosen.samples[int(position * step)] for position in range(limit))
        )
    assert checkpoint.preprocess is not None
    names, unreadable = list(checkpoint.class_names or ()), 0
    rows: list[tuple[int, int, str | None]] = []
    clips = ClipDataset(chosen, checkpoint.preprocess)
    for number, sample in enumerate(chosen.samples):
        item = clips[number]
        if item.get("error"):
            unreadable += 1
            continue
        clip = item["clip"][None]
        with torch.no_grad():
            ours = int(checkpoint.model(clip)["logits"].argmax())
        rows.append(
            (ours, int(session.run(["logits"], {"clip": clip.numpy()})[0].argmax()), sample.label)
        )
    if not rows:
        raise UserError(
            f"{data}: no video could be read, so the accuracy of the 8-bit file is unknown"
        )
    known = set(chosen.class_names or ()) <= set(names)

    def top1(predicted: list[int]) -> float | None:
        right = sum(
            names[index] == label for index, (_, _, label) in zip(predicted, rows, strict=True)
        )
        return right / len(rows) if known else None

    return {
        "videos": len(rows),
        "top1_model": top1([ours for ours, _, _ in rows]),
        "top1_file": top1([theirs for _, theirs, _ in rows]),
        "unreadable": unreadable,
        "same_answer": sum(ours == theirs for ours, theirs, _ in rows) / len(rows),
    }


def export_torch(checkpoint: Checkpoint, path: str | Path) -> float:
    """Write a `torch.export` program (`.pt2`) with a free batch axis, checked by loading it;
    returns the difference.

    Class names and preprocessing are in its extra file "marey.json".

    Raises:
        UserError: if the outputs differ from the model's.
    """
    model, clip = prepared(checkpoint)

    def write(temporary: Path) -> float:
        with torch.no_grad():
            program = torch.export.export(
                model, (clip,), dynamic_shapes={"clip": {0: torch.export.Dim.AUTO}}
            )
        # through memory: torch ends the process where the disk is full
        written = io.BytesIO()
        torch.export.save(
            program, written, extra_files={"marey.json": description(checkpoint, model.names)}
        )
        temporary.write_bytes(written.getbuffer())
        loaded = torch.export.load(str(temporary)).module()
        return compare(model, lambda frames: loaded(frames), [clip, clip[:1]], "torch.export")

    return checked_file(path, write)


def export_hf(checkpoint: Checkpoint, folder: str | Path) -> float:
    """Write a folder of the transformers layout, checked with that library; returns the largest
    relative difference.

    Raises:
        UserError: if the extra `hf` is missing, the layout cannot hold the model, or the outputs
            differ.
    """
    transformers = import_extra(
        "transformers", "hf", "checking an export to the transformers layout"
    )
    about: dict[str, Any] = {
        "class_names": checkpoint.class_names,
        "preprocess": checkpoint.preprocess,
    }
    with tempfile.TemporaryDirectory() as trial:
        save_hf(trial, checkpoint.model, **about)
        theirs = transformers.TimesformerForVideoClassification.from_pretrained(trial).eval()
        difference = compare(
            TensorsOnly(checkpoint.model, ("logits",)),
            lambda clip: [theirs(clip).logits.detach()],
            [example_clip(checkpoint)],
            "transformers layout",
        )
    save_hf(folder, checkpoint.model, **about)
    return difference


def checked_file(path: str | Path, write: Callable[[Path], float]) -> float:
    """Write under a temporary name in the same folder, check, and rename; a failure leaves nothing
    behind."""
    with atomic(path) as temporary:
        return write(temporary)


EXPORTERS: dict[str, tuple[Callable[[Checkpoint, str | Path], float], str]] = {
    "onnx": (export_onnx, ".onnx"),
    "torch-export": (export_torch, ".pt2"),
    "hf": (export_hf, ""),
}
"""Format -> exporter and the suffix its file must have (a folder has none)."""


def export_checkpoint(
    checkpoint: Checkpoint, form: str, path: str | Path, *, int8: bool = False
) -> float:
    """Export to a format of `EXPORTERS`; returns the largest relative difference from the eager
    model.

    Args:
        int8: 8-bit weights; only for "onnx".

    Raises:
        UserError: if the format is unknown, has no 8-bit form, or the path has another suffix than
            the format's.
    """
    if form not in EXPORTERS:
        raise unknown_name("export format", form, EXPORTERS)
    exporter, suffix = EXPORTERS[form]
    if suffix and Path(path).suffix != suffix:
        raise UserError(
            f"{path}: a {form} file ends in '{suffix}'; give --out {Path(path).with_suffix(suffix)}"
        )
    if int8:
        if form != "onnx":
            raise UserError(
                f"8-bit weights are written as ONNX only; give --format onnx, not {form}"
            )
        return export_onnx(checkpoint, path, int8=True)
    return exporter(checkpoint, path)
