"""`marey corrupt`: a perturbed copy of a data set; `marey robustness`: measure models under natural
and adversarial change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import (
    BatchSize,
    Dataset,
    Device,
    Json,
    LabelledVideos,
    Limit,
    MeasuredSplit,
    Profile,
    RenderSeed,
    Workers,
)


def parse_severities(text: str) -> list[int]:
    from marey.errors import UserError

    try:
        chosen = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"--severities is a list such as 1,3,5, got '{text}'") from error
    if not chosen or any(severity not in (1, 2, 3, 4, 5) for severity in chosen):
        raise UserError(f"severity is one of 1, 2, 3, 4, 5, got '{text}'")
    return sorted(set(chosen))


def parse_kinds(text: str, profile: str) -> list[str]:
    """Return kinds from "all", a profile's own ("profile"), categories or names,
    comma-separated."""
    from marey.corruptions import CATEGORIES, KINDS, PROFILES
    from marey.errors import unknown_name

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
            raise unknown_name(
                "corruption", part, [*KINDS, *CATEGORIES, "all", "profile", "none", "random"]
            )
    return list(dict.fromkeys(chosen))


def corrupt(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled videos (see the data contract).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the copy, for example DIR-P.")],
    corruption: Annotated[
        str,
        typer.Option(
            help="Names, categories, 'profile' (all of --profile), 'all', or 'random': "
            "one draw per video, as in ROSE."
        ),
    ] = "random",
    severity: Annotated[
        str,
        typer.Option(
            "--severity",
            "--severities",
            help="1 to 5, or a list such as 1,3,5; random draws from the list.",
        ),
    ] = "1,2,3,4,5",
    profile: Profile = "rose",
    seed: RenderSeed = 0,
    short_side: Annotated[
        int, typer.Option(help="Pixels of the shorter side; 0 keeps the source's.", min=0)
    ] = 256,
    within_actions: Annotated[
        float | None,
        typer.Option(
            help="Untrimmed video: change only this share of every annotated action, around its "
            "middle (THUMOS14-C: 0.01, 0.05, 0.1)."
        ),
    ] = None,
    dataset: Dataset = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    workers: Workers = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a folder that holds something else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a perturbed copy of a data set; run again to go on after a stop."""
    from marey.cli.output import print_json, progress, say
    from marey.corruptions.profiles import source_profile
    from marey.datasets import open_dataset
    from marey.datasets.perturb import perturb_dataset
    from marey.datasets.perturb_plan import ROSE_RANDOM

    index = open_dataset(data, dataset=dataset)
    if split is not None:
        index = index.split(split)
    kinds = [ROSE_RANDOM] if corruption == ROSE_RANDOM else parse_kinds(corruption, profile)
    borrowed = [
        f"{kind} ({source_profile(kind, profile)})"
        for kind in kinds
        if kind != ROSE_RANDOM and source_profile(kind, profile) != profile
    ]
    if borrowed:
        say(f"not in profile {profile}, constants of another: {', '.join(borrowed)}")
    result = perturb_dataset(
        index,
        out,
        kinds,
        parse_severities(severity),
        profile=profile,
        seed=seed,
        short_side=short_side,
        within_actions=within_actions,
        workers=workers,
        force=force,
        announce=say,
        progress=lambda items, total: progress(items, "corrupting", total),
    )
    for entry in result["failed"]:
        say(f"marey: {entry['error']}")
    if as_json:
        print_json(result)
    else:
        print(
            f"{out}: {result['written']} written, {result['kept']} already there, "
            f"{len(result['failed'])} failed"
        )
    if result["failed"]:
        raise typer.Exit(1)


def robustness(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Names, folders, hf:, torchvision:, or module:function."
        ),
    ],
    data: LabelledVideos,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("robustness-report"),
    corruptions: Annotated[
        str, typer.Option(help="Names, categories, 'profile', 'all' or 'none', comma-separated.")
    ] = "all",
    severities: Annotated[str, typer.Option(help="List from 1 (mild) to 5.")] = "1,2,3,4,5",
    profile: Profile = "rose",
    attacks: Annotated[
        str,
        typer.Option(
            help="'standard' or 'quick' (threat models, with alarms of masked gradients), attack "
            "names, 'all' or 'none', comma-separated."
        ),
    ] = "none",
    attack_set: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of an attack: pgd.steps=20, pgd.eps=8/255 (pixel values in [0, 1])."
        ),
    ] = None,
    shuffles: Annotated[
        int, typer.Option(help="Shuffles per video for order reliance; 0: none.", min=0)
    ] = 4,
    reference: Annotated[
        str | None, typer.Option(help="Model that mCE is relative to; default: the first.")
    ] = None,
    dataset: Dataset = None,
    split: MeasuredSplit = None,
    limit: Limit = None,
    at: Annotated[
        str,
        typer.Option(
            help="Where pixels are changed: 'model' (its own size), 'source' (the video's), or a "
            "side in pixels such as 224, resized to the model afterwards."
        ),
    ] = "model",
    max_frames: Annotated[
        int, typer.Option(help="Source frames per video; the middle of longer ones.", min=1)
    ] = 300,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew where --out holds another report.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure models under corruptions and attacks, and write report.html; run again to go on after
    a stop."""
    import shlex
    import sys

    from marey import __version__
    from marey.attacks import list_attacks
    from marey.attacks.threat_models import SUITES
    from marey.cli.output import counted, print_json, progress, say
    from marey.datasets import open_dataset
    from marey.errors import UserError
    from marey.evaluation.pose_candidate import PoseCandidate
    from marey.evaluation.robustness import BenchmarkConfig, open_candidate, run
    from marey.evaluation.robustness_report import leak_of, write_report
    from marey.evaluation.robustness_summary import (
        choose_videos,
        describe_kinds,
        seen_videos,
        settings_of,
        summarise,
    )

    chosen = [part.strip() for part in attacks.split(",") if part.strip() not in ("", "none")]
    suites = [name for name in chosen if name in SUITES]
    if len(suites) > 1:
        raise UserError(f"--attacks takes one suite, got {' and '.join(suites)}")
    names = list_attacks() if "all" in chosen else [n for n in chosen if n not in SUITES]
    config = BenchmarkConfig(
        corruptions=tuple(parse_kinds(corruptions, profile)),
        severities=tuple(parse_severities(severities)),
        profile=profile,
        attacks=tuple(names),
        attack_options=_attack_options(attack_set or []),
        shuffles=shuffles,
        suite=suites[0] if suites else None,
        at=int(at) if at.isdigit() else at,
        max_frames=max_frames,
        batch_size=batch_size,
        seed=seed,
    )
    if reference is not None and reference not in models:
        raise UserError(f"--reference {reference} is none of the models given: {', '.join(models)}")
    if len(set(models)) < len(models):
        raise UserError("a model is named twice; name each once")
    index = choose_videos(open_dataset(data, dataset=dataset), split, limit)
    if index.note:
        say(index.note)
    candidates = [open_candidate(name, index.class_names, device) for name in models]
    for candidate in candidates:
        if isinstance(candidate, PoseCandidate) and candidate.by_meaning:
            say(
                f"{candidate.name} was not trained on all of these classes: they are ranked by the "
                "meaning of their names"
            )
        if (config.attacks or config.suite) and not candidate.has_gradients:
            say(f"{candidate.name} is not attacked: no gradients reach the pixels of its input")
    if force:
        for leftover in ("settings.json", "answers.jsonl"):
            (out / leftover).unlink(missing_ok=True)
    say(
        f"{counted(len(index), 'video')}, {counted(len(config.corruptions), 'corruption')} x "
        f"{counted(len(config.severities), 'severity')}, {counted(len(config.attacks), 'attack')}, "
        f"{counted(len(models), 'model')}"
    )
    entries = []
    for entry in progress(run(index, candidates, config, out), "measuring", len(index)):
        entries.append(entry)
        if "error" in entry:
            say(f"marey: {entry['error']}")
    report = summarise(
        entries,
        models,
        index.class_names,
        config,
        models.index(reference) if reference else 0,
        seen_videos(index, candidates),
    )
    report |= {
        "settings": settings_of(config),
        "kinds": describe_kinds(config),
        "version": __version__,
        "command": shlex.join(["marey", *sys.argv[1:]]),
    }
    written = write_report(report, out)
    if as_json:
        print_json(report)
    else:
        for name, model in report["models"].items():
            if leak := leak_of(name, model):
                print(leak)
            line = f"{name}: clean {model['clean_accuracy']:.1%}"
            if "mpc" in model:
                line += f", mPC {model['mpc']:.1%}, relative robustness {model['gamma_r'] or 0:.3f}"
            for attack, found in model["attacks"].items():
                line += f", {attack} {found['robust_accuracy']:.1%}" if found else ""
            print(line)
            if threats := model["threats"]:
                for threat, found in threats["models"].items():
                    print(f"  {threat}: {found['robust_accuracy']:.1%} stay right")
                for alarm in threats["alarms"]:
                    if alarm["fired"]:
                        print(f"  UNRELIABLE, {alarm['name']}: {alarm['says']}")
        say("wrote " + ", ".join(str(path) for path in written))
    if report["unreadable"]:
        raise typer.Exit(1)


def _attack_options(settings: list[str]) -> dict[str, dict[str, Any]]:
    """Return {"pgd": {"steps": 20}} from ["pgd.steps=20"]."""
    from marey.attacks import list_attacks
    from marey.errors import UserError, unknown_name

    options: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        name, _, option = key.partition(".")
        if not option or not value:
            raise UserError(
                "--attack-set is written attack.option=value, for example pgd.steps=20, got "
                f"'{setting}'"
            )
        if name not in list_attacks():
            raise unknown_name("attack", name, list_attacks())
        options.setdefault(name, {})[option] = _value(value)
    return options


def _value(text: str) -> Any:
    """Return a number, a fraction such as 8/255, another JSON value, or the text itself."""
    import json

    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else json.loads(text)
    except (ValueError, ZeroDivisionError):
        return text


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(corrupt)
    app.command()(robustness)
