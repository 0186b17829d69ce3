"""Robustness metrics: accuracy under corruptions, relative to clean accuracy or to a reference
model.

Accuracies are fractions in [0, 1]; a table of them is {kind: {severity: accuracy}}. Bootstrap
intervals and paired tests are in `metrics.accuracy` and `metrics.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from marey.errors import UserError

Accuracies = Mapping[str, Mapping[int, float]]


def absolute_robustness(clean: float, perturbed: float) -> float:
    """Return gamma^a = 1 - (A_clean - A_perturbed): 1 means no drop, above 1 a gain.

    Schiappa et al., CVPR 2023: accuracies in percent are divided by 100; ours are fractions.
    """
    return 1 - (clean - perturbed)


def relative_robustness(clean: float, perturbed: float) -> float | None:
    """Return gamma^r = 1 - (A_clean - A_perturbed) / A_clean = A_perturbed / A_clean; None where
    A_clean is 0.

    Schiappa et al., CVPR 2023. For a model trained on perturbations give that model's own clean
    accuracy.
    """
    return 1 - (clean - perturbed) / clean if clean > 0 else None


def mean_over_severities(by_severity: Mapping[int, float]) -> float:
    """Return the mean accuracy of one kind over its severities."""
    if not by_severity:
        raise UserError("a mean over severities needs at least one accuracy, got none")
    return sum(by_severity.values()) / len(by_severity)


def mean_performance_under_corruption(accuracies: Accuracies) -> float:
    """Return mPC: the mean accuracy over kinds and severities (Yi et al., NeurIPS 2021)."""
    if not accuracies:
        raise UserError("mPC needs at least one corruption, got none")
    return sum(mean_over_severities(row) for row in accuracies.values()) / len(accuracies)


def relative_performance_under_corruption(clean: float, accuracies: Accuracies) -> float | None:
    """Return rPC = mPC / clean accuracy (Yi et al.); None where the clean accuracy is 0."""
    return mean_performance_under_corruption(accuracies) / clean if clean > 0 else None


def _error_sum(by_severity: Mapping[int, float]) -> float:
    return sum(1 - accuracy for accuracy in by_severity.values())


def corruption_error(model: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """Return CE = sum_s E_model(s) / sum_s E_reference(s) of one kind; None where the reference
    makes no error.

    Hendrycks and Dietterich, ICLR 2019. The reference is a model the report names.
    """
    _same_severities(model, reference)
    total = _error_sum(reference)
    return _error_sum(model) / total if total > 0 else None


def relative_corruption_error(
    model: Mapping[int, float],
    model_clean: float,
    reference: Mapping[int, float],
    reference_clean: float,
) -> float | None:
    """Return the relative CE: the same ratio of the errors added to the clean error.

    (sum_s E_f(s) - S E_f,clean) / (sum_s E_ref(s) - S E_ref,clean), S severities; None where the
    reference adds none.
    """
    _same_severities(model, reference)
    added = _error_sum(reference) - len(reference) * (1 - reference_clean)
    return (_error_sum(model) - len(model) * (1 - model_clean)) / added if added > 0 else None


def _same_severities(model: Mapping[int, float], reference: Mapping[int, float]) -> None:
    if set(model) != set(reference):
        raise UserError(
            f"model and reference need the same severities, got {sorted(model)} and "
            f"{sorted(reference)}"
        )


def mean_corruption_error(model: Accuracies, reference: Accuracies) -> float | None:
    """Return mCE: the mean CE over the kinds both have; None where no kind has one."""
    errors = [corruption_error(model[kind], reference[kind]) for kind in model if kind in reference]
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else None


def category_means(values: Mapping[str, float], category_of: Mapping[str, str]) -> dict[str, float]:
    """Return the mean of a per-kind value over the kinds of every category (Schiappa et al.)."""
    groups: dict[str, list[float]] = {}
    for kind, value in values.items():
        groups.setdefault(category_of[kind], []).append(value)
    return {category: sum(group) / len(group) for category, group in groups.items()}


def fooling_rate(
    clean_predictions: Tensor, changed_predictions: Tensor, labels: Tensor
) -> float | None:
    """Return the share of originally correct samples whose predicted class changes; None if none
    was correct.

    Args:
        clean_predictions, changed_predictions, labels: int, (N,).
    """
    correct = clean_predictions == labels
    if not bool(correct.any()):
        return None
    return float((changed_predictions[correct] != clean_predictions[correct]).double().mean())
