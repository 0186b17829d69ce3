"""The table of trust in a card says what was measured, and what was not."""

from __future__ import annotations

from marey.metrics.trust_card import run_card, trust_table

FITTED = {
    "calibrated": True,
    "temperature": 1.25,
    "trust": {
        "reason": None,
        "num_videos": 120,
        "num_groups": 20,
        "calibration": {
            "accuracy": 0.8,
            "ece": 0.05,
            "ece_before": 0.15,
            "ece_noise_floor": 0.1,
            "brier": 0.2,
            "brier_before": 0.25,
            "aurc": 0.03,
            "aurc_before": 0.03,
        },
        "unknown": {
            "near_score": "combined",
            "far_score": "residual",
            "false_alarm_rate": 0.042,
            "near": {
                name: {"auroc": value, "fpr95": 0.6}
                for name, value in (
                    ("combined", 0.82),
                    ("max_probability", 0.74),
                    ("energy", 0.69),
                    ("knn", 0.76),
                )
            },
            "far": None,
        },
        "set": {"measured": {"coverage": 0.91, "mean_size": 1.3}},
    },
}


def test_the_chosen_score_stands_beside_the_baselines() -> None:
    table = "\n".join(trust_table(FITTED))
    assert "| calibration error, its noise floor at this size | 0.050, 0.100 |" in table
    assert "combined 0.82, max_probability 0.74, energy 0.69, knn 0.76" in table
    assert "| AUROC for other footage | not measured (residual decides) |" in table
    assert "| sets of 90 %: coverage, mean size | 91.0%, 1.30 |" in table
    assert "| called unknown by mistake | 4.2% |" in table


def test_what_was_not_fitted_is_said() -> None:
    assert trust_table(None) == ["Trust: nothing was fitted; probabilities are not calibrated."]
    few = {"trust": {"reason": "not calibrated: 12 videos, at least 40 are needed"}}
    assert trust_table(few) == ["Trust: not calibrated: 12 videos, at least 40 are needed."]


def test_the_card_of_a_run_names_its_facts() -> None:
    text = run_card("A run", {"recipe": "sevitar_folder"}, FITTED)
    assert text.startswith("# A run\n\n- recipe: sevitar_folder\n")
    assert "120 videos of 20 groups" in text
