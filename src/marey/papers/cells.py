"""What a study of a paper is made of: rows of its tables as data, and cells, each one row at one
seed."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from marey.training.config import TrainConfig, override


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """What the cells of a study may depend on."""

    scale: str = "mini"
    """"mini" runs on two CPU cores with data made here; "full" is the paper's setting and needs its
    data set."""
    data: str | None = None
    """The user's data (see the data contract), or None for what the study makes itself."""
    seeds: int = 3
    """Number of seeds of every cell, counted from 0."""
    device: str = "cpu"
    """Torch device the cells train on."""
    cache: Path = Path("cache")
    """Folder for what cells share (renders, features); made on demand."""
    init: str | None = None
    """Full scale: the weights that the cells start from, as `model.init_from` takes them."""
    set: tuple[str, ...] = ()
    """Full scale: settings changed in every cell, as `marey train --set` takes them."""

    @property
    def train_device(self) -> Literal["cpu", "auto"]:
        """Return the setting `train.device` of the cells: "auto" finds the accelerator that
        `device` names."""
        return "cpu" if self.device == "cpu" else "auto"

    @property
    def data_name(self) -> str:
        """Return the name of the user's data: that of its folder."""
        return Path(str(self.data)).resolve().name

    def at_full_scale(self, config: TrainConfig, seed: int) -> TrainConfig:
        """Return a configuration on the user's data, at a seed, on `device` in its precision, with
        `init` and `set` applied last.

        Raises:
            UserError: if a setting is unknown or its value has another type.
        """
        precision: Literal["fp32", "bf16"] = "fp32" if self.device == "cpu" else "bf16"
        train = replace(config.train, seed=seed, precision=precision, device=self.train_device)
        config = replace(config, data=replace(config.data, path=self.data), train=train)
        start = [] if self.init is None else [f"model.init_from={json.dumps(self.init)}"]
        return override(config, [*start, *self.set])

    @property
    def changes(self) -> dict[str, Any]:
        """Return what `init` and `set` change, for the settings of a cell; empty without them."""
        given = {"init": self.init, "set": list(self.set)}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a paper's table: what it changes in a base configuration, and the paper's
    numbers."""

    name: str
    """Unique within the study, such as "C-C +L_ord"."""
    table: str = ""
    """Table of the paper the line belongs to, such as "Table 1"."""
    base: str = ""
    """Name of the base configuration, where it is not the study's own."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Setting -> value, as `marey train --set` takes them: {"optim.lr": 0.0035}; a term of weight 0
    is left out."""
    paper: Mapping[str, float] | None = None
    """The paper's numbers by metric; None where the paper has no such line."""
    note: str = ""
    """A remark printed beside the line, such as "not in the paper"."""
    priority: int = 1
    """As of `Cell`."""
    seconds: float = 35.0
    """Expected wall time at mini scale, where the study does not compute it."""

    def configure(self, base: TrainConfig) -> TrainConfig:
        """Return the base configuration as this line changes it.

        Raises:
            UserError: if a setting is unknown or its value has another type.
        """
        return override(base, [f"{key}={json.dumps(value)}" for key, value in self.set.items()])


R = TypeVar("R", bound=Row)


def read_tables(study: str) -> dict[str, Any]:
    """Return what `<study>.toml` beside this file holds: a paper's tables as data."""
    path = Path(__file__).with_name(f"{study}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def rows_of(tables: Mapping[str, Any], key: str, kind: type[R]) -> tuple[R, ...]:
    """Return the rows of one table of `read_tables`.

    The settings that a row's `use` names in the file come before those of its own `set`.
    """
    rows = []
    for entry in tables[key]:
        fields = dict(entry)
        settings: dict[str, Any] = {}
        for name in fields.pop("use", ()):
            settings |= tables["settings"][name]
        rows.append(kind(**fields | {"set": settings | fields.get("set", {})}))
    return tuple(rows)


@dataclass(frozen=True)
class Cell:
    """One number, or one line of numbers, of a paper's table, at one seed."""

    name: str
    """Unique within the study; what `--cells` selects (patterns with * work)."""
    seed: int
    """Seed of everything random in the cell."""
    run: Callable[[], dict[str, Any]]
    """Computes the line: metric -> number, in the units of `paper`; other values are kept but not
    tabulated."""
    estimate_seconds: float
    """Expected wall time on the stated scale; replaced by what this cell took before, where that is
    known."""
    paper: Mapping[str, float] | None = None
    """The paper's line under the same metric names; None where the paper has none."""
    priority: int = 0
    """Lower runs first; the paper's main contrast is 0 and gets all its seeds before the rest
    starts."""
    table: str = ""
    """Table of the paper the line belongs to."""
    note: str = ""
    """A remark printed beside the line."""
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON values the result depends on; a stored result under other settings is run again."""
    needs_data: bool = True
    """Whether the study's `check_data` must pass before it runs."""


def cell_path(out: Path, name: str, seed: int) -> Path:
    """Return where a cell's result lies: `<out>/cells/<name as a file name>-seed<seed>.json`."""
    spelled = name.replace("+", "plus-").replace("×", "x")
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", spelled).strip("-").lower()
    return out / "cells" / f"{slug}-seed{seed}.json"


def result_path(out: Path, cell: Cell) -> Path:
    """Return where a cell's result lies."""
    return cell_path(out, cell.name, cell.seed)


def cells_of(
    options: ReproduceOptions, row: Row, run: Callable[[int], dict[str, Any]], **fields: Any
) -> Iterator[Cell]:
    """Yield the cells of a row, one a seed; `run` takes the seed, and `fields` replaces what the
    row says."""
    said: dict[str, Any] = {
        "name": row.name,
        "estimate_seconds": row.seconds,
        "paper": row.paper,
        "priority": row.priority,
        "table": row.table,
        "note": row.note,
    }
    for seed in range(options.seeds):
        yield Cell(seed=seed, run=functools.partial(run, seed), **said | fields)
