"""Alarms of gradient masking: signs that an attack failed, and not that a model is robust.

Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 3.1, and
Carlini et al., "On evaluating adversarial robustness", 2019, list the signs. Each alarm compares
two attacks on the same clips, of which one knows less or may do less and must not win more. A
robust accuracy on which an alarm fires is no bound on what an adversary can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.gradient_sign import fgsm, pgd
from marey.attacks.pixel_model import PixelModel
from marey.attacks.random_noise import random_noise
from marey.attacks.square import square

LEAST_CLIPS = 2
LEAST_SHARE = 0.05
"""An alarm needs this many clips more on the wrong side, and this share of those answered right."""
LARGE_EPS = 128 / 255
"""A budget at which the picture can be turned grey: no model keeps its accuracy."""
MAX_LARGE_ACCURACY = 0.1


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One sign of masking."""

    name: str
    fired: bool
    says: str
    """What was compared, with the numbers."""
    clips: int
    """Clips that were answered right before the attack: those that are compared."""
    weaker: float
    """Success of what must not win more, as a share of `clips`."""
    stronger: float
    """Success of what must win at least as much."""


def masking_evidence(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 10,
    max_queries: int = 100,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Run the attacks that the alarms compare; each clip on its own, so that parts can be joined.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        eps: largest change of a value of the result that is checked, in [0, 1].
        steps: gradients of the short attack; the long one has four times as many.
        max_queries: of each attack that uses answers only.
        generator: randomness; a fresh one with seed 0 when absent.

    Returns:
        Name -> bool (B,): "right" before any attack, "no_gradient" where the gradient of the
        cross-entropy is zero everywhere, and the success of "fgsm", "pgd", "rescaled_pgd" (logits
        divided by the lead of the first over the second), "long_pgd", "large_pgd", "square" and
        "random".
    """
    generator = generator or Generator(device=clip.device).manual_seed(0)
    pixels = (clip.float() / 255).requires_grad_(True)
    logits = model(pixels)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, pixels)
    lead = logits.detach().topk(2, dim=1).values
    factors = 1 / (lead[:, 0] - lead[:, 1]).clamp(min=1e-6)

    box: dict[str, Any] = {"eps": eps, "step": eps / 4, "generator": generator}
    found = {
        "right": logits.argmax(1) == labels,
        "no_gradient": gradient.flatten(1).abs().amax(1) == 0,
        "fgsm": fgsm(model, clip, labels, eps=eps).success,
        "pgd": pgd(model, clip, labels, steps=steps, **box).success,
        "long_pgd": pgd(model, clip, labels, steps=4 * steps, **box).success,
        "large_pgd": pgd(
            model, clip, labels, eps=LARGE_EPS, step=LARGE_EPS / 4, steps=2 * steps
        ).success,
        "square": square(
            model, clip, labels, eps=eps, max_queries=max_queries, generator=generator
        ).success,
        "random": random_noise(
            model, clip, labels, eps=eps, max_queries=max_queries, generator=generator
        ).success,
    }
    rescaled = []
    for i, factor in enumerate(factors.tolist()):
        same = model.with_logits_times(factor)
        rescaled.append(pgd(same, clip[i : i + 1], labels[i : i + 1], steps=steps, **box).success)
        model.queries += same.queries
    found["rescaled_pgd"] = torch.cat(rescaled)
    return found


def alarms_of(evidence: Mapping[str, Tensor]) -> list[Alarm]:
    """Compare the attacks of `masking_evidence` on the clips that were answered right."""
    right = evidence["right"]
    n = int(right.sum())
    won = {name: values[right].double() for name, values in evidence.items()}

    def share(name: str) -> float:
        return float(won[name].mean()) if n else 0.0

    def compared(name: str, weaker: str, stronger: str, says: str) -> Alarm:
        lead = float((won[weaker] - won[stronger]).sum())
        return Alarm(
            name=name,
            fired=lead >= max(LEAST_CLIPS, LEAST_SHARE * n),
            says=says.format(share(weaker), share(stronger)),
            clips=n,
            weaker=share(weaker),
            stronger=share(stronger),
        )

    left = 1 - share("large_pgd")
    missing = share("no_gradient")
    return [
        compared(
            "logit scale",
            "rescaled_pgd",
            "pgd",
            "with the logits rescaled, decisions unchanged, PGD wins {:.0%} instead of {:.0%}",
        ),
        Alarm(
            name="no gradient",
            fired=missing * n >= LEAST_CLIPS and missing > 0.01,
            says=f"the gradient of the cross-entropy is zero for {missing:.0%} of the clips",
            clips=n,
            weaker=missing,
            stronger=0.0,
        ),
        compared(
            "black box beats white box",
            "square",
            "pgd",
            "Square, which sees answers only, wins {:.0%}, PGD with gradients {:.0%}",
        ),
        compared(
            "more steps do not help",
            "fgsm",
            "long_pgd",
            "one step wins {:.0%}, four times as many steps as PGD {:.0%}",
        ),
        Alarm(
            name="a larger budget does not help",
            fired=left > MAX_LARGE_ACCURACY and left * n >= LEAST_CLIPS,
            says=f"at 128 grey levels PGD still leaves {left:.0%} right",
            clips=n,
            weaker=left,
            stronger=MAX_LARGE_ACCURACY,
        ),
        compared(
            "random beats gradient",
            "random",
            "pgd",
            "random noise wins {:.0%}, PGD with gradients {:.0%}",
        ),
    ]


def reliability(alarms: list[Alarm]) -> dict[str, Any]:
    """Return the alarms as JSON types, and whether the attacks' result can be relied on."""
    return {
        "reliable": not any(alarm.fired for alarm in alarms),
        "alarms": [asdict(alarm) for alarm in alarms],
    }
