"""Attacks stay in their budget, gain with steps and restarts, agree with Foolbox, and reach the
pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import marey
from marey.attacks import attack, check_options
from marey.attacks.apgd import checkpoints, dlr_loss, targeted_dlr_loss
from marey.attacks.fab import project_linf
from marey.attacks.features import gat_feature_attack
from marey.attacks.flickering import flicker_loss, roughness, thickness
from marey.attacks.geo_trap import FREEDOM, transform_matrices, warp
from marey.attacks.motion_excited import motion_grids
from marey.attacks.pixel_model import PixelModel
from marey.attacks.suite import withstand
from marey.attacks.threat_models import SUITES
from marey.attacks.worst_case import margins, whole_levels
from marey.errors import UserError


class TinyClassifier(nn.Module):
    """Two convolutions and a mean, three classes; answers a dict as our models do."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv3d(3, 8, 3, padding=1), nn.GELU(), nn.Conv3d(8, 8, 3, stride=2), nn.GELU()
            )
            self.head = nn.Linear(8, 3)
        with torch.no_grad():
            self.head.weight.mul_(20)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.net(clip.transpose(1, 2)).mean((2, 3, 4)))}


@pytest.fixture(scope="module")
def model() -> PixelModel:
    return PixelModel(TinyClassifier(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.randint(
        0, 256, (6, 4, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture(scope="module")
def labels(model: PixelModel, clips: Tensor) -> Tensor:
    """The model's own answers, but one, so that one sample is wrong from the start."""
    with torch.no_grad():
        answers = model(clips.float() / 255).argmax(1)
    answers[0] = (answers[0] + 1) % 3
    return answers


def test_the_names() -> None:
    assert marey.list_attacks() == [
        "fgsm",
        "pgd",
        "pgd_l2",
        "apgd_ce",
        "apgd_dlr",
        "apgd_t",
        "fab",
        "square",
        "sparse",
        "flickering",
        "geo_trap",
        "motion_excited",
        "random_noise",
    ]


def test_margin_and_rounding_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert margins(logits, torch.tensor([1])).item() == -1
    assert margins(logits, torch.tensor([0])).item() == 2
    assert margins(logits, torch.tensor([0]), torch.tensor([2])).item() == -1
    clean = torch.tensor([100, 100, 100, 0], dtype=torch.uint8)
    moved = torch.tensor([107.99995, 92.6, 100.4, -3.0]) / 255
    assert whole_levels(moved, clean).tolist() == [108, 93, 100, 0]


@pytest.mark.parametrize("name", marey.list_attacks())
def test_an_attack_is_a_uint8_clip_within_budget_and_never_weaker_than_the_clean_one(
    name: str, model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    options = {
        "fgsm": {},
        "pgd": {},
        "pgd_l2": {"eps": 2.0},
        "sparse": {"steps": 8, "num_frames": 2},
        "flickering": {"steps": 8, "eps": 16 / 255},
        "geo_trap": {"max_queries": 30},
        "motion_excited": {"max_queries": 30},
        "square": {"max_queries": 30},
        "random_noise": {"max_queries": 30},
        "apgd_t": {"steps": 8},
        "fab": {"steps": 8},
    }.get(name, {"steps": 8} if name.startswith("apgd") else {})
    result = attack(model, clips, labels, name, **options)
    assert result.clip.dtype == torch.uint8
    assert result.clip.shape == clips.shape
    change = (result.clip.int() - clips.int()).float()
    if name == "pgd_l2":
        assert (change.flatten(1).norm(dim=1) <= 2.0 * 255 + 1e-3).all()
    elif name == "sparse":
        assert ((change.abs().amax((2, 3, 4)) > 0).sum(1) <= 2).all()
    else:
        budget = {"flickering": 16, "geo_trap": 10, "motion_excited": 10}.get(name, 8)
        assert change.abs().max() <= budget
    with torch.no_grad():
        clean = model(clips.float() / 255)
        again = model(result.clip.float() / 255)
    assert (result.margin >= margins(clean, labels) - 1e-5).all()
    assert torch.equal(again.argmax(1), result.answers)
    assert torch.equal(result.success, result.answers != labels)
    assert result.success[0]
    assert result.queries > 0


def test_flickering_moves_all_pixels_of_a_frame_alike(model: PixelModel) -> None:
    grey = torch.full((1, 4, 3, 12, 12), 120, dtype=torch.uint8)
    with torch.no_grad():
        label = model(grey.float() / 255).argmax(1)
    result = attack(model, grey, label, "flickering", steps=15)
    change = result.clip.int() - grey.int()
    assert (change == change[..., :1, :1]).all()


@pytest.mark.parametrize("name", ["pgd", "pgd_l2"])
def test_more_steps_and_more_restarts_never_look_weaker(
    name: str, model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    def margin(steps: int, restarts: int) -> Tensor:
        return attack(
            model,
            clips,
            labels,
            name,
            eps=3 / 255 if name == "pgd" else 0.6,
            step=1 / 255 if name == "pgd" else 0.2,
            steps=steps,
            restarts=restarts,
        ).margin

    few, more, most = margin(1, 1), margin(4, 1), margin(12, 1)
    assert (more >= few - 1e-5).all()
    assert (most >= more - 1e-5).all()
    assert (margin(4, 3) >= more - 1e-5).all()
    assert most.sum() > few.sum()


def test_more_queries_never_look_weaker(model: PixelModel, clips: Tensor, labels: Tensor) -> None:
    few = attack(model, clips, labels, "geo_trap", max_queries=9, eps=4 / 255).margin
    more = attack(model, clips, labels, "geo_trap", max_queries=60, eps=4 / 255).margin
    assert (more >= few - 1e-5).all()
    assert more.sum() > few.sum()


def test_a_bigger_budget_fools_at_least_as_many(
    model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    fooled = [
        int(attack(model, clips, labels, "pgd", eps=e / 255, random_start=False).success.sum())
        for e in (1, 4, 16, 64)
    ]
    assert fooled == sorted(fooled)
    assert fooled[-1] == len(clips)


def test_a_targeted_attack_moves_towards_its_target(
    model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    targets = (labels + 1) % 3
    with torch.no_grad():
        before = margins(model(clips.float() / 255), labels, targets)
    for name, options in (("fgsm", {}), ("pgd", {"eps": 64 / 255, "step": 8 / 255, "steps": 20})):
        result = attack(model, clips, labels, name, targets=targets, **options)
        assert (result.margin >= before - 1e-5).all()
        assert torch.equal(result.success, result.answers == targets)
    assert result.margin.sum() > before.sum()


def test_gradients_pass_the_normalisation() -> None:
    class Sum(nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            return torch.stack([clip[:, :, 0].sum((1, 2, 3)), clip[:, :, 2].sum((1, 2, 3))], 1)

    model = PixelModel(Sum(), mean=(0, 0, 0), std=(0.5, 1, 0.25), channel_order="bgr")
    pixels = torch.zeros(1, 1, 3, 1, 1, requires_grad=True)
    model(pixels)[0, 0].backward()  # channel 0 of BGR is blue
    assert pixels.grad.flatten().tolist() == [0, 0, 2]


def test_fgsm_equals_foolbox(model: PixelModel, clips: Tensor, labels: Tensor) -> None:
    foolbox = pytest.importorskip("foolbox")
    from marey.attacks.foolbox_adapter import foolbox_attack

    right = labels[1:]
    ours = attack(model, clips[1:], right, "fgsm", eps=8 / 255)
    theirs = foolbox_attack(
        foolbox.attacks.LinfFastGradientAttack(random_start=False),
        model,
        clips[1:],
        right,
        eps=8 / 255,
    )
    torch.testing.assert_close(ours.margin, theirs.margin)


def test_pgd_is_at_least_as_strong_as_foolbox_with_the_same_budget(
    model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    foolbox = pytest.importorskip("foolbox")
    from marey.attacks.foolbox_adapter import foolbox_attack

    ours = attack(
        model, clips, labels, "pgd", eps=3 / 255, step=1 / 255, steps=8, random_start=False
    )
    theirs = foolbox_attack(
        foolbox.attacks.LinfPGD(abs_stepsize=1 / 255, steps=8, random_start=False),
        model,
        clips,
        labels,
        eps=3 / 255,
    )
    assert (ours.margin >= theirs.margin - 1e-4).all()
    torch.testing.assert_close(ours.margin, theirs.margin, atol=0.05, rtol=0.05)


def test_flicker_terms_by_hand() -> None:
    offset = torch.zeros(1, 4, 3)
    offset[0, 0] = 1.0
    assert thickness(offset).item() == pytest.approx(0.25)
    # first differences 1, -1, 0, 0; second -2, 1, 0, 1: (1 + 1 + 4 + 1 + 1) / 4
    assert roughness(offset).item() == pytest.approx(2.0)
    logits = torch.log(torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]))
    loss = flicker_loss(logits, torch.tensor([0, 0, 0]), margin=0.05)
    torch.testing.assert_close(loss, torch.tensor([0.45, 0.05, 0.0]))


def test_identity_transforms_leave_the_noise_frame_alone() -> None:
    frame = torch.randn(1, 3, 6, 8)
    still = warp(frame, transform_matrices(torch.zeros(1, 2, 2), "translation"))
    torch.testing.assert_close(still, frame[:, None].expand(-1, 2, -1, -1, -1))
    for transform, freedom in FREEDOM.items():
        assert transform_matrices(torch.randn(2, 5, freedom), transform).shape == (2, 5, 3, 3)


def test_the_feature_attack_moves_each_frame_by_eps_and_raises_the_loss() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(
                torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
            )

        def forward(
            self, features: dict[str, Tensor], mask: Tensor | None = None
        ) -> dict[str, Tensor]:
            return {
                "logits": (features["visual"].mean(1) + features["audio"].mean(1)) @ self.weight.T
            }

    features = {"visual": torch.randn(2, 3, 4), "audio": torch.randn(2, 3, 4)}
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
    result = gat_feature_attack(Mean(), features, labels, eps=0.5)
    for name in features:
        lengths = (result["features"][name] - features[name]).norm(dim=2)
        torch.testing.assert_close(lengths, torch.full((2, 3), 0.5))
    loss = nn.functional.binary_cross_entropy_with_logits
    assert loss(result["logits"], labels.float()) > loss(result["clean_logits"], labels.float())


def test_what_is_wrong_is_said(model: PixelModel, clips: Tensor, labels: Tensor) -> None:
    with pytest.raises(UserError, match="unknown attack 'pdg'"):
        attack(model, clips, labels, "pdg")
    with pytest.raises(UserError, match="unknown option of attack 'pgd' 'epsilon'"):
        attack(model, clips, labels, "pgd", epsilon=1)
    with pytest.raises(UserError, match="uint8 clip"):
        attack(model, clips.float(), labels, "pgd")
    with pytest.raises(UserError, match=r"eps is a change of a pixel value in \(0, 1\], got 0.0"):
        attack(model, clips, labels, "pgd", eps=0.0)
    with pytest.raises(UserError, match="1 to 4 frames to change"):
        attack(model, clips, labels, "sparse", num_frames=5)


# ---- Auto-PGD, FAB, Square, query caps, threat models --------------------------------------------


def test_difference_of_logits_ratio_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, -1.0]])
    # -(z_y - max other) / (z_1st - z_3rd)
    assert dlr_loss(logits, torch.tensor([0])).item() == -(3 - 2) / (3 - 1)
    assert dlr_loss(logits, torch.tensor([2])).item() == (3 - 2) / (3 - 1)
    # -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2)
    found = targeted_dlr_loss(logits, torch.tensor([0]), torch.tensor([1]))
    assert found.item() == pytest.approx(-(3 - 1) / (3 - 0))
    for factor in (1e-3, 200.0):
        assert dlr_loss(factor * logits, torch.tensor([0])).item() == pytest.approx(-0.5)


def test_the_checkpoints_of_the_paper() -> None:
    # p = 0, .22, .41, .57, .70, .80, .87, .93, .99 of 100 steps
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


def test_the_projection_is_the_nearest_point_of_the_plane_in_the_box() -> None:
    point = torch.tensor([[0.2, 0.9, 0.5]])
    normal, offset = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([-2.6])
    found = project_linf(point, normal, offset)
    # 0.2 + d + 2 min(1, 0.9 + d) = 2.6 gives d = 0.4 with the second value at its bound
    assert torch.allclose(found, torch.tensor([[0.6, 1.0, 0.5]]), atol=1e-5)


@pytest.mark.parametrize("name", ["square", "geo_trap", "motion_excited", "random_noise"])
@pytest.mark.parametrize("cap", [8, 11, 30])
def test_no_clip_is_asked_about_more_often_than_the_cap(
    name: str, cap: int, model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    asked = model.queries
    result = attack(model, clips, labels, name, eps=1 / 255, max_queries=cap)
    assert int(result.queries_per_clip.max()) <= cap
    assert int(result.queries_per_clip.sum()) == result.queries == model.queries - asked
    # The first clip was wrong from the start: the first look and the last check.
    assert int(result.queries_per_clip[0]) == 2


def test_auto_pgd_is_not_weaker_than_pgd_and_dlr_does_not_mind_scaled_logits(
    model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    many = clips.repeat(3, 1, 1, 1, 1)
    answers = labels.repeat(3)
    box = {"eps": 24 / 255, "steps": 20}
    plain = attack(model, many, answers, "pgd", step=6 / 255, **box)
    for name in ("apgd_ce", "apgd_dlr", "apgd_t", "fab"):
        assert attack(model, many, answers, name, **box).success.sum() >= plain.success.sum()
    scaled = model.with_logits_times(1e4)
    found = attack(scaled, many, answers, "apgd_dlr", **box)
    assert found.success.sum() >= plain.success.sum()
    assert attack(scaled, many, answers, "apgd_ce", **box).success.sum() < found.success.sum()


def test_noise_of_the_motion_excited_attack_follows_the_picture() -> None:
    x = torch.arange(64.0)
    frame = (128 + 60 * torch.sin(x / 5))[None, :] + 40 * torch.sin(x / 7)[:, None]
    frames = torch.stack([frame.roll(2 * t, dims=1) for t in range(3)])
    clip = frames[None, :, None].expand(1, 3, 3, 64, 64).clamp(0, 255).to(torch.uint8)
    grids = motion_grids(clip)
    # The picture moves right by two pixels a frame: noise is looked up two pixels further left.
    shift = (grids[0, :, 16:48, 16:48, 0] - grids[0, :1, 16:48, 16:48, 0]) * 63 / 2
    assert shift[1].median() == pytest.approx(-2, abs=0.5)
    assert shift[2].median() == pytest.approx(-4, abs=1.0)


def test_the_threat_models_agree_with_the_budgets_of_their_attacks() -> None:
    for threat in (*SUITES["standard"], *SUITES["quick"]):
        for name in threat.attacks:
            options = threat.options(name)
            check_options(name, options)
            assert options.get("eps", threat.eps) == threat.eps
            assert threat.max_queries is None or options["max_queries"] == threat.max_queries
    with pytest.raises(TypeError):
        SUITES["standard"][0].attacks["fgsm"] = {}  # type: ignore[index]


def test_a_suite_attacks_what_stands_and_says_who_won(
    model: PixelModel, clips: Tensor, labels: Tensor
) -> None:
    threat = SUITES["quick"][0]
    found = withstand(model, clips, labels, threat, seed=0)
    assert not found.right[0]
    assert found.won_by[0] is None
    alone = attack(model, clips, labels, "apgd_ce", **threat.options("apgd_ce"))
    assert not (found.robust & alone.success).any()
    for robust, right, won in zip(found.robust, found.right, found.won_by, strict=True):
        assert bool(right) == (bool(robust) or won is not None)


def test_a_plain_module_is_attacked_and_wrong_labels_are_refused() -> None:
    class Brightness(torch.nn.Module):
        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            level = clip.mean((1, 2, 3, 4))
            return torch.stack([level, 0.5 - level], 1)

    clip = torch.full((2, 2, 3, 8, 8), 65, dtype=torch.uint8)
    found = attack(Brightness(), clip, torch.tensor([0, 0]), "pgd", eps=8 / 255, steps=2)
    assert bool((found.clip.float().mean() < 65).all())
    for labels in (torch.tensor([0, 2]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(UserError, match="label"):
            attack(Brightness(), clip, labels, "pgd", eps=8 / 255, steps=2)
