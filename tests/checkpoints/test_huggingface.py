"""The transformers layout, both ways, against the library itself."""

from __future__ import annotations

import json

import pytest
import torch

from marey.checkpoints.huggingface import from_hf_name, preprocess_from_hf, save_hf, to_hf_name
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import create_model
from marey.transforms.preprocess import Preprocess

transformers = pytest.importorskip("transformers", reason="the library whose layout this is")
ARGUMENTS = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 3,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
}
PROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.45] * 3,
    "image_std": [0.225] * 3,
    "resample": 2,
    "do_center_crop": True,
}


def strong(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.25, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def clip() -> torch.Tensor:
    return torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reference():
    config = transformers.TimesformerConfig(
        **ARGUMENTS, num_labels=4, id2label={0: "a", 1: "b", 2: "c", 3: "d"}
    )
    return strong(transformers.TimesformerForVideoClassification(config))


@pytest.mark.parametrize("layout", ["one file", "shards", "bin"])
def test_a_folder_of_transformers_gives_its_logits(tmp_path, reference, layout, recwarn):
    reference.save_pretrained(tmp_path, max_shard_size="20KB" if layout == "shards" else "1GB")
    if layout == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    files = len(list(tmp_path.glob("*.safetensors")))
    assert files == {"one file": 1, "bin": 0}.get(layout, files)
    assert files > 1 or layout != "shards"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    checkpoint = load_checkpoint(f"hf:{tmp_path}")
    with torch.no_grad():
        expected = reference(clip()).logits
        answer, reversed_answer = (
            checkpoint.model(clip())["logits"],
            checkpoint.model(clip().flip(1))["logits"],
        )
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=0)
    assert (answer - reversed_answer).abs().max() > 0.1  # the temporal path matters
    assert checkpoint.class_names == ["a", "b", "c", "d"]
    assert (checkpoint.preprocess.short_side, checkpoint.preprocess.mean) == (40, (0.45,) * 3)
    assert checkpoint.preprocess.sampling.spacing == "linspace"  # as the released code decodes
    notices = [
        str(warning.message) for warning in recwarn if "weights only" in str(warning.message)
    ]
    assert len(notices) == (layout == "bin")


def test_a_missing_shard_is_named(tmp_path, reference):
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}: no such file"):
        load_checkpoint(f"hf:{tmp_path}")


@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_what_we_write_loads_in_transformers_with_equal_logits(tmp_path, attention):
    model = strong(
        create_model(
            "timesformer",
            num_classes=4,
            num_frames=3,
            image_size=32,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=3,
            attention=attention,
        )
    )
    preprocess = Preprocess(short_side=36, image_size=32, mean=(0.5, 0.5, 0.5))
    save_hf(tmp_path, model, class_names=["a", "b", "c", "d"], preprocess=preprocess)
    theirs, report = transformers.TimesformerForVideoClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.eval()(clip()).logits, model(clip())["logits"], atol=1e-4, rtol=0
        )
    assert theirs.config.id2label[3] == "d"
    back = load_checkpoint(tmp_path)  # a plain folder of that layout is recognised
    assert torch.equal(back.model.head.weight, model.head.weight)
    assert (back.preprocess.short_side, back.preprocess.mean) == (36, (0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"time_attention": "cosine"},
            "time_attention='cosine', which the transformers layout cannot hold",
        ),
        ({"stem": "conv"}, "stem='conv'"),
        ({"attention": "space"}, "attention='space'"),
        ({"position_embedding": "joint"}, "position_embedding='joint'"),
    ],
)
def test_what_that_layout_cannot_hold_is_refused(tmp_path, change, message):
    model = create_model(
        "timesformer",
        num_classes=4,
        num_frames=3,
        image_size=32,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=3,
        **change,
    )
    with pytest.raises(UserError, match=message):
        save_hf(tmp_path, model)
    with pytest.raises(UserError, match="transformers layout cannot hold a DirecFormer"):
        save_hf(
            tmp_path,
            create_model(
                "direcformer",
                num_classes=4,
                num_frames=3,
                image_size=32,
                patch_size=8,
                embed_dim=24,
                depth=1,
                num_heads=3,
            ),
        )


def test_configs_we_cannot_build_are_named(tmp_path, reference):
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(
        UserError, match="hidden_act is 'relu', but this TimeSformer has 'gelu' only"
    ):
        load_checkpoint(f"hf:{tmp_path}")


def test_names_map_both_ways(reference):
    for name in reference.state_dict():
        assert to_hf_name(from_hf_name(name)) == name


def test_processors_are_translated(tmp_path):
    def read(**values):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        return preprocess_from_hf(tmp_path, num_frames=8, stride_frames=32, image_size=224)

    stretched = read(size={"height": 224, "width": 224}, resample=3, do_normalize=False)
    assert (stretched.resize_mode, stretched.interpolation) == ("stretch", "bicubic")
    assert (stretched.mean, stretched.std) == ((0.0,) * 3, (1.0,) * 3)
    assert read(size=256, do_rescale=False).rescale == 1.0
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match="no preprocessor_config.json, taking mean .45"):
        preprocess_from_hf(tmp_path, num_frames=8, stride_frames=32, image_size=224)


def test_ids_that_lead_nowhere():
    with pytest.raises(UserError, match="hf:./nowhere: no such folder, and not a hub id"):
        load_checkpoint("hf:./nowhere")
