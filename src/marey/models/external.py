"""Other people's video classifiers behind our interface: any of `transformers`, and those of torchvision.

They answer `model(clip) -> dict`, train, save in our folder format and are measured like our own models.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from marey.errors import UserError, import_extra, unknown_name

if TYPE_CHECKING:
    from marey.checkpoints import Checkpoint
    from marey.transforms.preprocess import Preprocess

LIBRARIES = ("transformers", "torchvision")
STRIDE_FRAMES = {"videomae": 4, "vivit": 2}
"""Frame stride at 30 fps of published `transformers` checkpoints; other kinds spread their frames over the video."""
TORCHVISION_CLIPS = {"mc3_18": (16, 2), "r2plus1d_18": (16, 2), "r3d_18": (16, 2), "s3d": (128, 2),
                     "mvit_v1_b": (16, 4), "mvit_v2_s": (16, 4), "swin3d_t": (32, 2), "swin3d_s": (32, 2),
                     "swin3d_b": (32, 2)}
"""torchvision model -> (frames, stride at 30 fps): the clip length and frame rate its weights are documented with."""


class ExternalClassifier(nn.Module):
    """A video classifier of another library.

    A clip of another length than the model's is refused: `transformers` would regroup its tokens in silence and answer
    nonsense.

    Args:
        library: "transformers" or "torchvision".
        config: for transformers the model's `config.json`; for torchvision {"name": ...}.
        num_classes: K; None keeps the config's.
        num_frames: T; None keeps the config's.
        image_size: S in pixels; None keeps the config's.

    Raises:
        UserError: if the library, or the model in it, is unknown.
    """

    def __init__(self, library: str, config: dict[str, Any], num_classes: int | None = None,
                 num_frames: int | None = None, image_size: int | None = None) -> None:
        super().__init__()
        if library not in LIBRARIES:
            raise unknown_name("library", library, LIBRARIES)
        build = _build_transformers if library == "transformers" else _build_torchvision
        self.net, self.head, facts = build(config, num_classes, num_frames, image_size)
        self.library = library
        self.num_frames: int = facts["num_frames"]
        self.arguments: dict[str, Any] = {"library": library, "config": facts["config"],
                                          "num_classes": facts["num_classes"], "num_frames": facts["num_frames"],
                                          "image_size": facts["image_size"]}

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips.

        Args:
            clip: float, (B, T, C, S, S), normalised as the model wants.
            return_attention: also return "attention_joint" (transformers only): a list, one (B, heads, L, L) tensor per
                block, over all L tokens of the clip.

        Returns:
            "logits" (B, K), and "embedding" (B, D) where the model has one vector per clip or token.

        Raises:
            UserError: if the clip has another number of frames than the model, or attention is not to be had.
        """
        if clip.shape[1] != self.num_frames:
            raise UserError(f"clip has {clip.shape[1]} frames, but this {self.library} model was built for "
                            f"{self.num_frames}; sample {self.num_frames} frames")
        if self.library == "transformers":
            return self._transformers(clip, return_attention)
        if return_attention:
            raise UserError(f"torchvision's {self.arguments['config']['name']} does not give its attention; "
                            "explain it by gradients instead")
        features = self.net(clip.transpose(1, 2))                       # torchvision takes (B, C, T, H, W)
        if isinstance(self.head, nn.Identity):
            return {"logits": features, "embedding": None}
        return {"logits": self.head(features), "embedding": features}

    def _transformers(self, clip: Tensor, return_attention: bool) -> dict[str, Any]:
        if return_attention:
            self.net.set_attn_implementation("eager")                   # the fused kernels do not keep their weights
        answer = self.net(**{self.net.main_input_name: clip}, output_hidden_states=True,
                          output_attentions=return_attention)
        hidden = answer.hidden_states[-1] if answer.hidden_states else None
        outputs = {"logits": answer.logits, "embedding": hidden.mean(1) if hidden is not None else None}
        if return_attention:
            outputs["attention_joint"] = list(answer.attentions or [])
        return outputs


def _build_transformers(config: dict[str, Any], num_classes: int | None, num_frames: int | None,
                        image_size: int | None) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    library = import_extra("transformers", "hf", "a transformers model")
    settings = library.AutoConfig.for_model(**copy.deepcopy(config))
    frames_key = "frames_per_clip" if hasattr(settings, "frames_per_clip") else "num_frames"
    size_key = "crop_size" if not hasattr(settings, "image_size") else "image_size"
    if num_classes is not None and num_classes != settings.num_labels:
        settings.num_labels = num_classes
    for key, value in ((frames_key, num_frames), (size_key, image_size)):
        if value is not None:
            setattr(settings, key, value)
    try:
        net = library.AutoModelForVideoClassification.from_config(settings)
    except ValueError as error:
        raise UserError(f"transformers has no video classifier of type '{config.get('model_type')}'; "
                        "give a TimeSformer, ViViT, VideoMAE, V-JEPA 2 or the like") from error
    size = getattr(settings, size_key)
    facts = {"config": json.loads(settings.to_json_string(use_diff=False)), "num_classes": settings.num_labels,
             "num_frames": getattr(settings, frames_key), "image_size": size if isinstance(size, int) else size[0]}
    return net, nn.Identity(), facts


def _build_torchvision(config: dict[str, Any], num_classes: int | None, num_frames: int | None,
                       image_size: int | None) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Build without weights; a last layer that is one module is moved out, so that its input is the embedding."""
    from torchvision.models import get_model

    name = config["name"]
    if name not in TORCHVISION_CLIPS:
        raise unknown_name("torchvision model", name, TORCHVISION_CLIPS)
    num_classes = 400 if num_classes is None else num_classes
    net = get_model(name, num_classes=num_classes)
    head: nn.Module = nn.Identity()
    for place in ("fc", "head"):
        if isinstance(getattr(net, place, None), (nn.Linear, nn.Sequential)):
            head = getattr(net, place)
            setattr(net, place, nn.Identity())
    facts = {"config": {"name": name}, "num_classes": num_classes, "image_size": image_size or _crop_size(name),
             "num_frames": TORCHVISION_CLIPS[name][0] if num_frames is None else num_frames}
    return net, head, facts


def _crop_size(name: str) -> int:
    return 112 if name in ("mc3_18", "r2plus1d_18", "r3d_18") else 224


def load_hf_external(folder: Path, config: dict[str, Any], source: str) -> Checkpoint:
    """Load a video classifier of `transformers` from a local folder, with its own preprocessing.

    Keys renamed between versions of that library are mapped by the library itself; a key that finds no place, or a
    parameter that gets no value, is an error and not a warning.

    Raises:
        UserError: if the folder is no video classifier, or its weights do not fit.
    """
    from marey.checkpoints.folder import Checkpoint

    library = import_extra("transformers", "hf", f"loading {source}")
    from transformers.models.auto.modeling_auto import MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES as KINDS

    if config.get("model_type") not in KINDS:
        raise UserError(f"{source}: model type '{config.get('model_type')}' is no video classifier of transformers "
                        f"(it has: {', '.join(KINDS)})")
    try:
        net, report = library.AutoModelForVideoClassification.from_pretrained(folder, output_loading_info=True,
                                                                              dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{source}: transformers cannot load it: {str(error).splitlines()[0]}") from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if report.get(problem):
            names = ", ".join(sorted(map(str, report[problem]))[:3])
            raise UserError(f"{source}: {problem.replace('_', ' ')} ({len(report[problem])}): {names}; the folder is "
                            "another architecture, or its classifier was never trained")
    model = ExternalClassifier("transformers", json.loads(net.config.to_json_string(use_diff=False)))
    model.net = net
    labels = {int(place): str(label) for place, label in (net.config.id2label or {}).items()}
    return Checkpoint(model=model.eval(), name="external", source=source, arguments=model.arguments,
                      class_names=[labels.get(k, f"class {k}") for k in range(model.arguments["num_classes"])],
                      preprocess=_hf_preprocess(folder, model, str(config["model_type"])))


def _hf_preprocess(folder: Path, model: ExternalClassifier, kind: str) -> Preprocess:
    """Translate the folder's processor: ViViT's offset (x * scale - 1 before mean and std) becomes part of the mean."""
    from dataclasses import replace

    from marey.checkpoints.folder import read_json
    from marey.checkpoints.huggingface import preprocess_from_hf
    from marey.video.sampling import ClipSampling

    T, S = model.num_frames, model.arguments["image_size"]
    preprocess = preprocess_from_hf(folder, num_frames=T, stride_frames=STRIDE_FRAMES.get(kind, 1), image_size=S)
    path = folder / "preprocessor_config.json"
    if path.is_file() and read_json(path).get("offset") and read_json(path).get("do_rescale", True):
        preprocess = replace(preprocess, mean=(preprocess.mean[0] + 1, preprocess.mean[1] + 1, preprocess.mean[2] + 1))
    if kind not in STRIDE_FRAMES:
        preprocess = replace(preprocess, sampling=ClipSampling(kind="equidistant", num_frames=T))
    return preprocess


def load_torchvision(name: str) -> Checkpoint:
    """Load one of torchvision's video classifiers with its published Kinetics-400 weights.

    The published preprocessing of the ResNets squeezes frames to 128 x 171 before the crop; ours keeps the aspect and
    resizes the short side to 128, which is the same for frames of 3:4.

    Args:
        name: e.g. "swin3d_t"; "swin3d_t@FILE" takes the weights from a `.safetensors` or `.pth` file.

    Raises:
        UserError: if the name is unknown, or the weights can be neither found nor downloaded.
    """
    from torchvision.models import get_model_weights

    from marey.checkpoints.folder import Checkpoint
    from marey.transforms.preprocess import Preprocess
    from marey.video.sampling import ClipSampling

    name, _, file = name.partition("@")
    if name not in TORCHVISION_CLIPS:
        raise unknown_name("torchvision model", name, TORCHVISION_CLIPS)
    weights = get_model_weights(name).DEFAULT
    state = _read_state(file) if file else _download(name, weights)
    state = _our_keys(state)
    num_classes = next((len(value) for key, value in state.items()
                        if key.startswith(("head.", "net.classifier.")) and key.endswith("bias")), None)
    model = ExternalClassifier("torchvision", {"name": name}, num_classes=num_classes)
    from marey.checkpoints.report import load_exactly

    load_exactly(model, state, f"torchvision:{name}")
    transform = weights.transforms()
    frames, stride = TORCHVISION_CLIPS[name]
    preprocess = Preprocess(sampling=ClipSampling(num_frames=frames, stride_frames=stride, target_fps=30.0,
                                                  view_start="offset"),
                            short_side=transform.resize_size[0], image_size=transform.crop_size[0],
                            mean=tuple(transform.mean), std=tuple(transform.std))
    num_classes = model.arguments["num_classes"]
    names = weights.meta["categories"] if num_classes == len(weights.meta["categories"]) else None
    return Checkpoint(model=model.eval(), name="external", source=f"torchvision:{name}", arguments=model.arguments,
                      class_names=list(names or (f"class {k}" for k in range(num_classes))), preprocess=preprocess)


def _our_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's keys as ours: the last layer is `head`, the rest is `net`."""
    return {"head." + key.partition(".")[2] if key.startswith(("fc.", "head.")) else f"net.{key}": value
            for key, value in state.items()}


def _read_state(file: str) -> dict[str, Tensor]:
    from marey.checkpoints.folder import read_tensors
    from marey.checkpoints.pickled import read_pickled

    path = Path(file)
    return read_tensors(path) if path.suffix == ".safetensors" else read_pickled(path)


def _download(name: str, weights: Any) -> dict[str, Tensor]:
    from urllib.error import URLError

    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise UserError(f"torchvision:{name}: its weights are not on this machine and cannot be downloaded ({error}); "
                        f"fetch them elsewhere and write torchvision:{name}@FILE") from error
