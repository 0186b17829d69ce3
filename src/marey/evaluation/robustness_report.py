"""The robustness report: one HTML file that opens offline, with its figures inside, and report.json
and report.csv beside it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marey.evaluation.robustness_figures import (
    curves,
    examples_table,
    heat_maps,
    number,
    percent,
    swatch,
    videos_of,
)
from marey.evaluation.robustness_overview import overview_cards, report_csv
from marey.files import write_json, write_text

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2126; background: #fff; margin: 0 auto; max-width: 1120px;
       padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 38px 0 8px; }
p.lead { color: #4c555e; margin: 0 0 12px; max-width: 75ch; } p { max-width: 75ch; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid #e3e7ea; white-space: nowrap; }
th { font-weight: 600; color: #39424a; } th:first-child, td:first-child { text-align: left; }
td small, .small { color: #6a737b; font-size: 12.5px; } .heat td { border: 2px solid #fff; padding: 4px 8px;
text-align: center; } .heat td:first-child { text-align: left; border: 0; } .heat td.cat { color: #6a737b; }
.swatch { display: inline-block; width: 22px; height: 0; border-top: 3px solid; vertical-align: middle;
margin-right: 6px; } .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 200px), 1fr)); gap: 14px; }
figure { margin: 0; } figcaption { font-size: 13px; color: #39424a; } svg text { font: 11px system-ui, sans-serif;
fill: #59626a; } .strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 10px;
padding: 6px 0 12px; } .strips img { width: 100%; max-width: 384px; display: block; } summary { cursor: pointer; padding: 3px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 14px; }
.card { border: 1px solid #d5dbe0; border-radius: 8px; padding: 10px 14px; break-inside: avoid; min-width: 0; }
.card h3 { margin: 2px 0 8px; font-size: 16px; overflow-wrap: anywhere; } .card table { width: 100%; font-size: 13.5px; }
.card th, .card td { padding: 3px 4px; white-space: normal; } .card td span { white-space: nowrap; }
.rank { display: inline-block; min-width: 1.6em; margin-right: .4em; color: #59626a; }
.bar { display: inline-block; width: 48px; height: 7px; background: #e8ecef; } .bar i { display: block; height: 7px; background: #1f6fb4; }
@media print { body { max-width: none; padding: 0; font-size: 12px; } .scroll { overflow: visible; }
  th, td { padding: 2px 4px; } table { font-size: 10.5px; } .small, td small { font-size: 9.5px; } .card table { font-size: 10.5px; } .heat td { padding: 2px 3px; }
  .strips { grid-template-columns: repeat(3, 1fr); } figure, tr, .card { break-inside: avoid; } h2 { break-after: avoid; }
  details::details-content { content-visibility: visible; display: block; } }
.leak { background: #b3261e; color: #fff; padding: 8px 12px; font-weight: 600; }
code { background: #f2f4f5; padding: 1px 5px; border-radius: 3px; overflow-wrap: anywhere; }
"""


def interval(pair: Sequence[float] | None) -> str:
    """Print a 95% interval of fractions in percent."""
    return "" if pair is None else f" <small>[{percent(pair[0], 0)}, {percent(pair[1], 0)}]</small>"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest endings of the models' names that still tell them apart."""
    parts = {name: Path(name).parts or (name,) for name in names}
    for count in range(1, max(len(part) for part in parts.values()) + 1):
        found = {name: "/".join(part[-count:]) for name, part in parts.items()}
        if len(set(found.values())) == len(names):
            break
    endings = {value.rsplit("/", 1)[-1] for value in found.values()}
    if len(endings) == 1 and len(names) > 1:  # run-a/best, run-b/best -> run-a, run-b
        return {name: value.rsplit("/", 1)[0] for name, value in found.items()}
    return found


def write_report(report: dict[str, Any], out: Path) -> list[Path]:
    """Write report.html, report.json and report.csv.

    Args:
        report: of `robustness_summary.summarise`, with "settings", "kinds" and "command".
        out: the folder, with `examples/` if the run wrote any.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "report.json", out / "report.html", out / "report.csv"]
    write_json(written[0], report, indent=1)
    write_text(written[1], render(report, out / "examples"))
    write_text(written[2], report_csv(report))
    return written


def render(report: dict[str, Any], examples: Path | None = None) -> str:
    """Return the whole page; pictures are inside it."""
    names = list(report["models"])
    shown = short_names(names)
    parts = [
        _head(report),
        *_plain(report, shown),
        _leaks(report, shown),
        overview_cards(report, shown),
        _summary_table(report, shown),
        _pairs(report, shown),
    ]
    if report["models"][names[0]]["kinds"]:
        parts += [_categories(report, shown), heat_maps(report, shown), curves(report, shown)]
    parts += [
        _attacks(report, shown),
        _order(report, shown),
        examples_table(report, examples),
        _settings(report),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, initial-scale=1'><title>Robustness "
        f"report</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _head(report: dict[str, Any]) -> str:
    unreadable = report["unreadable"]
    missing = (
        ""
        if not unreadable
        else f" <b>{len(unreadable)} could not be read</b>: "
        + html.escape("; ".join(entry["error"] for entry in unreadable[:5]))
    )
    groups = "" if report["groups"] is None else f" from {report['groups']} groups (scenes)"
    return (
        f"<h1>Robustness report</h1><p class='lead'>{len(report['models'])} models on "
        f"{report['videos']} videos{groups}, {len(report['classes'])} classes; always answering "
        "the most frequent class would score "
        f"{percent(report['majority_class_share'])}%.{missing}</p>"
    )


def leak_of(name: str, model: dict[str, Any]) -> str | None:
    """Return the sentence for a model that was trained on some of the videos; None where it was
    not."""
    seen = model.get("seen_in_training")
    if seen is None:
        return None
    total = seen["videos"] + seen["others"]
    if not seen["others"]:
        return f"LEAKED: {name} was trained on all {total} videos: its numbers measure nothing"
    low, high = seen["clean_interval"]
    return (
        f"LEAKED: {name} was trained on {seen['videos']} of these {total} videos; on the "
        f"{seen['others']} others its clean accuracy is {seen['clean_accuracy']:.1%} "
        f"[{low:.0%}, {high:.0%}]"
    )


def _leaks(report: dict[str, Any], shown: dict[str, str]) -> str:
    found = [leak_of(shown[name], model) for name, model in report["models"].items()]
    return "".join(f"<p class='leak'>{html.escape(text)}</p>" for text in found if text)


def plain_sentences(report: dict[str, Any], shown: dict[str, str]) -> list[str]:
    """Return what breaks the models, in at most three sentences: the worst corruption, the whole,
    the order of the frames."""
    name, model = max(report["models"].items(), key=lambda item: item[1]["clean_accuracy"])
    clean = model["clean_accuracy"]
    which = (
        "The model" if len(report["models"]) == 1 else f"{shown[name]}, the best on clean video,"
    )
    sentences = []
    if model["kinds"]:
        worst, numbers = min(model["kinds"].items(), key=lambda item: item[1]["mean_accuracy"])
        fewest = min(numbers["accuracy"].items(), key=lambda item: item[1])
        sentences.append(
            f"{which} answers {clean:.0%} of the clean videos right, and {model['mpc']:.0%} on "
            f"average over {len(model['kinds'])} kinds of corruption."
        )
        sentences.append(
            f"What breaks it most is {worst.replace('_', ' ')}: {fewest[1]:.0%} right at severity "
            f"{fewest[0]}."
        )
    attacked = {key: value for key, value in model["attacks"].items() if value}
    if attacked:
        worst, numbers = min(attacked.items(), key=lambda item: item[1]["robust_accuracy"])
        sentences.append(
            f"Somebody who knows the model and changes pixels ({worst}) leaves "
            f"{numbers['robust_accuracy']:.0%} right."
        )
    elif model["order"] and model["order"].get("shuffled_accuracy") is not None:
        shuffled = model["order"]["shuffled_accuracy"]
        sentences.append(
            f"With the frames shuffled it answers {shuffled:.0%} right: "
            + (
                "it recognises pictures more than movement."
                if shuffled > clean - 0.05
                else "it uses the order of the frames."
            )
        )
    return sentences[:3]


def _plain(report: dict[str, Any], shown: dict[str, str]) -> list[str]:
    sentences = plain_sentences(report, shown)
    return [f"<p>{html.escape(' '.join(sentences))}</p>"] if sentences else []


def _summary_table(report: dict[str, Any], shown: dict[str, str]) -> str:
    corrupted = bool(next(iter(report["models"].values()))["kinds"])
    head = "<th>model</th><th>clean %</th>"
    if corrupted:
        head += (
            "<th>mPC %</th><th>rPC %</th><th>γ<sup>a</sup></th><th>γ<sup>r</sup></th><th>mCE</th>"
            "<th>calibration error<br><small>clean → changed</small></th>"
        )
    rows = []
    for i, (name, model) in enumerate(report["models"].items()):
        row = (
            f"<td title='{html.escape(name)}'>{swatch(i)}{html.escape(shown[name])}</td>"
            f"<td>{percent(model['clean_accuracy'])}{interval(model['clean_interval'])}</td>"
        )
        if corrupted:
            row += (
                f"<td>{percent(model['mpc'])}{interval(model['mpc_interval'])}</td><td>{percent(model['rpc'])}</td>"
                f"<td>{number(model['gamma_a'])}</td><td>{number(model['gamma_r'])} <small>"
                f"[{number(model['gamma_r_interval'][0])}, "
                f"{number(model['gamma_r_interval'][1])}]</small></td>"
                f"<td>{number(model['mce'])}</td><td>{number(model['clean_calibration_error'])} → "
                f"{number(model['corrupted_calibration_error'])}</td>"
            )
        rows.append(f"<tr>{row}</tr>")
    legend = (
        ""
        if not corrupted
        else "<p class='small'>mPC: mean accuracy over all corruptions and severities; rPC = mPC / "
        "clean (Yi et al.). γ<sup>a</sup> = 1 − drop, γ<sup>r</sup> = 1 − drop / clean "
        "accuracy (Schiappa et al.): 1 is no drop. mCE: errors relative to "
        f"{html.escape(shown[report['reference']])} (1.00; below is better). Calibration "
        "error: mean gap between probability and accuracy. Brackets: 95% intervals"
        f"{'' if report['groups'] is None else ', whole groups drawn'}. {videos_of(report)}</p>"
    )
    return f"<h2>Summary</h2><div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>{legend}"


def _pairs(report: dict[str, Any], shown: dict[str, str]) -> str:
    if not report["pairs"]:
        return ""
    rows = []
    for pair in report["pairs"]:
        clean, changed = pair["clean"], pair.get("corrupted")
        p = clean["group_test_p"] if clean["group_test_p"] is not None else clean["mcnemar_p"]
        cells = (
            f"<td>{html.escape(shown[pair['b']])} − {html.escape(shown[pair['a']])}</td>"
            f"<td>{percent(clean['difference'])}{interval((clean['low'], clean['high']))}</td><td>{p:.3f}</td>"
        )
        if changed:
            cells += (
                f"<td>{percent(changed['difference'])}{interval((changed['low'], changed['high']))}</td>"
                f"<td>{changed['p']:.3f}</td>"
            )
        rows.append(f"<tr>{cells}</tr>")
    head = "<th>pair</th><th>clean, points</th><th>p</th>"
    if report["pairs"][0].get("corrupted"):
        head += "<th>under corruption, points</th><th>p</th>"
    return (
        "<h2>Paired comparison</h2><div "
        f"class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div><p class='small'>The "
        "same videos for both models; p from swapping the models at random in whole groups "
        "(McNemar's exact test where there are no groups). An interval that holds 0 decides "
        f"nothing. {videos_of(report)}</p>"
    )


def _categories(report: dict[str, Any], shown: dict[str, str]) -> str:
    categories = list(next(iter(report["models"].values()))["categories"])
    head = "<th>model</th>" + "".join(f"<th>{category}</th>" for category in categories)
    rows = "".join(
        f"<tr><td>{swatch(i)}{html.escape(shown[name])}</td>"
        + "".join(
            f"<td>{number(model['categories'][category].get('gamma_a'))} / "
            f"{number(model['categories'][category].get('gamma_r'))}</td>"
            for category in categories
        )
        + "</tr>"
        for i, (name, model) in enumerate(report["models"].items())
    )
    return (
        f"<h2>By category</h2><div class='scroll'><table><tr>{head}</tr>{rows}</table></div><p "
        "class='small'>γ<sup>a</sup> / γ<sup>r</sup>, mean over severities, then over the "
        f"category's kinds. {videos_of(report)}</p>"
    )


def _attacks(report: dict[str, Any], shown: dict[str, str]) -> str:
    attacks = next(iter(report["models"].values()))["attacks"]
    if not attacks:
        return ""
    rows = []
    for attack in attacks:
        for i, (name, model) in enumerate(report["models"].items()):
            found = model["attacks"][attack]
            cells = (
                "<td colspan='5'>needs gradients; this model is a plain function</td>"
                if found is None
                else f"<td>{percent(model['clean_accuracy'])}</td><td>{percent(found['robust_accuracy'])}</td>"
                f"<td>{percent(found['fooling_rate'])}</td><td>{number(found['mean_change_levels'])} / "
                f"{found['max_change_levels']}</td><td>{found['mean_queries']:.0f}</td>"
            )
            rows.append(
                f"<tr><td>{attack}</td><td "
                f"style='text-align:left'>{swatch(i)}{html.escape(shown[name])}</td>{cells}</tr>"
            )
    options = report["settings"].get("attack_options") or {}
    given = "" if not options else f" Options: <code>{html.escape(json.dumps(options))}</code>."
    return (
        "<h2>Adversarial change</h2><div class='scroll'><table><tr><th>attack</th><th "
        "style='text-align:left'>model</th><th>clean %</th><th>robust %</th><th>fooling rate "
        "%</th><th>change, grey levels<br><small>mean / largest</small></th><th>queries per "
        f"video</th></tr>{''.join(rows)}</table></div><p class='small'>White-box attacks know the "
        "model. The worst of all iterates and restarts, in whole grey levels, is scored. Fooling "
        f"rate: share of correct answers that change.{given} {videos_of(report)}</p>"
    )


def _order(report: dict[str, Any], shown: dict[str, str]) -> str:
    if not any(model["order"] for model in report["models"].values()):
        return ""
    rows = []
    for i, (name, model) in enumerate(report["models"].items()):
        order = model["order"] or {}
        span = order.get("order_reliance_interval")
        rows.append(
            f"<tr><td>{swatch(i)}{html.escape(shown[name])}</td><td>{percent(order.get('ordered_accuracy'))}"
            f"</td><td>{percent(order.get('shuffled_accuracy'))}</td>"
            f"<td>{percent(order.get('corrected_accuracy'))}</td><td>{percent(order.get('order_reliance'))}"
            f"{interval(span)}</td><td>{percent(order.get('agreement'))}</td></tr>"
        )
    return (
        "<h2>Order of the frames</h2><div class='scroll'><table><tr><th>model</th><th>ordered "
        "%</th><th>shuffled %</th><th>corrected %</th><th>order reliance</th><th>same "
        f"answer<br>after shuffling %</th></tr>{''.join(rows)}</table></div><p class='small'>Order "
        "reliance = ordered − shuffled accuracy. Near 0 the model does not use the order: it "
        "recognises pictures, not movement. Corrected: the model's own temporal attention puts the "
        f"shuffled frames back. {videos_of(report)}</p>"
    )


def _settings(report: dict[str, Any]) -> str:
    settings = report["settings"]
    kinds = "".join(
        "<tr>"
        + "".join(
            f"<td style='text-align:left'>{k[key]}</td>"
            for key in ("kind", "profile", "domain", "coherence")
        )
        + "</tr>"
        for k in report.get("kinds", [])
    )
    table = (
        ""
        if not kinds
        else (
            "<details><summary>Constants and domain of every "
            "corruption</summary><table><tr><th>kind</th><th style='text-align:left'>constants "
            "of</th><th style='text-align:left'>applied to</th><th style='text-align:left'>random "
            f"draws per</th></tr>{kinds}</table></details>"
        )
    )
    command = (
        f"<p>Made by <code>{html.escape(report['command'])}</code></p>"
        if report.get("command")
        else ""
    )
    places = {"model": "each model's own size", "source": "the size of the video"}
    at = places.get(settings["at"], f"{settings['at']} × {settings['at']}, then resized")
    return (
        f"<h2>How it was measured</h2>{command}<p>Profile {settings['profile']}; pixels were "
        f"changed at {at}; at most {settings['max_frames']} source frames of a video; seed "
        f"{settings['seed']}; marey {html.escape(report.get('version', ''))}. One clip and one "
        "crop per video, so clean accuracy can differ from an evaluation with more "
        f"views. Beside this page: report.csv and report.json.</p>{table}"
    )
