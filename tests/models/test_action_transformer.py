from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.layers.tx import TxUnit
from marey.losses.detection import detection_loss
from marey.models import create_model
from marey.models.action_transformer import ActionTransformer, count_parameters, postprocess

TINY = {
    "num_classes": 3,
    "num_frames": 8,
    "width": 0.125,
    "num_proposals": 12,
    "rpn_channels": 16,
    "dim": 16,
    "ffn": 32,
    "query_channels": 8,
    "location_channels": 8,
    "anchor_sizes": (16, 32),
    "samples_per_clip": 8,
    "dropout": 0.0,
}


def tiny(**changes):
    torch.manual_seed(0)
    return ActionTransformer(**{**TINY, **changes})


def clips(count=2, frames=8):
    return torch.randn(count, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def targets(with_person=(True, True)):
    person = {
        "boxes_xyxy_norm": torch.tensor([[0.1, 0.1, 0.5, 0.9]]),
        "labels": torch.tensor([[1.0, 0, 1]]),
    }
    nobody = {"boxes_xyxy_norm": torch.zeros(0, 4), "labels": torch.zeros(0, 3)}
    return [person if there else nobody for there in with_person]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        ({"head": "i3d"}, 16.2),
        ({"query": "lowres"}, 13.9),
        ({"query": "highres"}, 19.3),
    ],
)
def test_parameters_stand_beside_table_1(arguments, millions):
    table = count_parameters(ActionTransformer(num_classes=60, background=True, **arguments))
    assert table["trunk"] == pytest.approx(7.528256)
    assert table["total"] == pytest.approx(millions, abs=0.1)


def test_a_unit_equals_its_equations_written_for_one_person():
    torch.manual_seed(0)
    unit = TxUnit(6, 4, 8, dropout=0.3).eval()
    query, memory = torch.randn(3, 4), torch.randn(2, 5, 6)
    out, attention = unit(query, memory, [1, 2])
    for row, clip in enumerate([0, 1, 1]):
        keys, values = unit.key(memory[clip]), unit.value(memory[clip])
        scores = torch.stack([(query[row] * key).sum() / math.sqrt(4) for key in keys])
        weights = scores.exp() / scores.exp().sum()
        gathered = sum(weight * value for weight, value in zip(weights, values, strict=True))
        first = unit.norm_attention(query[row] + gathered)
        torch.testing.assert_close(out[row], unit.norm_ffn(first + unit.ffn(first)))
        torch.testing.assert_close(attention[row], weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "tx"},
        {"head": "i3d"},
        {"head": "tx+i3d"},
        {"query": "lowres"},
        {"class_specific_boxes": True},
        {"background": True},
        {"roi_operator": "align"},
    ],
)
def test_every_variant_trains_and_predicts(changes):
    model = tiny(**changes).train()
    outputs = model(clips(), targets=targets())
    terms = detection_loss(outputs)
    assert set(terms) == {"class", "box", "rpn_objectness", "rpn_box"}
    sum(terms.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    model.eval()
    with torch.no_grad():
        outputs = model(clips())
    assert outputs["logits"].shape == (sum(outputs["counts"]), 3)
    assert outputs["boxes_xyxy_norm"].min() >= 0
    assert outputs["boxes_xyxy_norm"].max() <= 1
    persons = postprocess(outputs)
    assert len(persons) == 2
    assert (persons[0]["person_scores"].diff() <= 0).all()


def test_two_evaluations_and_a_reloaded_model_agree():
    model = tiny().eval()
    with torch.no_grad():
        first, second = model(clips()), model(clips())
        again = create_model("action_transformer", **model.arguments)
        again.load_state_dict(model.state_dict())
        third = again.eval()(clips())
    for other in (second, third):
        torch.testing.assert_close(other["logits"], first["logits"])
        torch.testing.assert_close(other["boxes_xyxy_norm"], first["boxes_xyxy_norm"])


def test_clips_of_a_batch_do_not_look_at_each_other():
    model, boxes = tiny().eval(), torch.tensor([[0.1, 0.1, 0.5, 0.9], [0.4, 0.2, 0.9, 0.9]])
    with torch.no_grad():
        together = model(clips(), boxes_xyxy_norm=[boxes, boxes])["logits"]
        torch.testing.assert_close(
            model(clips()[1:], boxes_xyxy_norm=[boxes])["logits"],
            together[2:],
            rtol=1e-4,
            atol=1e-5,
        )


def test_given_boxes_stay_and_may_be_refined():
    boxes = [torch.tensor([[0.1, 0.1, 0.5, 0.9]]), torch.zeros(0, 4)]
    with torch.no_grad():
        outputs = tiny().eval()(clips(), boxes_xyxy_norm=boxes)
    assert outputs["counts"] == [1, 0]
    torch.testing.assert_close(outputs["boxes_xyxy_norm"], boxes[0])
    refining = tiny(refine_given_boxes=True).eval()
    torch.nn.init.constant_(refining.box_regressor.bias, 1.0)
    with torch.no_grad():
        assert not torch.allclose(
            refining(clips(), boxes_xyxy_norm=boxes)["boxes_xyxy_norm"], boxes[0]
        )


def test_attention_sums_to_one_over_the_clip_and_more_frames_are_welcome():
    model = tiny().eval()
    with torch.no_grad():
        for frames in (8, 12):
            outputs = model(
                clips(1, frames),
                boxes_xyxy_norm=[torch.tensor([[0.1, 0.1, 0.5, 0.9]])],
                return_attention=True,
            )
            assert [a.shape for a in outputs["attention_space_time"]] == [
                (1, 2, frames // 4, 4, 4)
            ] * 3
            for attention in outputs["attention_space_time"]:
                torch.testing.assert_close(attention.sum((2, 3, 4)), torch.ones(1, 2))


def test_clips_without_persons_train_to_finite_losses():
    model = tiny().train()
    for persons in ((False, False), (True, False)):
        terms = detection_loss(model(clips(), targets=targets(persons)))
        assert all(torch.isfinite(term) for term in terms.values())
    no_boxes = [torch.zeros(0, 4)] * 2
    terms = detection_loss(
        model(clips(), boxes_xyxy_norm=no_boxes, targets=targets((False, False)))
    )
    assert {name: term.item() for name, term in terms.items()} == {"class": 0, "box": 0}


def test_positives_take_the_labels_of_the_person_they_overlap_most():
    model = tiny()
    target = {
        "boxes_xyxy_norm": torch.tensor([[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]]),
        "labels": torch.eye(3)[:2],
    }
    proposals = [
        torch.tensor([[0.0, 0, 0.45, 1], [0.55, 0, 1, 1], [0, 0, 0.1, 0.1], [0.2, 0, 0.7, 1]])
    ]
    boxes, sampled = model.sample(proposals, [target], keep_all=True)
    assert sampled["is_positive"].tolist() == [True, True, False, False]
    assert sampled["proposal_labels"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    decoded = model.decode(sampled["box_delta_targets"], boxes[0])
    torch.testing.assert_close(decoded[:2], target["boxes_xyxy_norm"])


def test_a_timesformer_can_sit_below_the_head():
    arguments = {
        "num_frames": 4,
        "image_size": 64,
        "patch_size": 16,
        "embed_dim": 32,
        "depth": 1,
        "num_heads": 2,
    }
    model = tiny(trunk="timesformer", trunk_arguments=arguments, num_frames=4).eval()
    assert model.features(clips(1, 4)).shape == (1, 32, 4, 4, 4)
    with torch.no_grad():
        assert model(clips(1, 4))["logits"].shape[1] == 3


def test_an_image_network_can_be_the_trunk_and_its_stem_stays_frozen():
    model = tiny(
        trunk="efficientnet_lite0", trunk_arguments={"channels": 16}, frozen_norm=False
    ).train()
    assert model.features(clips(1)).shape == (1, 16, 4, 8, 8)
    assert not any(p.requires_grad for p in model.trunk.stem.parameters())
    assert not model.trunk.stem._bn0.training
    fine, coarse = model.trunk.stem_features(clips(2).flatten(0, 1))
    whole = model.eval().features(clips(2))
    torch.testing.assert_close(
        model.trunk.mix(fine.unflatten(0, (2, 8)), coarse.unflatten(0, (2, 8))), whole
    )


def test_the_last_stages_of_the_image_network_may_learn():
    model = tiny(
        trunk="efficientnet_lite0", trunk_arguments={"channels": 16, "trained_stages": 2}
    ).train()
    learning = {
        name.split(".")[1]
        for name, p in model.trunk.stem.named_parameters()
        if p.requires_grad and name.startswith("_blocks")
    }
    assert learning == {"5", "6", "7", "8", "9", "10"}  # stages 4 and 5, three blocks each
    assert not model.trunk.stem._conv_stem.weight.requires_grad
    assert not model.trunk.stem._blocks[10]._bn2.training
    with pytest.raises(UserError, match="trained_stages must be 0 to 5, got 6"):
        tiny(trunk="efficientnet_lite0", trunk_arguments={"trained_stages": 6})


def test_suppression_keeps_the_better_of_two_overlapping_boxes():
    outputs = {
        "logits": torch.tensor([[0.0, 1], [2, 0], [0, 0]]),
        "counts": [3],
        "boxes_xyxy_norm": torch.tensor(
            [[0.0, 0, 0.5, 0.5], [0, 0, 0.5, 0.51], [0.6, 0.6, 0.6, 0.9]]
        ),
    }
    persons = postprocess(outputs)[0]
    assert persons["keep"].tolist() == [1]  # the third box has no area
    assert persons["person_scores"].item() == pytest.approx(1 - (1 - 0.8808) * 0.5, abs=1e-4)
    assert postprocess(outputs, score_threshold=0.95)[0]["keep"].tolist() == []


def test_batch_norm_stays_frozen_in_training_unless_asked():
    assert not tiny().train().trunk.Conv3d_1a_7x7.bn.training
    assert tiny(frozen_norm=False).train().trunk.Conv3d_1a_7x7.bn.training


def test_mistakes_are_named():
    with pytest.raises(UserError, match="unknown head 'tz'; did you mean 'tx'"):
        tiny(head="tz")
    with pytest.raises(UserError, match="training needs targets"):
        tiny().train()(clips())
    with pytest.raises(UserError, match=r"2 clips, but boxes for 1"):
        tiny().eval()(clips(), boxes_xyxy_norm=[torch.zeros(0, 4)])
