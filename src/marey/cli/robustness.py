"""`marey corrupt`: a perturbed copy of a data set; `marey robustness`: measure models under natural and adversarial
change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _severities(text: str) -> list[int]:
    from marey.errors import UserError

    try:
        chosen = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"--severities is a list such as 1,3,5, got '{text}'") from error
    if not chosen or any(severity not in (1, 2, 3, 4, 5) for severity in chosen):
        raise UserError(f"severity is one of 1, 2, 3, 4, 5, got '{text}'")
    return sorted(set(chosen))


def _kinds(text: str, profile: str) -> list[str]:
    """Return kinds from "all", a profile's own ("profile"), categories or names, comma-separated."""
    from marey.errors import unknown_name
    from marey.robustness.corruptions import CATEGORIES, KINDS, PROFILES

    chosen: list[str] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        if part == "all":
            chosen += KINDS
        elif part == "profile":
            if profile not in PROFILES:
                raise unknown_name("corruption profile", profile, PROFILES)
            chosen += PROFILES[profile]
        elif part in CATEGORIES:
            chosen += [name for name, kind in KINDS.items() if kind.category == part]
        elif part in KINDS:
            chosen.append(part)
        elif part != "none":
            raise unknown_name("corruption", part, [*KINDS, *CATEGORIES, "all", "profile", "none", "random"])
    return list(dict.fromkeys(chosen))


def corrupt(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled videos (see the data contract).")],
    out: Annotated[Path, typer.Option(help="Folder of the copy, for example DIR-P.")],
    corruption: Annotated[str, typer.Option(help="Names, categories, 'profile' (all of --profile), 'all', or 'random': "
                                                 "one draw per video, as in ROSE.")] = "random",
    severity: Annotated[str, typer.Option("--severity", "--severities", help="1 to 5, or a list such as 1,3,5; random "
                                                                             "draws from the list.")] = "1,2,3,4,5",
    profile: Annotated[str, typer.Option(help="Constants: rose, imagenet-c or mini-kinetics-c.")] = "rose",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; 0 keeps the source's.", min=0)] = 256,
    dataset: Annotated[str | None, typer.Option(help="Official layout by name.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.", min=1)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a folder that holds something else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a perturbed copy of a data set; run again to go on after a stop."""
    from marey.cli.output import print_json, progress, say
    from marey.datasets import open_dataset
    from marey.robustness.corruptions import source_profile
    from marey.robustness.perturb_dataset import ROSE_RANDOM, perturb_dataset

    index = open_dataset(data, dataset=dataset)
    if split is not None:
        index = index.split(split)
    kinds = [ROSE_RANDOM] if corruption == ROSE_RANDOM else _kinds(corruption, profile)
    borrowed = [f"{kind} ({source_profile(kind, profile)})" for kind in kinds
                if kind != ROSE_RANDOM and source_profile(kind, profile) != profile]
    if borrowed:
        say(f"not in profile {profile}, constants of another: {', '.join(borrowed)}")
    result = perturb_dataset(index, out, kinds, _severities(severity), profile=profile, seed=seed,
                             short_side=short_side, workers=workers, force=force, announce=say,
                             progress=lambda items, total: progress(items, "corrupting", total))
    for entry in result["failed"]:
        say(f"marey: {entry['error']}")
    if as_json:
        print_json(result)
    else:
        print(f"{out}: {result['written']} written, {result['kept']} already there, {len(result['failed'])} failed")
    if result["failed"]:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(corrupt)
