"""Run a paper's tables: cells with seeds, a time budget, one JSON per cell and seed, ours beside the paper's numbers.

A study is a module named in `REPRODUCE` with a function `cells(options) -> list[Cell]`, and, if it has something to
say about its own numbers, a function `reading(rows) -> str` that returns the honest sentence of its results file, and,
if it draws, `page(out, rows, cache) -> Path` that writes an HTML page beside the tables.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from marey.errors import UserError, unknown_name
from marey.files import write_json, write_text

REPRODUCE: dict[str, str] = {
    "direcformer": "marey.papers.direcformer",
    "gat": "marey.papers.gat",
    "sevitar": "marey.papers.sevitar",
    "hmdb_study": "marey.papers.hmdb_study",
    "action_transformer": "marey.papers.action_transformer",
}
"""Study name -> the module that lists its cells."""

SCALES = ("mini", "full")


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """What a study's `cells(options)` may depend on."""

    scale: str = "mini"
    """"mini" runs on two CPU cores with data made here; "full" is the paper's setting and needs its data set."""
    data: str | None = None
    """The user's data (see the data contract), or None for what the study makes itself."""
    seeds: int = 3
    """Number of seeds of every cell, counted from 0."""
    device: str = "cpu"
    """Torch device the cells train on."""
    cache: Path = Path("cache")
    """Folder for what cells share (renders, features); made on demand."""


@dataclass(frozen=True)
class Cell:
    """One number, or one line of numbers, of a paper's table, at one seed."""

    name: str
    """Unique within the study, such as "C-C +L_ord"; what `--cells` selects (patterns with * work)."""
    seed: int
    """Seed of everything random in the cell."""
    run: Callable[[], dict[str, Any]]
    """Computes the line: metric name -> number, in the units of `paper`; other values are kept but not tabulated."""
    estimate_seconds: float
    """Expected wall time on the stated scale; replaced by what this cell took before, where that is known."""
    paper: dict[str, float] | None = None
    """The paper's line under the same metric names; None where the paper has none."""
    priority: int = 0
    """Lower runs first; the paper's main contrast is 0 and gets all its seeds before the rest starts."""
    table: str = ""
    """Table of the paper the line belongs to, such as "Table 1"."""
    note: str = ""
    """A remark printed beside the line, such as "not in the paper"."""
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON values the result depends on; a stored result under other settings is run again."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the final table: a cell over its seeds."""

    name: str
    table: str
    note: str
    paper: dict[str, float]
    values: dict[str, list[float]]
    """Metric -> one value per finished seed."""
    seeds_run: list[int]
    seeds_planned: list[int]
    errors: list[str]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the finished seeds, None where there is none."""
        return statistics.fmean(self.values[metric]) if self.values.get(metric) else None

    def spread(self, metric: str) -> float | None:
        """Return the sample standard deviation over seeds, None for fewer than two."""
        values = self.values.get(metric, [])
        return statistics.stdev(values) if len(values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON types, unrun cells as `"status": "not run"`."""
        ours = {metric: {"mean": self.mean(metric), "spread": self.spread(metric), "values": values}
                for metric, values in self.values.items()}
        status = "failed" if self.errors else "not run" if not self.seeds_run else "run"
        return {"cell": self.name, "table": self.table, "status": status, "ours": ours, "paper": self.paper,
                "seeds_run": self.seeds_run, "seeds_planned": self.seeds_planned, "note": self.note,
                **({"errors": self.errors} if self.errors else {})}


def get_study(name: str) -> ModuleType:
    """Return the module of a study; "hmdb-study" and "hmdb_study" are one name.

    Raises:
        UserError: if the name is unknown.
    """
    name = name.replace("-", "_")
    if name not in REPRODUCE:
        raise unknown_name("study", name, REPRODUCE)
    return importlib.import_module(REPRODUCE[name])


def select_cells(cells: Sequence[Cell], only: Sequence[str] | None) -> list[Cell]:
    """Return the cells whose name is in `only` or matches one of its patterns; all of them for None.

    Raises:
        UserError: if an entry of `only` matches nothing.
    """
    if not only:
        return list(cells)
    names = sorted({cell.name for cell in cells})
    only = join_names(only, names)
    for pattern in only:
        if not fits(pattern, names):
            raise unknown_name("cell", pattern, names)
    return [cell for cell in cells if any(cell.name == p or fnmatch.fnmatch(cell.name, p) for p in only)]


def join_names(parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Put names that hold a comma together again after a list was split at its commas; the longest fit wins."""
    found, place = [], 0
    while place < len(parts):
        ends = range(len(parts), place, -1)
        end = next((end for end in ends if fits(", ".join(parts[place:end]), names)), place + 1)
        found.append(", ".join(parts[place:end]))
        place = end
    return found


def fits(text: str, names: Sequence[str]) -> bool:
    """Return whether a text is a name or a pattern of one."""
    return text in names or bool(fnmatch.filter(names, text))


def run_order(cells: Sequence[Cell]) -> list[Cell]:
    """Sort by priority, then by seed, then as listed: a contrast gains its seeds side by side."""
    return sorted(cells, key=lambda cell: (cell.priority, cell.seed))


def result_path(out: Path, cell: Cell) -> Path:
    """Return where a cell's result lies: `<out>/cells/<name as a file name>-seed<seed>.json`."""
    spelled = cell.name.replace("+", "plus-").replace("×", "x")
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", spelled).strip("-").lower()
    return out / "cells" / f"{slug}-seed{cell.seed}.json"


def stored_result(out: Path, cell: Cell, scale: str) -> dict[str, Any] | None:
    """Return the stored result of a cell, None if there is none, it is broken, failed, or had other settings."""
    try:
        result = json.loads(result_path(out, cell).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = (result.get("cell"), result.get("seed"), result.get("scale")) == (cell.name, cell.seed, scale)
    return result if same and result.get("settings") == json.loads(json.dumps(cell.settings)) else None


def estimates(cells: Sequence[Cell], out: Path, scale: str) -> dict[tuple[str, int], float]:
    """Return seconds per cell name and seed: the least measured on other seeds, else the stated estimate.

    The least, because the first cell of a study may also have made the data for all.
    """
    measured: dict[str, list[float]] = {}
    for cell in cells:
        stored = stored_result(out, cell, scale)
        measured.setdefault(cell.name, []).extend([stored["seconds"]] if stored else [])
    return {(cell.name, cell.seed): min(measured[cell.name], default=cell.estimate_seconds) for cell in cells}


def run_cells(cells: Sequence[Cell], out: Path | str, *, budget_minutes: float | None = None,
              only: Sequence[str] | None = None, scale: str = "mini", command: str = "",
              reading: Callable[[list[Row]], str] | None = None, dry_run: bool = False,
              say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)) -> list[Row]:
    """Run what is not yet stored, within the budget, and write the table of ours beside the paper's.

    The estimated cost is said first. Finished cells (same name, seed, scale and settings) are not run again. A cell
    is started only if its estimate fits into what is left of the budget. A cell that raises is reported as failed and
    the others go on.

    Args:
        cells: all cells of the study; those not run stay in the table as "not run".
        out: folder for `cells/*.json`, `table.txt`, `table.md` and `table.json`.
        budget_minutes: wall time after which no cell is started; None for no limit.
        only: names or patterns of cells to run; the others stay "not run" unless stored.
        scale: "mini" or "full"; stored with each result.
        command: the command line, stored with each result.
        reading: writes the sentence stored with the table.
        dry_run: stop after the cost.
        say: takes each line of progress.

    Returns:
        One row per cell name, in listed order.

    Raises:
        UserError: if two cells share name and seed, or `only` matches nothing.
    """
    out = Path(out)
    if len({(cell.name, cell.seed) for cell in cells}) < len(cells):
        raise UserError("two cells share name and seed; give each cell of the study its own name")
    seconds = estimates(cells, out, scale)
    chosen = run_order(select_cells(cells, only))
    todo = [cell for cell in chosen if stored_result(out, cell, scale) is None]
    total = sum(seconds[cell.name, cell.seed] for cell in todo)
    budget = "no budget" if budget_minutes is None else f"budget {budget_minutes:g} min"
    say(f"{len(chosen)} cell-seeds chosen, {len(chosen) - len(todo)} already stored, {len(todo)} to run; "
        f"estimated cost {total / 60:.1f} min ({budget})")
    started = time.monotonic()
    errors: dict[str, list[str]] = {}
    for position, cell in enumerate([] if dry_run else todo, start=1):
        seconds = estimates(cells, out, scale)
        left = math.inf if budget_minutes is None else budget_minutes * 60 - (time.monotonic() - started)
        if seconds[cell.name, cell.seed] > left:
            say(f"[{position}/{len(todo)}] {cell.name} seed {cell.seed}: not run "
                f"(needs about {seconds[cell.name, cell.seed]:.0f} s, {max(left, 0):.0f} s of the budget left)")
            continue
        try:
            result = run_one(cell, out, scale=scale, command=command)
        except Exception as error:  # one failed cell must not lose the others
            errors.setdefault(cell.name, []).append(f"seed {cell.seed}: {type(error).__name__}: {error}")
            say(f"[{position}/{len(todo)}] {cell.name} seed {cell.seed}: failed: {error}")
            continue
        shown = ", ".join(f"{key} {show(value)}" for key, value in result["results"].items() if is_number(value))
        say(f"[{position}/{len(todo)}] {cell.name} seed {cell.seed}: {shown} ({result['seconds']:.0f} s)")
    rows = collect_rows(cells, out, scale, errors)
    if not dry_run:
        write_tables(rows, out, scale=scale, command=command, reading=reading(rows) if reading else "")
    return rows


def run_one(cell: Cell, out: Path, *, scale: str, command: str) -> dict[str, Any]:
    """Run one cell and store its result with the command, date, settings and time it took."""
    started = time.monotonic()
    results = cell.run()
    result = {"cell": cell.name, "seed": cell.seed, "table": cell.table, "scale": scale, "results": results,
              "paper": cell.paper, "settings": cell.settings, "seconds": round(time.monotonic() - started, 3),
              "estimate_seconds": cell.estimate_seconds, "command": command, "machine": platform.machine(),
              "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    write_json(result_path(out, cell), result)
    return result


def is_number(value: Any) -> bool:
    """Tell whether a result is a number the table shows."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def collect_rows(cells: Sequence[Cell], out: Path, scale: str, errors: dict[str, list[str]]) -> list[Row]:
    """Gather the stored results of all cells into one row per name."""
    rows = []
    for name in dict.fromkeys(cell.name for cell in cells):
        group = [cell for cell in cells if cell.name == name]
        found = {cell.seed: stored_result(out, cell, scale) for cell in group}
        values: dict[str, list[float]] = {}
        for stored in found.values():
            for metric, value in (stored or {"results": {}})["results"].items():
                if is_number(value):
                    values.setdefault(metric, []).append(value)
        rows.append(Row(name=name, table=group[0].table, note=group[0].note, paper=dict(group[0].paper or {}),
                        values=values, seeds_run=[seed for seed, stored in found.items() if stored],
                        seeds_planned=list(found), errors=errors.get(name, [])))
    return rows


def show(value: float | None) -> str:
    """Format a number for the table: whole numbers with separators, others with four significant digits."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) >= 1000:
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def table_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Lay the rows out as cells of text, the header first: ours as mean ± spread, then the paper's number."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in (*row.paper, *row.values)))
    lines = [["cell", "seeds", *(f"{m} {who}" for m in metrics for who in ("(ours)", "(paper)")), "note"]]
    for row in rows:
        texts = []
        for metric in metrics:
            spread = row.spread(metric)
            ours = show(row.mean(metric)) if row.seeds_run else "not run"
            texts += [ours if spread is None else f"{ours} ± {show(spread)}", show(row.paper.get(metric))]
        note = "; ".join(text for text in (row.note, *row.errors) if text)
        lines.append([row.name, f"{len(row.seeds_run)}/{len(row.seeds_planned)}", *texts, note])
    keep = [column for column in range(len(lines[0]))
            if column < 2 or any(line[column] not in ("", "–") for line in lines[1:])]
    return [[line[column] for column in keep] for line in lines]


def by_table(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Group the rows by the paper's table they belong to, in listed order."""
    return [(table, [row for row in rows if row.table == table]) for table in dict.fromkeys(row.table for row in rows)]


def text_table(rows: Sequence[Row]) -> str:
    """Return aligned text, one table per table of the paper."""
    parts = []
    for table, members in by_table(rows):
        lines = table_lines(members)
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        body = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
                for line in lines]
        parts.append("\n".join([table, *body] if table else body))
    return "\n\n".join(parts)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return Markdown, one table per table of the paper."""
    parts = []
    for table, members in by_table(rows):
        header, *body = (["|".join(["", *(f" {text} " for text in line), ""]) for line in table_lines(members)])
        lines = [header, re.sub(r"[^|]+", "---", header), *body]
        parts.append("\n".join([f"**{table}**", "", *lines] if table else lines))
    return "\n\n".join(parts)


def write_tables(rows: Sequence[Row], out: Path, *, scale: str, command: str, reading: str) -> None:
    """Write `table.txt`, `table.md` and `table.json` under `out`."""
    write_text(out / "table.txt", f"{text_table(rows)}\n\n{reading}\n")
    write_text(out / "table.md", f"{markdown_table(rows)}\n\n{reading}\n")
    write_json(out / "table.json", {"command": command, "scale": scale, "date": datetime.now(UTC).strftime("%Y-%m-%d"),
                                    "spread": "sample standard deviation over seeds", "reading": reading,
                                    "rows": [row.to_dict() for row in rows]})
