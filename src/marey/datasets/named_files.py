"""Labels told by file names: `daria_bend.avi` and `BendDaria.mp4` in one folder, `daria/bend.avi`.

A word of a name is the label where nearly every word at its place is an action. People's names and
actions take turns in the same way, so only a list of actions tells which is which.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from marey.datasets.index import DatasetIndex, Sample, is_output, videos_below

_ACTION = re.compile(
    "answer|archery|basketball|bend|bike|bow|box|brush|call|carry|cartwheel|catch|chew|clap|"
    "clean|climb|close|comb|cook|crawl|crouch|cut|cycle|dance|dive|dribble|drink|drive|drop|"
    "eat|fall|fence|fight|flip|football|gesture|golf|greet|handclap|handshake|handwave|hit|"
    "hop|hug|jack|jog|jump|kick|kiss|kneel|laugh|lie|lift|lunge|march|nod|open|phone|pick|"
    "pjump|point|pour|pull|pullup|punch|push|pushup|read|ride|roll|row|run|shake|shoot|sign|"
    "sit|situp|skate|ski|skip|slap|smile|smoke|sneak|soccer|spin|squat|stand|stir|stretch|"
    "surf|swim|swing|talk|tennis|throw|turn|twist|type|volleyball|walk|wash|wave|write"
)
"""What videos of single actions are named after."""

MOST = 0.8
"""Share of the words at a place that must be actions, and of folders that must hold an action."""

FEWEST_FOLDERS = 3
"""Two may be classes that the same actions occur in, such as "day" and "night"."""


def read_named_files(root: Path) -> DatasetIndex | None:
    """Read labels from file names; None where folders are classes, or names tell no action.

    Names are read where all videos lie in `root` itself, or where its folders look like people:
    three or more, none named after an action, with the same actions in nearly all of them. Those
    folders are groups.
    """
    folders = sorted(
        entry
        for entry in root.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not is_output(entry)
    )
    inside = [(folder, video) for folder in folders for video in videos_below(folder)]
    here = [video for video in videos_below(root) if video not in folders]
    if here and not inside:
        groups: list[str | None] = [None] * len(here)
    elif inside and not here and not any(map(_is_action, _all_words(folders))):
        here, groups = [video for _, video in inside], [folder.name for folder, _ in inside]
    else:
        return None
    labels = labels_of_names([video.stem for video in here])
    if labels is None or len(set(labels)) < 2:
        return None
    if groups[0] is not None and not _like_people(groups, labels):
        return None
    told = f"labels: read from file names, such as '{labels[0]}' of {here[0].relative_to(root)}"
    return DatasetIndex(
        samples=tuple(
            Sample(path=video, label=label, group=group)
            for video, label, group in zip(here, labels, groups, strict=True)
        ),
        class_names=tuple(sorted(set(labels))),
        name="named files",
        root=root,
        note=told + ("; folders are groups" if groups[0] is not None else ""),
    )


def _like_people(folders: list[str | None], labels: list[str]) -> bool:
    """Whether nearly every folder holds nearly every action."""
    pairs = set(zip(folders, labels, strict=True))
    filled = len(pairs) / (len(set(folders)) * len(set(labels)))
    return len(set(folders)) >= FEWEST_FOLDERS and filled >= MOST


def labels_of_names(stems: list[str]) -> list[str] | None:
    """Return the action in every file name, or None where no place of the names holds actions.

    A number behind an action counts repetitions ("run1", "run2") unless it comes as often as
    other actions do ("wave1", "wave2" of everybody).

    >>> labels_of_names(["daria_bend", "eli_bend", "daria_run1", "daria_run2", "eli_run"])
    ['bend', 'bend', 'run', 'run', 'run']
    """
    words = [_words(stem) for stem in stems]
    shortest = min(map(len, words))
    columns = [[name[place] for name in words] for place in range(-shortest, shortest)]
    shares = [sum(map(_is_action, column)) / len(column) for column in columns]
    if not shares or max(shares) < MOST:
        return None
    column = columns[shares.index(max(shares))]
    counts = Counter(column)
    usual = sorted(counts.values())[len(counts) // 2]
    fewest = max(usual, 2)
    return [word if counts[word] >= fewest else word.rstrip("0123456789") for word in column]


def spaced(stem: str) -> str:
    """Return a name with a space between words that only capitals tell apart.

    >>> spaced("BendDaria_2")
    'Bend Daria_2'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", " ", stem)


def _words(stem: str) -> list[str]:
    """Return the words of a name in lower case, with a number right behind them.

    >>> _words("Person2-KickHigh_01"), _words("daria_wave1")
    (['person2', 'kick', 'high'], ['daria', 'wave1'])
    """
    return re.findall(r"[a-z]+\d*", spaced(stem).lower())


def _all_words(folders: list[Path]) -> list[str]:
    return [word for folder in folders for word in _words(folder.name)]


def _is_action(word: str) -> bool:
    """Whether a word is an action, also in -ing: "waving", "running2"."""
    word = word.rstrip("0123456789")
    stem = word.removesuffix("ing")
    doubled = len(stem) > 2 and stem[-1] == stem[-2]
    forms = {word, stem, stem + "e", stem[:-1] if doubled else stem}
    return any(_ACTION.fullmatch(form) for form in forms)
