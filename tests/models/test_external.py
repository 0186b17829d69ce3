"""Other libraries' models: the same logits through Marey as through the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import create_model

transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "num_frames": 4,
    "num_labels": 5,
    "patch_size": 16,
}


def folder_of(kind: str, root: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    if kind == "vivit":
        net = transformers.VivitForVideoClassification(
            transformers.VivitConfig(**SMALL, tubelet_size=[2, 16, 16])
        )
    elif kind == "videomae":
        net = transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(**SMALL, tubelet_size=2)
        )
    else:
        net = transformers.VJEPA2ForVideoClassification(
            transformers.VJEPA2Config(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                crop_size=32,
                frames_per_clip=4,
                patch_size=16,
                num_labels=5,
                pred_hidden_size=32,
                pred_num_hidden_layers=1,
                pred_num_attention_heads=2,
                num_pooler_layers=1,
            )
        )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net.eval().save_pretrained(root)
    (root / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"shortest_edge": 36},
                "crop_size": {"height": 32, "width": 32},
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
                "rescale_factor": 1 / 127.5,
                "offset": True,
            }
        )
    )
    return root, net


@pytest.mark.parametrize("kind", ["vivit", "videomae", "vjepa2"])
def test_a_transformers_folder_gives_the_librarys_logits(kind: str, tmp_path: Path) -> None:
    folder, net = folder_of(kind, tmp_path)
    checkpoint = load_checkpoint(f"hf:{folder}")
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.inference_mode():
        theirs = net(**{net.main_input_name: clip}).logits
        ours = checkpoint.model(clip)
    assert torch.equal(ours["logits"], theirs)
    assert ours["embedding"].shape == (2, 32)
    assert checkpoint.preprocess.short_side == 36
    assert checkpoint.preprocess.mean == (1.5, 1.5, 1.5)


def test_the_offset_of_the_processor_is_applied_once(tmp_path: Path) -> None:
    """ViViT by hand: 255 / 127.5 - 1 = 1, then (1 - 0.5) / 0.5 = 1."""
    preprocess = load_checkpoint(f"hf:{folder_of('vivit', tmp_path)[0]}").preprocess
    white = torch.full((4, 3, 40, 40), 255, dtype=torch.uint8)
    assert torch.allclose(preprocess.clip(white), torch.tensor(1.0), atol=1e-5)


def test_it_saves_and_loads_in_our_format_with_equal_logits(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(f"hf:{folder_of('vivit', tmp_path / 'hf')[0]}")
    save_checkpoint(
        tmp_path / "ours",
        checkpoint.model,
        class_names=checkpoint.class_names,
        preprocess=checkpoint.preprocess,
    )
    again = load_checkpoint(tmp_path / "ours")
    clip = torch.randn(1, 4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(
            again.model(clip)["logits"], checkpoint.model(clip)["logits"], atol=1e-5
        )


def test_attention_comes_on_request_and_changes_no_logits(tmp_path: Path) -> None:
    model = load_checkpoint(f"hf:{folder_of('vivit', tmp_path)[0]}").model
    clip = torch.randn(1, 4, 3, 32, 32)
    with torch.inference_mode():
        plain, seen = model(clip), model(clip, return_attention=True)
    assert [a.shape for a in seen["attention_joint"]] == [(1, 2, 9, 9)] * 2
    assert torch.allclose(seen["attention_joint"][0].sum(-1), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(plain["logits"], seen["logits"], atol=1e-4)


def test_a_clip_of_another_length_is_refused(tmp_path: Path) -> None:
    model = load_checkpoint(f"hf:{folder_of('videomae', tmp_path)[0]}").model
    with pytest.raises(
        UserError, match="clip has 8 frames, but this transformers model was built for 4"
    ):
        model(torch.randn(1, 8, 3, 32, 32))


def test_a_folder_with_weights_missing_is_refused(tmp_path: Path) -> None:
    folder, net = folder_of("videomae", tmp_path)
    state = {
        key: value.contiguous()
        for key, value in net.state_dict().items()
        if not key.startswith("classifier")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys \(2\): classifier.bias"):
        load_checkpoint(f"hf:{folder}")


@pytest.mark.parametrize("name", ["r3d_18", "mvit_v2_s"])
def test_torchvision_models_load_from_a_file_and_keep_their_logits(
    name: str, tmp_path: Path
) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    net = get_model(name, num_classes=7).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    checkpoint = load_checkpoint(f"torchvision:{name}@{tmp_path / 'w.safetensors'}")
    T, S = checkpoint.model.num_frames, checkpoint.preprocess.image_size
    clip = torch.randn(1, T, 3, S, S)
    with torch.inference_mode():
        outputs = checkpoint.model(clip)
        assert torch.allclose(outputs["logits"], net(clip.transpose(1, 2)), atol=1e-5)
    assert outputs["embedding"].ndim == 2
    assert checkpoint.class_names[6] == "class 6"


def test_it_can_be_built_anew_with_other_classes_and_trained() -> None:
    model = create_model(
        "external",
        library="torchvision",
        config={"name": "r3d_18"},
        num_classes=3,
        num_frames=4,
        image_size=32,
    )
    outputs = model(torch.randn(2, 4, 3, 32, 32))
    assert outputs["logits"].shape == (2, 3)
    outputs["logits"].sum().backward()
    assert model.net.stem[0].weight.grad is not None


def test_unknown_models_are_named() -> None:
    with pytest.raises(
        UserError, match="unknown torchvision model 'r3d_81'; did you mean 'r3d_18'"
    ):
        load_checkpoint("torchvision:r3d_81")
    with pytest.raises(UserError, match="unknown library 'timm'"):
        create_model("external", library="timm", config={})
