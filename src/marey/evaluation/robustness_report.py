"""The report a person reads: one HTML file that opens offline, report.json beside it, and pictures."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marey.files import write_json, write_text

COLOURS = ("#1f6fb4", "#c8501e", "#2f8f5b", "#8456a8", "#9a7b12", "#5b6770")
"""One per model, told apart by colour-blind readers and in print together with the dashes."""
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")

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
margin-right: 6px; } .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 14px; }
figure { margin: 0; } figcaption { font-size: 13px; color: #39424a; } svg text { font: 11px system-ui, sans-serif;
fill: #59626a; } .examples img { width: 100%; max-width: 130px; display: block; } .examples td { padding: 3px;
border: 0; text-align: center; } .examples td:first-child { vertical-align: middle; }
code { background: #f2f4f5; padding: 1px 5px; border-radius: 3px; overflow-wrap: anywhere; }
"""


def percent(value: float | None, digits: int = 1) -> str:
    """Print a fraction as percent, a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 2) -> str:
    """Print a number, a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


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
    if len(endings) == 1 and len(names) > 1:                                # run-a/best, run-b/best -> run-a, run-b
        return {name: value.rsplit("/", 1)[0] for name, value in found.items()}
    return found


def write_report(report: dict[str, Any], out: Path, *, pictures: bool = True) -> list[Path]:
    """Write report.html, report.json and, where matplotlib is installed, heatmap.png and curves.png.

    Args:
        report: of `summary.summarise`, with "settings", "kinds" and "command".
        out: the folder, with `examples/` if the run wrote any.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "report.json", out / "report.html"]
    write_json(written[0], report, indent=1)
    write_text(written[1], render(report, out / "examples"))
    if pictures and next(iter(report["models"].values()))["kinds"]:
        written += _pictures(report, out)
    return written


def render(report: dict[str, Any], examples: Path | None = None) -> str:
    """Return the whole page; pictures are inside it."""
    names = list(report["models"])
    shown = short_names(names)
    parts = [_head(report), _summary_table(report, shown), _pairs(report, shown)]
    if report["models"][names[0]]["kinds"]:
        parts += [_categories(report, shown), _heat_maps(report, shown), _curves(report, shown)]
    parts += [_attacks(report, shown), _order(report, shown), _examples(report, examples), _settings(report)]
    return (f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
            f"content='width=device-width, initial-scale=1'><title>Robustness report</title><style>{STYLE}</style>"
            f"</head><body>{''.join(parts)}</body></html>\n")


def _head(report: dict[str, Any]) -> str:
    unreadable = report["unreadable"]
    missing = ("" if not unreadable else f" <b>{len(unreadable)} could not be read</b>: "
               + html.escape("; ".join(entry["error"] for entry in unreadable[:5])))
    groups = "" if report["groups"] is None else f" from {report['groups']} groups (scenes)"
    return (f"<h1>Robustness report</h1><p class='lead'>{len(report['models'])} models on {report['videos']} videos"
            f"{groups}, {len(report['classes'])} classes; always answering the most frequent class would score "
            f"{percent(report['majority_class_share'])}%.{missing}</p>")


def _swatch(i: int) -> str:
    style = ("solid", "dashed", "dotted")[i % 3]
    return f"<span class='swatch' style='border-color:{COLOURS[i % len(COLOURS)]};border-top-style:{style}'></span>"


def _summary_table(report: dict[str, Any], shown: dict[str, str]) -> str:
    corrupted = bool(next(iter(report["models"].values()))["kinds"])
    head = "<th>model</th><th>clean %</th>"
    if corrupted:
        head += ("<th>mPC %</th><th>rPC %</th><th>γ<sup>a</sup></th><th>γ<sup>r</sup></th><th>mCE</th>"
                 "<th>calibration error<br><small>clean → changed</small></th>")
    rows = []
    for i, (name, model) in enumerate(report["models"].items()):
        row = (f"<td title='{html.escape(name)}'>{_swatch(i)}{html.escape(shown[name])}</td>"
               f"<td>{percent(model['clean_accuracy'])}{interval(model['clean_interval'])}</td>")
        if corrupted:
            row += (f"<td>{percent(model['mpc'])}{interval(model['mpc_interval'])}</td><td>{percent(model['rpc'])}</td>"
                    f"<td>{number(model['gamma_a'])}</td><td>{number(model['gamma_r'])} <small>"
                    f"[{number(model['gamma_r_interval'][0])}, {number(model['gamma_r_interval'][1])}]</small></td>"
                    f"<td>{number(model['mce'])}</td><td>{number(model['clean_calibration_error'])} → "
                    f"{number(model['corrupted_calibration_error'])}</td>")
        rows.append(f"<tr>{row}</tr>")
    legend = ("" if not corrupted else
              "<p class='small'>mPC: mean accuracy over all corruptions and severities; rPC = mPC / clean (Yi et al.). "
              "γ<sup>a</sup> = 1 − drop, γ<sup>r</sup> = 1 − drop / clean accuracy (Schiappa et al.): 1 is no drop. "
              f"mCE: errors relative to {html.escape(shown[report['reference']])} (1.00; below is better). "
              "Calibration error: mean gap between probability and accuracy. Brackets: 95% bootstrap intervals"
              f"{'' if report['groups'] is None else ', whole groups drawn'}.</p>")
    return (f"<h2>Summary</h2><div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>{legend}")


def _pairs(report: dict[str, Any], shown: dict[str, str]) -> str:
    if not report["pairs"]:
        return ""
    rows = []
    for pair in report["pairs"]:
        clean, changed = pair["clean"], pair.get("corrupted")
        p = clean["group_test_p"] if clean["group_test_p"] is not None else clean["mcnemar_p"]
        cells = (f"<td>{html.escape(shown[pair['b']])} − {html.escape(shown[pair['a']])}</td>"
                 f"<td>{percent(clean['difference'])}{interval((clean['low'], clean['high']))}</td><td>{p:.3f}</td>")
        if changed:
            cells += (f"<td>{percent(changed['difference'])}{interval((changed['low'], changed['high']))}</td>"
                      f"<td>{changed['p']:.3f}</td>")
        rows.append(f"<tr>{cells}</tr>")
    head = "<th>pair</th><th>clean, points</th><th>p</th>"
    if report["pairs"][0].get("corrupted"):
        head += "<th>under corruption, points</th><th>p</th>"
    return (f"<h2>Paired comparison</h2><div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"
            "<p class='small'>The same videos for both models; p from swapping the models at random in whole groups "
            "(McNemar's exact test where there are no groups). An interval that holds 0 decides nothing.</p>")


def _categories(report: dict[str, Any], shown: dict[str, str]) -> str:
    categories = list(next(iter(report["models"].values()))["categories"])
    head = "<th>model</th>" + "".join(f"<th>{category}</th>" for category in categories)
    rows = "".join(
        f"<tr><td>{_swatch(i)}{html.escape(shown[name])}</td>" + "".join(
            f"<td>{number(model['categories'][category].get('gamma_a'))} / "
            f"{number(model['categories'][category].get('gamma_r'))}</td>" for category in categories) + "</tr>"
        for i, (name, model) in enumerate(report["models"].items()))
    return (f"<h2>By category</h2><div class='scroll'><table><tr>{head}</tr>{rows}</table></div>"
            "<p class='small'>γ<sup>a</sup> / γ<sup>r</sup>, mean over severities, then over the category's "
            "kinds.</p>")


def heat_colour(drop: float) -> tuple[str, str]:
    """Return background and text colour of an accuracy drop in [-1, 1]: white at none, red at half the accuracy lost,
    green where the change helps."""
    share = max(-1.0, min(1.0, drop / 0.5))
    low, high = ((255, 255, 255), (178, 44, 36)) if share >= 0 else ((255, 255, 255), (60, 140, 90))
    rgb = [round(a + (b - a) * abs(share) ** 0.8) for a, b in zip(low, high, strict=True)]
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})", "#fff" if abs(share) > 0.6 else "#1c2126"


def _heat_maps(report: dict[str, Any], shown: dict[str, str]) -> str:
    names = list(report["models"])
    first = report["models"][names[0]]["kinds"]
    severities = list(next(iter(first.values()))["accuracy"])
    head = "<tr><th>corruption</th>" + "".join(
        f"<th colspan='{len(severities)}' style='text-align:center'>{html.escape(shown[name])}, clean "
        f"{percent(report['models'][name]['clean_accuracy'], 0)}</th><th></th>" for name in names) + "</tr>"
    numbers = "<tr><th></th>" + ("".join(f"<th style='text-align:center'>{s}</th>" for s in severities)
                                 + "<th></th>") * len(names) + "</tr>"
    rows, category = [], None
    for kind, numbers_of in first.items():
        if numbers_of["category"] != category:
            category = numbers_of["category"]
            rows.append(f"<tr><td class='cat'><b>{category}</b></td></tr>")
        cells = f"<td>{kind}{_borrowed(report, numbers_of)}</td>"
        for name in names:
            model = report["models"][name]
            for accuracy in model["kinds"][kind]["accuracy"].values():
                background, text = heat_colour(model["clean_accuracy"] - accuracy)
                cells += f"<td style='background:{background};color:{text}'>{percent(accuracy, 0)}</td>"
            cells += "<td></td>"
        rows.append(f"<tr>{cells}</tr>")
    return (f"<h2>Accuracy under every change</h2><div class='scroll'><table class='heat'>{head}{numbers}"
            f"{''.join(rows)}</table></div><p class='small'>Percent correct by severity 1 (mild) to 5; red: lost "
            "against the model's own clean accuracy, green: gained. Jumble disturbs less with every severity, MPEG "
            "quantisers stop at 31, as in the sources.</p>")


def _borrowed(report: dict[str, Any], numbers: dict[str, Any]) -> str:
    asked = report["settings"]["profile"]
    return "" if numbers["profile"] == asked else f" <small>({numbers['profile']})</small>"


def curve(values: dict[str, list[tuple[int, float]]], clean: dict[str, float], title: str) -> str:
    """Return one small chart as SVG: severity 0 (clean) to 5 across, accuracy 0 to 1 up."""
    width, height, left, bottom, top = 210, 130, 30, 22, 8

    def x(severity: float) -> float:
        return left + severity / 5 * (width - left - 8)

    def y(accuracy: float) -> float:
        return top + (1 - accuracy) * (height - top - bottom)

    lines = "".join(f"<line x1='{left}' x2='{width - 8}' y1='{y(v):.1f}' y2='{y(v):.1f}' stroke='#e3e7ea'/>"
                    f"<text x='{left - 5}' y='{y(v) + 4:.1f}' text-anchor='end'>{round(100 * v)}</text>"
                    for v in (0, 0.5, 1))
    ticks = "".join(f"<text x='{x(s):.1f}' y='{height - 7}' text-anchor='middle'>{s}</text>" for s in range(6))
    paths = ""
    for i, (name, points) in enumerate(values.items()):
        run = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in [(0, clean[name]), *points])
        paths += (f"<polyline points='{run}' fill='none' stroke='{COLOURS[i % len(COLOURS)]}' stroke-width='2' "
                  f"stroke-dasharray='{DASHES[i % len(DASHES)]}'><title>{html.escape(name)}</title></polyline>")
    return (f"<figure><svg viewBox='0 0 {width} {height}' role='img' aria-label='{html.escape(title)}'>{lines}{ticks}"
            f"{paths}</svg><figcaption>{html.escape(title)}</figcaption></figure>")


def _curves(report: dict[str, Any], shown: dict[str, str]) -> str:
    names = list(report["models"])
    clean = {shown[name]: report["models"][name]["clean_accuracy"] for name in names}
    charts = []
    for kind in report["models"][names[0]]["kinds"]:
        values = {shown[name]: [(int(s), v) for s, v in report["models"][name]["kinds"][kind]["accuracy"].items()]
                  for name in names}
        charts.append(curve(values, clean, kind))
    legend = " &nbsp; ".join(f"{_swatch(i)}{html.escape(shown[name])}" for i, name in enumerate(names))
    return (f"<h2>Severity curves</h2><p>{legend}</p><div class='grid'>{''.join(charts)}</div>"
            "<p class='small'>Percent correct against severity; 0 is the clean video.</p>")


def _attacks(report: dict[str, Any], shown: dict[str, str]) -> str:
    attacks = next(iter(report["models"].values()))["attacks"]
    if not attacks:
        return ""
    rows = []
    for attack in attacks:
        for i, (name, model) in enumerate(report["models"].items()):
            found = model["attacks"][attack]
            cells = ("<td colspan='5'>needs gradients; this model is a plain function</td>" if found is None else
                     f"<td>{percent(model['clean_accuracy'])}</td><td>{percent(found['robust_accuracy'])}</td>"
                     f"<td>{percent(found['fooling_rate'])}</td><td>{number(found['mean_change_levels'])} / "
                     f"{found['max_change_levels']}</td><td>{found['mean_queries']:.0f}</td>")
            rows.append(f"<tr><td>{attack}</td><td style='text-align:left'>{_swatch(i)}{html.escape(shown[name])}</td>"
                        f"{cells}</tr>")
    options = report["settings"].get("attack_options") or {}
    given = "" if not options else f" Options: <code>{html.escape(json.dumps(options))}</code>."
    return ("<h2>Adversarial change</h2><div class='scroll'><table><tr><th>attack</th><th style='text-align:left'>model"
            "</th><th>clean %</th><th>robust %</th><th>fooling rate %</th><th>change, grey levels<br><small>mean / "
            f"largest</small></th><th>queries per video</th></tr>{''.join(rows)}</table></div><p class='small'>White-"
            "box attacks know the model. The worst of all iterates and restarts, in whole grey levels, is scored. "
            f"Fooling rate: share of correct answers that change.{given}</p>")


def _order(report: dict[str, Any], shown: dict[str, str]) -> str:
    if not any(model["order"] for model in report["models"].values()):
        return ""
    rows = []
    for i, (name, model) in enumerate(report["models"].items()):
        order = model["order"] or {}
        span = order.get("order_reliance_interval")
        rows.append(f"<tr><td>{_swatch(i)}{html.escape(shown[name])}</td><td>{percent(order.get('ordered_accuracy'))}"
                    f"</td><td>{percent(order.get('shuffled_accuracy'))}</td>"
                    f"<td>{percent(order.get('corrected_accuracy'))}</td><td>{percent(order.get('order_reliance'))}"
                    f"{interval(span)}</td><td>{percent(order.get('agreement'))}</td></tr>")
    return ("<h2>Order of the frames</h2><div class='scroll'><table><tr><th>model</th><th>ordered %</th><th>shuffled %"
            "</th><th>corrected %</th><th>order reliance</th><th>same answer<br>after shuffling %</th></tr>"
            f"{''.join(rows)}</table></div><p class='small'>Order reliance = ordered − shuffled accuracy. Near 0 the "
            "model does not look at the order: it recognises pictures, not movement. Corrected: the model's own "
            "temporal attention puts the shuffled frames back.</p>")


def _examples(report: dict[str, Any], folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return ""
    kinds = next(iter(report["models"].values()))["kinds"]
    severities = [str(s) for s in report["settings"]["severities"]]
    chosen = severities if len(severities) <= 3 else [severities[0], severities[len(severities) // 2], severities[-1]]

    def image(tag: str) -> str:
        path = folder / f"{tag}.jpg"
        if not path.is_file():
            return "<td></td>"
        data = base64.b64encode(path.read_bytes()).decode()
        return f"<td><img alt='{tag}' src='data:image/jpeg;base64,{data}'></td>"

    rows = "".join(f"<tr><td>{kind}</td>" + "".join(image(f"{kind}-{s}") for s in chosen) + "</tr>" for kind in kinds)
    head = "<tr><th></th>" + "".join(f"<th style='text-align:center'>severity {s}</th>" for s in chosen) + "</tr>"
    return (f"<h2>What the models saw</h2><table class='examples'><tr><td>clean</td>{image('clean')}</tr>{head}{rows}"
            "</table><p class='small'>The middle frame of one video. A temporal kind shows another frame, or the "
            "same.</p>")


def _settings(report: dict[str, Any]) -> str:
    settings = report["settings"]
    kinds = "".join("<tr>" + "".join(f"<td style='text-align:left'>{k[key]}</td>" for key in
                                     ("kind", "profile", "domain", "coherence")) + "</tr>"
                    for k in report.get("kinds", []))
    table = "" if not kinds else (
        "<details><summary>Constants and places of every kind</summary><table><tr><th>kind</th>"
        "<th style='text-align:left'>constants of</th><th style='text-align:left'>applied to</th>"
        f"<th style='text-align:left'>random draws per</th></tr>{kinds}</table></details>")
    command = f"<p>Made by <code>{html.escape(report['command'])}</code></p>" if report.get("command") else ""
    return (f"<h2>How it was measured</h2>{command}<p>Profile {settings['profile']}; pixels were changed at "
            f"{settings['resolution']} × {settings['resolution']}, then resized to each model; at most "
            f"{settings['max_frames']} source frames of a video; seed {settings['seed']}; marey "
            f"{html.escape(report.get('version', ''))}. One clip and one crop per video, so clean accuracy can differ "
            f"from an evaluation with more views.</p>{table}")


def _pictures(report: dict[str, Any], out: Path) -> list[Path]:
    """Draw heatmap.png and curves.png; nothing where matplotlib is missing."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(report["models"])
    shown = short_names(names)
    kinds = list(report["models"][names[0]]["kinds"])
    figure, axes = plt.subplots(1, len(names), figsize=(2.2 + 2.6 * len(names), 1.4 + 0.27 * len(kinds)), sharey=True,
                                squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        model = report["models"][name]
        grid = [[100 * v for v in model["kinds"][kind]["accuracy"].values()] for kind in kinds]
        severities = list(model["kinds"][kinds[0]]["accuracy"])
        image = axis.imshow(grid, vmin=0, vmax=100, cmap="cividis", aspect="auto")
        axis.set_title(f"{shown[name]}\nclean {percent(model['clean_accuracy'], 0)}%", fontsize=9)
        axis.set_xticks(range(len(severities)), severities)
        axis.set_yticks(range(len(kinds)), kinds, fontsize=8)
        for i, row in enumerate(grid):
            for j, value in enumerate(row):
                axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7,
                          color="black" if value > 55 else "white")
    axes[0][0].set_xlabel("severity")
    figure.colorbar(image, ax=axes, label="accuracy, %", shrink=0.6)
    figure.savefig(out / "heatmap.png", dpi=110)
    plt.close(figure)
    columns = 5
    rows = -(-len(kinds) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 1.7 * rows + 0.6), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")
    for axis in axes.flat[len(kinds):]:
        axis.axis("off")
    for axis, kind in zip(axes.flat, kinds, strict=False):
        for i, name in enumerate(names):
            model = report["models"][name]
            points = {0: model["clean_accuracy"], **{int(s): v for s, v in model["kinds"][kind]["accuracy"].items()}}
            axis.plot(list(points), [100 * v for v in points.values()], color=COLOURS[i % len(COLOURS)],
                      label=shown[name], linewidth=1.6)
        axis.set_title(kind, fontsize=8)
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), fontsize=8)
    figure.savefig(out / "curves.png", dpi=100)
    plt.close(figure)
    return [out / "heatmap.png", out / "curves.png"]
