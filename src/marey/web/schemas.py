"""The answers of the API as types: they are what `/docs` shows and what the tests check answers
against."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Every answer but those with a status of 2xx."""

    detail: str = Field(description="One line: what was expected, what came, what to do.")


class LabelProbability(BaseModel):
    """One answer of a model."""

    label: str
    probability: float = Field(ge=0, le=1)


class Trust(BaseModel):
    """How far an answer can be trusted; further keys where the model stores more."""

    model_config = ConfigDict(extra="allow")

    probability: float | None = Field(None, description="Of the first answer.")
    calibrated: bool | None = Field(
        None, description="Whether probabilities were measured on videos the model had not seen."
    )
    agreement: float | None = Field(None, description="Share of the views that agree, 0 to 1.")
    unknown: bool | None = Field(
        None, description="Whether this is none of the model's actions; null: it cannot say."
    )
    reason: str | None = Field(None, description="Why it is unknown.")
    set: list[str] | None = Field(
        None, description="Labels that hold the true one at 90 % coverage."
    )


class VideoAnswer(BaseModel):
    """The answer to one video, as `marey predict --json` and `marey detect --json` give it."""

    model_config = ConfigDict(extra="allow")

    video: str = Field(description="The name under which it was uploaded.")
    error: str | None = Field(description="null, or why this video has no answer.")
    predictions: list[LabelProbability] | None = Field(
        None, description="Of models that name the action, most probable first."
    )
    frame_seconds: list[float] | None = Field(None, description="When the model looked.")
    trust: Trust | None = None
    persons: list[dict[str, Any]] | None = Field(
        None, description="What each person does, of models that read poses."
    )
    tracks: list[dict[str, Any]] | None = Field(None, description="Of models that find persons.")
    moments: list[dict[str, Any]] | None = Field(None, description="Of models that find persons.")


class Answer(BaseModel):
    """The answers to one request."""

    model: str
    results: list[VideoAnswer]


class Offer(BaseModel):
    """A model of this server."""

    name: str
    classes: list[str] | None = Field(description="What it knows; null: not loaded yet.")


class Models(BaseModel):
    """The models of this server, the default first."""

    models: list[str]
    offered: list[Offer]


class JobState(BaseModel):
    """A request of the page while it is worked on."""

    id: str
    state: str = Field(description="queued, running, done, failed or cancelled.")
    position: int = Field(description="Place in the queue; 0 when it no longer waits.")
    progress: dict[str, Any] = Field(description="stage, done, total.")
    parts: list[dict[str, Any]] = Field(description="Parts of the answer, from `from_part` on.")
    next_part: int
    result: dict[str, Any] | None
    error: str | None
    status: int
