"""A study's results as tables, ours beside the paper's numbers: text, Markdown and JSON."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marey.files import write_json, write_text


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of a results table: the cells of one name over their seeds."""

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
        """Return the line as JSON types, with "status": "run", "failed" or "not run"."""
        ours = {
            metric: {"mean": self.mean(metric), "spread": self.spread(metric), "values": values}
            for metric, values in self.values.items()
        }
        status = "failed" if self.errors else "not run" if not self.seeds_run else "run"
        found = {
            "cell": self.name,
            "table": self.table,
            "status": status,
            "ours": ours,
            "paper": self.paper,
            "seeds_run": self.seeds_run,
            "seeds_planned": self.seeds_planned,
            "note": self.note,
        }
        if self.errors:
            found["errors"] = self.errors
        return found


def show(value: float | None) -> str:
    """Format a number: thousands with separators, from 1 two decimals, below three significant
    digits."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) >= 1000:
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def table_lines(results: Sequence[Result]) -> list[list[str]]:
    """Lay results out as cells of text, the header first: ours as mean ± spread, then the paper's
    number."""
    metrics = list(dict.fromkeys(m for result in results for m in (*result.paper, *result.values)))
    header = ["cell", "seeds"]
    for metric in metrics:
        header += [f"{metric} (ours)", f"{metric} (paper)"]
    lines = [[*header, "note"]]

    for result in results:
        texts = []
        for metric in metrics:
            spread = result.spread(metric)
            ours = show(result.mean(metric)) if result.seeds_run else "not run"
            ours = ours if spread is None else f"{ours} ± {show(spread)}"
            texts += [ours, show(result.paper.get(metric))]
        note = "; ".join(text for text in (result.note, *result.errors) if text)
        seeds = f"{len(result.seeds_run)}/{len(result.seeds_planned)}"
        lines.append([result.name, seeds, *texts, note])

    def is_wanted(column: int) -> bool:
        return column < 2 or any(line[column] not in ("", "–") for line in lines[1:])

    keep = [column for column in range(len(lines[0])) if is_wanted(column)]
    return [[line[column] for column in keep] for line in lines]


def by_table(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Group the results by the paper's table they belong to, in listed order."""
    tables = dict.fromkeys(result.table for result in results)
    return [(table, [r for r in results if r.table == table]) for table in tables]


def text_table(results: Sequence[Result]) -> str:
    """Return aligned text, one table per table of the paper."""
    parts = []
    for table, members in by_table(results):
        lines = table_lines(members)
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        body = []
        for line in lines:
            padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
            body.append("  ".join(padded).rstrip())
        parts.append("\n".join([table, *body] if table else body))
    return "\n\n".join(parts)


def markdown_table(results: Sequence[Result]) -> str:
    """Return Markdown, one table per table of the paper."""
    parts = []
    for table, members in by_table(results):
        header, *body = [f"| {' | '.join(line)} |" for line in table_lines(members)]
        lines = [header, re.sub(r"[^|]+", "---", header), *body]
        parts.append("\n".join([f"**{table}**", "", *lines] if table else lines))
    return "\n\n".join(parts)


def stored_reading(out: Path) -> str:
    """Return what a person wrote about the numbers in `out`/table.json; "" where nobody did."""
    try:
        return str(json.loads((out / "table.json").read_text(encoding="utf-8")).get("reading", ""))
    except (FileNotFoundError, json.JSONDecodeError):
        return ""


def write_tables(results: Sequence[Result], out: Path, *, scale: str, command: str) -> None:
    """Write `table.txt`, `table.md` and `table.json` under `out`, and keep the "reading" that is
    there.

    The reading is a person's conclusion. It is never written by code; to change it, edit
    table.json.
    """
    reading = stored_reading(out)
    report = {
        "command": command,
        "scale": scale,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "spread": "sample standard deviation over seeds",
        "reading": reading,
        "rows": [result.to_dict() for result in results],
    }
    end = f"\n\n{reading}\n" if reading else "\n"
    write_text(out / "table.txt", text_table(results) + end)
    write_text(out / "table.md", markdown_table(results) + end)
    write_json(out / "table.json", report)
