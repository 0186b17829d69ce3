"""The web page: a video in; the labels, the sampled frames and how far to trust the answer out."""

from __future__ import annotations

import atexit
import html
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI

from marey.corruptions import corrupt, list_corruptions
from marey.errors import UserError, import_extra
from marey.explain.attention import overlay
from marey.inference.annotate import annotate_persons
from marey.inference.detector import Detector
from marey.inference.prediction import Prediction
from marey.inference.predictor import Predictor
from marey.inference.timeline import timeline
from marey.labels.embed import readable
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.draw import clock
from marey.web.limits import Limits, check_limits
from marey.web.models import ModelShelf

EXAMPLES = Path(__file__).with_name("examples")
LONG_SECONDS = 8.0
"""From this duration on the page also shows a timeline."""
KEEP_SECONDS = 600
"""Files of a visit are deleted when it ends, and after so long in any case."""
CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
.trust {border-left: 4px solid #2e86c1; padding: 0.4em 0.9em; line-height: 1.5}
.trust.unknown {border-left-color: #c0392b; background: #fdf0ee; color: #5b1a12}
"""


def mount_page(app: FastAPI, shelf: ModelShelf, limits: Limits) -> FastAPI:
    """Mount the page at `/`; its temporary files live in a folder of the server's own.

    Raises:
        UserError: if the extra "web" is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="marey-page-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    gr = import_extra("gradio", "web", "the page")
    theme = gr.themes.Soft(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return gr.mount_gradio_app(
        app,
        build_page(gr, shelf, limits),
        path="/",
        theme=theme,
        css=CSS,
        show_error=True,
        max_file_size=limits.max_bytes,
        ssr_mode=False,
        footer_links=["api"],
    )


def build_page(gr: Any, shelf: ModelShelf, limits: Limits) -> Any:
    """Lay the page out and tie the button to `recognise`."""
    with gr.Blocks(title="Marey", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as page:
        gr.Markdown(
            "# Marey\nWhat does the person in the video do, and how far can the answer be trusted?"
        )
        with gr.Row():
            with gr.Column(min_width=320):
                video = gr.Video(
                    sources=["upload", "webcam"], label="Video", elem_id="video", height=300
                )
                gr.Markdown(
                    f"Up to {limits.max_megabytes:g} MB and {limits.max_seconds / 60:g} minutes. "
                    "The video stays on this machine and is deleted when you leave."
                )
                model = gr.Dropdown(list(shelf.offered), value=shelf.offered[0], label="Model")
                with gr.Row():
                    corruption = gr.Dropdown(
                        ["none", *list_corruptions()],
                        value="none",
                        label="Also under",
                        info="the same clip, made worse",
                    )
                    severity = gr.Slider(1, 5, value=3, step=1, label="Severity")
                button = gr.Button("Recognise", variant="primary", elem_id="recognise")
                if examples := sorted(map(str, EXAMPLES.glob("*.mp4"))):
                    gr.Examples(
                        [[example] for example in examples], inputs=[video], label="Examples"
                    )
            with gr.Column(min_width=320):
                answer = gr.Label(num_top_classes=5, label="What happens", elem_id="answer")
                trust = gr.HTML(label="Trust", elem_id="trust")
                corrupted = gr.Label(
                    num_top_classes=5,
                    label="Under the corruption",
                    visible=False,
                    elem_id="corrupted",
                )
        frames = gr.Gallery(
            label="Sampled frames, and when they are shown",
            columns=4,
            object_fit="contain",
            elem_id="frames",
        )
        attention = gr.Gallery(
            label="Attention", columns=4, object_fit="contain", visible=False, elem_id="attention"
        )
        moments = gr.Dataframe(
            headers=["from", "to", "action", "probability"],
            label="Timeline",
            visible=False,
            elem_id="timeline",
            interactive=False,
        )
        boxes = gr.Video(label="Persons", visible=False, elem_id="boxes")

        def recognise(
            video: str | None,
            model: str = shelf.offered[0],
            corruption: str = "none",
            severity: float = 3,
        ) -> list[Any]:
            try:
                return _recognise(gr, shelf, limits, video, model, corruption, int(severity))
            except (UserError, OSError) as error:
                _forget(video)
                raise gr.Error(
                    _public(str(error), video), duration=None, print_exception=False
                ) from error

        gr.on(
            [button.click],
            recognise,
            inputs=[video, model, corruption, severity],
            outputs=[answer, trust, corrupted, frames, attention, moments, boxes],
            api_name="predict",
            concurrency_limit=limits.concurrent,
        )
    # Only `launch` sets this, and a mounted page is never launched: without it Gradio takes the
    # path of any file of the
    # server as a visitor's upload (`gradio.processing_utils._check_allowed`).
    page.has_launched = True
    return page.queue(max_size=32)


def _recognise(
    gr: Any,
    shelf: ModelShelf,
    limits: Limits,
    video: str | None,
    model: str,
    corruption: str,
    severity: int,
) -> list[Any]:
    """Return what each part of the page shows, in the order of its outputs."""
    if not video:
        raise UserError(
            "choose a video first: drop a file on the page, record one, or click an example"
        )
    duration = check_limits(video, limits)
    predictor, notice = shelf.get(model)
    if isinstance(predictor, Detector):
        return _detect(gr, predictor, video)
    prediction = predictor(video)
    pictures, attention, rows, corrupted = [], [], [], None
    if isinstance(predictor, Predictor):
        clip = prediction.clips[len(prediction.clips) // 2]
        pictures = [
            (frame.permute(1, 2, 0).numpy(), clock(seconds))
            for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True)
        ]
        attention = _attention(predictor, clip)
        rows = _timeline(predictor, video) if duration >= LONG_SECONDS else []
        corrupted = (
            None if corruption == "none" else _corrupted(predictor, video, corruption, severity)
        )
    return [
        dict(_bars(prediction)),
        _trust_html(prediction, notice),
        gr.Label(
            value=dict(_bars(corrupted)) if corrupted else None,
            visible=corrupted is not None,
            label=f"Under {readable(corruption)}, severity {severity}",
        ),
        pictures,
        gr.Gallery(value=attention, visible=bool(attention)),
        gr.Dataframe(value=rows, visible=bool(rows)),
        gr.Video(value=None, visible=False),
    ]


def _detect(gr: Any, detector: Detector, video: str) -> list[Any]:
    """Return the same parts for a model that finds persons: the actions of the clearest person,
    boxes, a table."""
    found = detector(video)
    tracks = sorted(found.tracks(), key=lambda track: -track["moments"])
    drawn = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / "persons.mp4"
    annotate_persons(video, drawn, found)
    best = (
        {readable(entry["label"]): entry["probability"] for entry in tracks[0]["actions"]}
        if tracks
        else None
    )
    count = f"{len(tracks)} person{'s' if len(tracks) != 1 else ''}"
    said = (
        f"<b>{count} found</b>; above, what the one seen longest does. These probabilities are "
        "not calibrated."
        if tracks
        else "<b>Nobody found.</b>"
    )
    rows = [
        [
            clock(track["from_seconds"]),
            clock(track["to_seconds"]),
            f"person {track['track']}: {readable(track['actions'][0]['label'])}",
            f"{track['actions'][0]['probability']:.0%}",
        ]
        for track in tracks
    ]
    return [
        best,
        f"<div class='trust'>{said}</div>",
        gr.Label(value=None, visible=False),
        [],
        gr.Gallery(value=[], visible=False),
        gr.Dataframe(value=rows, visible=bool(rows)),
        gr.Video(value=str(drawn), visible=True),
    ]


def _bars(prediction: Prediction) -> list[tuple[str, float]]:
    return [(readable(label), probability) for label, probability in prediction.top(5)]


def _trust_html(prediction: Prediction, notice: str) -> str:
    """Return the trust block; every text in it is escaped."""
    trust = prediction.trust
    lines = [
        f"{'Calibrated' if trust['calibrated'] else 'Not calibrated:'} probability "
        f"<b>{trust['probability']:.0%}</b>",
        f"{trust['agreement']:.0%} of the {max(1, len(prediction.clips))} views agree",
    ]
    unknown = trust.get("unknown")
    if unknown is not None:
        lines.insert(
            0,
            f"<b>Unknown</b>: {trust.get('reason') or 'unlike the training videos'}; the names are "
            "only its nearest guesses"
            if unknown
            else "Not unlike the training data",
        )
    if len(trust.get("set", ())) > 1 and not unknown:
        lines.append("One of: " + html.escape(", ".join(trust["set"])))
    lines += [html.escape(trust[key]) for key in ("not_calibrated", "damaged") if key in trust]
    if notice:
        lines.insert(0, html.escape(notice))
    return f"<div class='trust{' unknown' if unknown else ''}'>{'<br>'.join(lines)}</div>"


def _timeline(predictor: Predictor, video: str) -> list[list[str]]:
    return [
        [clock(s.start_seconds), clock(s.end_seconds), readable(s.label), f"{s.probability:.0%}"]
        for s in timeline(predictor, video)
    ]


def _corrupted(predictor: Predictor, video: str, corruption: str, severity: int) -> Prediction:
    """Answer the same window under a corruption, as the robustness benchmark applies it."""
    with open_video(video) as reader:
        clip = predictor.preprocess.sample(reader)
        frames = corrupt(
            clip.frames,
            corruption,
            severity=severity,
            generator=torch.Generator().manual_seed(0),
            fps=reader.fps,
        )
    return predictor.predict_clip(replace(clip, frames=frames))


def _attention(predictor: Predictor, clip: Clip) -> list[Any]:
    """Return the frames with the model's attention laid over them; none for models without
    attention."""
    try:
        return [frame.permute(1, 2, 0).numpy() for frame in overlay(predictor, clip)]
    except UserError:
        return []


def _public(message: str, video: str | None) -> str:
    """Return a message for the visitor: the server's path is cut to the file's name, and marks are
    escaped."""
    return html.escape(message.replace(video, Path(video).name) if video else message, quote=False)


def _forget(video: str | None) -> None:
    """Delete the file of a failed visit; it lies in the server's own temporary folder."""
    if video and Path(video).is_relative_to(os.environ["GRADIO_TEMP_DIR"]):
        Path(video).unlink(missing_ok=True)
