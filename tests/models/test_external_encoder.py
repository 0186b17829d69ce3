"""Encoders of other libraries: the features of a folder are those that the library computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marey.checkpoints.encoders import load_encoder
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models.probe import Probe

transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")

BODY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 16,
}
TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
    "max_position_embeddings": 16,
}
MASKED = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 48,
}


PRISM = ("hidden_size", "num_attention_heads", "intermediate_size", "image_size", "num_frames")


def vjepa2(kind: Any) -> nn.Module:
    return kind(
        transformers.VJEPA2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            crop_size=32,
            frames_per_clip=4,
            patch_size=16,
            pred_hidden_size=32,
            pred_num_hidden_layers=1,
            pred_num_attention_heads=2,
            num_pooler_layers=1,
        )
    )


def xclip() -> nn.Module:
    mit = {
        "mit_hidden_size": 24,
        "mit_intermediate_size": 32,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }
    return transformers.XCLIPModel(
        transformers.XCLIPConfig(
            text_config=TEXT,
            vision_config={**BODY, **mit, "num_frames": 4},
            projection_dim=24,
            prompt_num_attention_heads=2,
        )
    )


def images_of(hidden: Tensor) -> Tensor:
    frames = hidden.unflatten(0, (2, -1))
    return torch.cat((frames.mean(1), frames.std(1, correction=0)), dim=-1)


def reference(name: str) -> tuple[nn.Module, Any]:
    """A random network of the library, and (body, clip) -> the embedding by the library alone."""
    video = {**BODY, "num_frames": 4}
    if name == "videomae pretraining":
        net = transformers.VideoMAEForPreTraining(
            transformers.VideoMAEConfig(**video, **MASKED, tubelet_size=2, use_mean_pooling=False)
        )
        return net, lambda clip: net.videomae(clip).last_hidden_state.mean(1)
    if name == "videomae fine-tuned":
        net = transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(**video, tubelet_size=2)
        )
        return net, lambda clip: net.videomae(clip).last_hidden_state.mean(1)
    if name == "videoprism":
        sizes = {"num_spatial_layers": 1, "num_temporal_layers": 1, "tubelet_size": [1, 16, 16]}
        small = {key: value for key, value in video.items() if key in PRISM}
        config = transformers.VideoPrismVisionConfig(**small, **sizes)
        net = transformers.VideoPrismVisionModel(config)
        return net, lambda clip: net(clip).last_hidden_state.mean(1)
    if name == "vjepa2":
        net = vjepa2(transformers.VJEPA2Model)
        return net, lambda clip: net.get_vision_features(clip).mean(1)
    if name == "vjepa2 fine-tuned":
        net = vjepa2(transformers.VJEPA2ForVideoClassification)
        return net, lambda clip: net.vjepa2.get_vision_features(clip).mean(1)
    if name == "vivit":
        net = transformers.VivitForVideoClassification(
            transformers.VivitConfig(**video, tubelet_size=[2, 16, 16])
        )
        return net, lambda clip: net.vivit(clip).last_hidden_state[:, 0]
    if name == "timesformer":
        net = transformers.TimesformerForVideoClassification(
            transformers.TimesformerConfig(**video)
        )
        return net, lambda clip: net.timesformer(clip).last_hidden_state[:, 0]
    if name == "xclip":
        net = xclip()
        tokens = torch.tensor([[1, 2, 59]])
        return net, lambda clip: unit(net(input_ids=tokens, pixel_values=clip).video_embeds)
    if name == "vit":
        net = transformers.ViTForImageClassification(transformers.ViTConfig(**BODY))
        return net, lambda clip: images_of(net.vit(clip.flatten(0, 1)).last_hidden_state[:, 0])
    if name == "dinov2":
        net = transformers.Dinov2Model(transformers.Dinov2Config(**BODY))
        return net, lambda clip: images_of(net(clip.flatten(0, 1)).pooler_output)
    text = {**TEXT, "hidden_size": 32}
    if name == "clip":
        net = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=BODY, projection_dim=16)
        )
    elif name == "clip vision":
        net = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**BODY))
        return net, lambda clip: images_of(net(clip.flatten(0, 1)).pooler_output)
    else:
        net = transformers.SiglipModel(
            transformers.SiglipConfig(text_config=text, vision_config=BODY)
        )
    return net, lambda clip: images_of(net.vision_model(clip.flatten(0, 1)).pooler_output)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


KINDS = (
    "videomae pretraining",
    "videomae fine-tuned",
    "vjepa2",
    "vjepa2 fine-tuned",
    "videoprism",
    "vivit",
    "timesformer",
    "xclip",
    "vit",
    "dinov2",
    "clip",
    "clip vision",
    "siglip",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_gives_the_features_of_the_library(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, embedding_of = reference(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.2)
    net.eval().save_pretrained(tmp_path)

    with pytest.warns(UserWarning, match="preprocessor_config"):
        loaded = load_encoder(f"hf:{tmp_path}")
    frames = loaded.preprocess.sampling.num_frames
    clip = torch.randn(2, frames, 3, 32, 32)
    with torch.inference_mode():
        expected, got = embedding_of(clip), loaded.encoder(clip)

    found = unit(got["embedding"]) if name == "xclip" else got["embedding"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert got["embedding"].shape == (2, loaded.encoder.embed_dim)
    assert got["tokens"].ndim == 3
    assert loaded.preprocess.image_size == 32
    assert float(got["embedding"].std()) > 0


def test_missing_body_weights_are_an_error_and_a_missing_head_is_not(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    net, _ = reference("videomae fine-tuned")
    net.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    headless = {key: value for key, value in state.items() if "classifier" not in key}
    save_file(headless, file, metadata={"format": "pt"})
    assert load_encoder(f"hf:{tmp_path}").encoder.embed_dim == 32

    broken = {key: value for key, value in headless.items() if "encoder.layer.1" not in key}
    save_file(broken, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="missing"):
        load_encoder(f"hf:{tmp_path}")


def test_a_wrong_number_of_frames_and_a_text_model_are_named(tmp_path: Path) -> None:
    net, _ = reference("vivit")
    net.save_pretrained(tmp_path / "vivit")
    encoder = load_encoder(f"hf:{tmp_path / 'vivit'}").encoder
    with pytest.raises(UserError, match="5 frames.*built for 4"):
        encoder(torch.zeros(1, 5, 3, 32, 32))

    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="model type 'bert'.*vivit"):
        load_encoder(f"hf:{tmp_path / 'bert'}")


def test_a_torchvision_encoder_has_no_head() -> None:
    from marey.models.external import TORCHVISION_CLIPS
    from marey.models.external_encoder import ExternalEncoder

    encoder = ExternalEncoder("torchvision", {"name": "mc3_18"}).eval()
    clip = torch.randn(1, TORCHVISION_CLIPS["mc3_18"][0], 3, 112, 112)
    with torch.inference_mode():
        found = encoder(clip)["embedding"]
    assert found.shape == (1, encoder.embed_dim) == (1, 512)


@pytest.mark.parametrize("name", ["videomae pretraining", "vjepa2", "clip"])
def test_an_encoder_opened_as_a_classifier_names_the_command_that_teaches_it(
    name: str, tmp_path: Path
) -> None:
    net, _ = reference(name)
    net.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="marey teach DIR --encoder hf:"):
        load_checkpoint(f"hf:{tmp_path}")


def test_a_taught_encoder_of_transformers_survives_a_round_trip(tmp_path: Path) -> None:
    net, _ = reference("videomae pretraining")
    net.save_pretrained(tmp_path / "encoder")
    loaded = load_encoder(f"hf:{tmp_path / 'encoder'}")
    probe = Probe("external", loaded.encoder.arguments, 3).eval()
    probe.encoder.load_state_dict(loaded.encoder.state_dict())
    torch.nn.init.normal_(probe.head.weight)
    clip = torch.randn(2, 4, 3, 32, 32)
    save_checkpoint(
        tmp_path / "model", probe, class_names=["a", "b", "c"], preprocess=loaded.preprocess
    )
    with torch.inference_mode():
        again = load_checkpoint(tmp_path / "model").model(clip)
        assert torch.allclose(again["logits"], probe(clip)["logits"], atol=1e-6)
