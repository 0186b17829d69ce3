"""X-CLIP ranks names given to it, as `transformers` does; everyday actions compete with them."""

from __future__ import annotations

import json

import pytest
import torch

from marey.checkpoints.load import load_checkpoint
from marey.cli import run
from marey.errors import UserError
from marey.inference.none_of_these import EVERYDAY
from marey.inference.predictor import Predictor
from marey.models.text_video import TextVideoModel
from marey.video.encode import write_video

transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
NAMES = ["juggling", "cooking"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random X-CLIP with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    root = tmp_path_factory.mktemp("xclip")
    words = sorted({word for name in (*EVERYDAY, *NAMES) for word in name.split()})
    vocabulary = {word: n for n, word in enumerate(("[PAD]", "[UNK]", "[BOS]", *words, "[EOS]"))}
    last = vocabulary["[EOS]"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", last)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]"
    ).save_pretrained(root)

    torch.manual_seed(0)
    mit = {"mit_hidden_size": 24, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1}
    vision = {"hidden_size": 32, "image_size": 32, "patch_size": 16, "num_frames": 4}
    text = {"hidden_size": 24, "vocab_size": len(vocabulary), "max_position_embeddings": 8}
    config = transformers.XCLIPConfig(
        text_config={**SIZES, **text, "eos_token_id": last, "pad_token_id": 0},
        vision_config={**SIZES, **vision, **mit, "mit_num_attention_heads": 2},
        projection_dim=24,
        prompt_num_attention_heads=2,
    )
    transformers.XCLIPModel(config).save_pretrained(root)
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    generator = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 255, (12, 3, 48, 48), generator=generator, dtype=torch.uint8)
    write_video(path, clip, fps=8)
    return path


def test_logits_are_those_of_transformers(folder):
    model = load_checkpoint(f"hf:{folder}").model
    assert isinstance(model, TextVideoModel)
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    net = transformers.XCLIPModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)(
        NAMES, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = net(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=clip
        ).logits_per_video
        found = model(clip, NAMES)["logits"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_names_are_ranked_relative_to_one_another(folder, video, capsys):
    predictor = Predictor.load(f"hf:{folder}", views=2)
    answer = predictor(video, labels=NAMES, trust="full")
    assert {label for label, _ in answer.top(2)} == set(NAMES)
    assert float(answer.probabilities.sum()) == pytest.approx(1)
    trust = answer.trust
    assert (trust["relative_to_labels"], trust["calibrated"]) == (True, False)
    assert trust["nearest_other"] in EVERYDAY
    assert trust["none_of_these"] == (trust["none_score"] > 0) == trust["unknown"]
    assert 0 <= trust["stability"]["kept"] <= 1
    # The order in which the names are given changes nothing.
    other = predictor(video, labels=NAMES[::-1])
    assert other.top(1)[0][1] == pytest.approx(answer.top(1)[0][1], abs=1e-5)

    words = ["predict", str(video), "--model", f"hf:{folder}"]
    assert run([*words, "--labels", ",".join(NAMES), "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["results"][0]
    assert {row["label"] for row in entry["predictions"]} == set(NAMES)
    assert run(words) == 2
    assert "has no classes of its own" in capsys.readouterr().err


def test_what_does_not_fit_is_named(folder, tmp_path):
    model = load_checkpoint(f"hf:{folder}").model
    with pytest.raises(UserError, match="clip has 3 frames"):
        model(torch.zeros(1, 3, 3, 32, 32), NAMES)
    with pytest.raises(UserError, match="the model reads 8; shorten it"):
        model(torch.zeros(1, 4, 3, 32, 32), ["cooking " * 9])
