"""Run a paper's tables: cells with seeds, a time budget, one JSON per cell and seed, tables of the
results.

A study is a module in `STUDIES`. It has `cells(options) -> list[Cell]`, `check_data(options)`,
which raises a `UserError` if the data the cells need was not given. It may have `page(out, results,
options) -> Path`, which draws a page beside the tables, and `quoted(options) -> list[Result]`, the
paper's lines that no cell can run.
"""

from __future__ import annotations

import fnmatch
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from marey.errors import UserError, unknown_name
from marey.files import write_json
from marey.papers import (
    action_transformer,
    direcformer,
    gat,
    hmdb_study,
    sevitar,
    sevitar_decided,
    unseen,
)
from marey.papers.cells import Cell, ReproduceOptions, result_path
from marey.papers.tables import Result, show, write_tables

STUDIES: dict[str, ModuleType] = {
    "direcformer": direcformer,
    "gat": gat,
    "sevitar": sevitar,
    "sevitar_decided": sevitar_decided,
    "sevitar_unseen": unseen,
    "hmdb_study": hmdb_study,
    "action_transformer": action_transformer,
}
"""Study name -> the module that lists its cells."""

SCALES = ("mini", "full")


def get_study(name: str) -> ModuleType:
    """Return the module of a study; "hmdb-study" and "hmdb_study" are one name.

    Raises:
        UserError: if the name is unknown.
    """
    name = name.replace("-", "_")
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    return STUDIES[name]


def reproduce(
    name: str,
    options: ReproduceOptions,
    out: Path,
    *,
    only: Sequence[str] | None = None,
    budget_minutes: float | None = None,
    command: str = "",
    dry_run: bool = False,
) -> list[Result]:
    """Run the chosen cells of a study and write its tables, and its page if it has one, under
    `out`.

    Raises:
        UserError: if a name is unknown, `out` is a file, or data the cells need was not given.
    """
    if options.scale not in SCALES:
        raise unknown_name("scale", options.scale, SCALES)
    study = get_study(name)
    if options.scale != "full" and options.changes:
        raise UserError("--init and --set change the full scale; add --scale full")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder; name a folder")
    cells = study.cells(options)
    wanted = [cell for cell in select_cells(cells, only) if cell.needs_data]
    trains = not dry_run and budget_minutes != 0  # 0 draws what is stored
    if trains and any(stored_result(out, cell, options.scale) is None for cell in wanted):
        study.check_data(options)

    results = run_cells(
        cells,
        out,
        quoted=study.quoted(options) if hasattr(study, "quoted") else (),
        budget_minutes=budget_minutes,
        only=only,
        scale=options.scale,
        command=command,
        dry_run=dry_run,
    )

    has_results = any(result.seeds_run for result in results)
    if hasattr(study, "page") and has_results and not dry_run:
        print_progress(f"wrote {study.page(out, results, options)}")
    return results


# ---- which cells, in which order ---------------------------------------------------------------


def select_cells(cells: Sequence[Cell], only: Sequence[str] | None) -> list[Cell]:
    """Return the cells whose name is in `only` or matches one of its patterns; all of them for
    None.

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
    return [cell for cell in cells if any(fits(pattern, [cell.name]) for pattern in only)]


def join_names(parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Put names that hold a comma together again after a list was split at its commas.

    The longest run of parts that fits a name wins.
    """
    found, start = [], 0
    while start < len(parts):
        ends = range(len(parts), start, -1)
        fitting = (end for end in ends if fits(", ".join(parts[start:end]), names))
        end = next(fitting, start + 1)
        found.append(", ".join(parts[start:end]))
        start = end
    return found


def fits(text: str, names: Sequence[str]) -> bool:
    """Return whether a text is one of the names or a pattern of one."""
    return text in names or bool(fnmatch.filter(names, text))


def run_order(cells: Sequence[Cell]) -> list[Cell]:
    """Sort by priority, then by seed, then as listed: a contrast gains its seeds side by side."""
    return sorted(cells, key=lambda cell: (cell.priority, cell.seed))


# ---- results of earlier runs --------------------------------------------------------------------


def stored_result(out: Path, cell: Cell, scale: str) -> dict[str, Any] | None:
    """Return the stored result of a cell; None if it is absent, broken or of other settings."""
    try:
        result = json.loads(result_path(out, cell).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    found = tuple(result.get(key) for key in ("cell", "seed", "scale", "settings"))
    settings = json.loads(json.dumps(cell.settings))  # tuples are lists in JSON
    return result if found == (cell.name, cell.seed, scale, settings) else None


def estimates(cells: Sequence[Cell], out: Path, scale: str) -> dict[tuple[str, int], float]:
    """Return seconds per cell name and seed: the least measured on other seeds, else as stated.

    The least, because the first cell of a study may also have made the data for all.
    """
    measured: dict[str, list[float]] = {}
    for cell in cells:
        stored = stored_result(out, cell, scale)
        measured.setdefault(cell.name, []).extend([stored["seconds"]] if stored else [])
    return {
        (cell.name, cell.seed): min(measured[cell.name], default=cell.estimate_seconds)
        for cell in cells
    }


def collect_results(
    cells: Sequence[Cell], out: Path, scale: str, errors: Mapping[str, list[str]]
) -> list[Result]:
    """Gather the stored results of all cells into one line per name, in listed order."""
    results = []
    for name in dict.fromkeys(cell.name for cell in cells):
        group = [cell for cell in cells if cell.name == name]
        found = {cell.seed: stored_result(out, cell, scale) for cell in group}
        values: dict[str, list[float]] = {}
        for stored in found.values():
            for metric, value in (stored or {"results": {}})["results"].items():
                if is_number(value):
                    values.setdefault(metric, []).append(value)
        results.append(
            Result(
                name=name,
                table=group[0].table,
                note=group[0].note,
                paper=dict(group[0].paper or {}),
                values=values,
                seeds_run=[seed for seed, stored in found.items() if stored],
                seeds_planned=list(found),
                errors=errors.get(name, []),
            )
        )
    return results


def is_number(value: Any) -> bool:
    """Tell whether a result is a number that the table shows."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# ---- running ------------------------------------------------------------------------------------


def print_progress(line: str) -> None:
    """Print a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


def run_cells(
    cells: Sequence[Cell],
    out: Path | str,
    *,
    budget_minutes: float | None = None,
    only: Sequence[str] | None = None,
    scale: str = "mini",
    command: str = "",
    dry_run: bool = False,
    quoted: Sequence[Result] = (),
    say: Callable[[str], None] = print_progress,
) -> list[Result]:
    """Run what is not yet stored, within the budget, and write the tables.

    The estimated cost is said first. Finished cells (same name, seed, scale and settings) are not
    run again. A cell is started only if its estimate fits into what is left of the budget. A cell
    that raises is reported as failed and the others go on.

    Args:
        cells: all cells of the study; those not run stay in the table as "not run".
        out: folder for `cells/*.json`, `table.txt`, `table.md` and `table.json`.
        budget_minutes: wall time after which no cell is started; None for no limit.
        only: names or patterns of cells to run; the others stay "not run" unless stored.
        scale: "mini" or "full"; stored with each result.
        command: the command line, stored with each result.
        dry_run: say the cost and the plan, and stop.
        quoted: lines of the paper that no cell runs, shown with the paper's numbers.
        say: takes each line of progress.

    Returns:
        One result per cell name, in listed order.

    Raises:
        UserError: if two cells share name and seed, or `only` matches nothing.
    """
    out = Path(out)
    if len({(cell.name, cell.seed) for cell in cells}) < len(cells):
        raise UserError("two cells share name and seed; give each cell of the study its own name")
    chosen = run_order(select_cells(cells, only))
    todo = [cell for cell in chosen if stored_result(out, cell, scale) is None]
    seconds = estimates(cells, out, scale)
    total = sum(seconds[cell.name, cell.seed] for cell in todo)
    budget = "no budget" if budget_minutes is None else f"budget {budget_minutes:g} min"
    say(
        f"{len(chosen)} cell-seeds chosen, {len(chosen) - len(todo)} already stored, "
        f"{len(todo)} to run; estimated cost {total / 60:.1f} min ({budget})"
    )

    if dry_run:
        for position, cell in enumerate(todo, start=1):
            cost = seconds[cell.name, cell.seed] / 60
            say(f"[{position}/{len(todo)}] {cell.name} seed {cell.seed}: about {cost:.1f} min")
        return collect_results(cells, out, scale, {})

    errors = run_within(todo, out, cells, budget_minutes, scale=scale, command=command, say=say)
    results = [*collect_results(cells, out, scale, errors), *quoted]
    write_tables(results, out, scale=scale, command=command)
    return results


def run_within(
    todo: Sequence[Cell],
    out: Path,
    cells: Sequence[Cell],
    budget_minutes: float | None,
    *,
    scale: str,
    command: str,
    say: Callable[[str], None],
) -> dict[str, list[str]]:
    """Run cells one after the other until the budget is spent; returns cell name -> its errors."""
    started = time.monotonic()
    budget_seconds = math.inf if budget_minutes is None else budget_minutes * 60
    errors: dict[str, list[str]] = {}
    for position, cell in enumerate(todo, start=1):
        title = f"[{position}/{len(todo)}] {cell.name} seed {cell.seed}"
        needed = estimates(cells, out, scale)[cell.name, cell.seed]
        left = budget_seconds - (time.monotonic() - started)
        if needed > left:
            left = max(left, 0)
            say(f"{title}: not run (needs about {needed:.0f} s, {left:.0f} s of the budget left)")
            continue

        try:
            result = run_one(cell, out, scale=scale, command=command)
        except Exception as error:  # one failed cell must not lose the others
            message = f"seed {cell.seed}: {type(error).__name__}: {error}"
            errors.setdefault(cell.name, []).append(message)
            say(f"{title}: failed: {error}")
            continue

        numbers = {key: value for key, value in result["results"].items() if is_number(value)}
        shown = ", ".join(f"{key} {show(value)}" for key, value in numbers.items())
        say(f"{title}: {shown} ({result['seconds']:.0f} s)")
    return errors


def run_one(cell: Cell, out: Path, *, scale: str, command: str) -> dict[str, Any]:
    """Run one cell and store its result with the command, date, settings and time it took."""
    started = time.monotonic()
    results = cell.run()
    result = {
        "cell": cell.name,
        "seed": cell.seed,
        "table": cell.table,
        "scale": scale,
        "results": results,
        "paper": None if cell.paper is None else dict(cell.paper),
        "settings": cell.settings,
        "seconds": round(time.monotonic() - started, 3),
        "estimate_seconds": cell.estimate_seconds,
        "command": command,
        "machine": platform.machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    write_json(result_path(out, cell), result)
    return result
