"""Teach a recogniser the user's own actions from labelled videos, and say honestly what it is
worth.

    taught = marey.teach("videos/", "my-model")
    taught.report["accuracy"], taught.report["controls"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.encoders import (
    LoadedEncoder,
    bundled_frames,
    frames_preprocess,
    load_encoder,
)
from marey.checkpoints.folder import save_checkpoint
from marey.datasets.seen import describe_training
from marey.errors import UserError, VideoError, unknown_name
from marey.evaluation.trust import fit_trust_of_answers
from marey.features.cache import FeatureCache
from marey.features.far_bank import far_bank
from marey.features.pose_cache import cached_poses
from marey.features.video_vectors import OF_PEOPLE, POSE_FPS, VECTOR_DIMS, VideoVectors
from marey.features.videos import EncodedVideos, VideoEncoder, encode_videos, parts_of, video_tokens
from marey.files import finite, write_json, write_text
from marey.metrics.comparison import compare
from marey.metrics.selective import rejection_threshold
from marey.models.device import best_device
from marey.models.encoders import encoder_name
from marey.models.outputs import outputs_of
from marey.models.probe import Probe
from marey.teaching.controls import majority, metadata_of, metadata_predictions
from marey.teaching.crossval import (
    Candidate,
    CrossValidated,
    cross_validate,
    learning_curve,
    linear_map,
    union_of,
)
from marey.teaching.data import TeachingData, kept, open_teaching_data
from marey.teaching.folds import MAX_FOLDS, folds_of
from marey.teaching.networks import (
    NETWORKS,
    PLANS,
    builder,
    clips_of,
    cross_validate_network,
    tokens_of,
    train_probe,
)
from marey.teaching.page import model_card, page

METHODS = ("auto", "probe", *NETWORKS)
ATTENTIVE_FROM = 40
"""Examples of the rarest class from which `method="auto"` also tries attentive pooling."""
CLEARLY = 0.05
"""Largest p-value of a paired test with which it takes the place of the linear map."""
PICTURES = ("frames", "motion", "frames+motion")
PEOPLE = (
    "poses",
    "frames+poses",
    "motion+poses",
    "frames+motion+poses",
    "frames+crops+motion+poses",
)
"""What `encoder="auto"` compares, without and with finding the people; of equal accuracies the one
named first wins."""
DESCRIBED = {
    "attentive": "a learned query over the tokens of a frozen encoder",
    "lora": "low-rank adapters in the encoder and a linear map",
    "full": "the whole encoder fine-tuned with layer decay, and a linear map",
}
LOOKED_AT = 12
"""Videos in which `encoder="auto"` looks for people before it does so in all of them."""
MIN_PEOPLED = 0.2
"""Share of moments with a person below which it does not."""

Tick = Callable[[str, int, int], None]
"""Called with (what is being done, videos done, videos in all)."""


@dataclass(kw_only=True)
class Taught:
    """What `teach` or `crossval` found."""

    report: dict[str, Any]
    """JSON types: accuracy with interval, controls, confusion, folds, learning curve, errors."""
    crossval: CrossValidated
    """With the out-of-fold answers."""
    data: TeachingData
    """The readable videos."""
    out: Path | None = None
    """The model's folder."""


def teach(
    data: str | Path,
    out: str | Path,
    *,
    encoder: str = "auto",
    method: str = "auto",
    shots: int | None = None,
    dataset: str | None = None,
    group: str | None = None,
    views: int = 3,
    num_folds: int = MAX_FOLDS,
    seed: int = 0,
    device: str = "auto",
    target_accuracy: float | None = None,
    cache: FeatureCache | None = None,
    tick: Tick | None = None,
) -> Taught:
    """Learn the classes of some labelled videos and write a model, its card and a page.

    Ridge regression on the embedding of a frozen encoder. Encoder and strength are chosen by
    cross-validation over groups; encoders that are about as good as the best one answer together.
    The accuracy that is stated comes from videos that took no part in either.

    Args:
        data: folder of class folders, manifest or official layout.
        out: folder of the checkpoint, with "report.html", "README.md" and "teach.json".
        encoder: "auto" compares frames, motion, crops, poses and their sums; or what
            `VideoEncoder` takes.
        method: "probe": ridge or logistic regression; "attentive": a learned query over the
            encoder's tokens; "lora": low-rank adapters in a transformer encoder; "full":
            fine-tuning with layer decay; "auto": probe, and attentive beside it where every class
            has enough examples, taken where it is clearly better.
        shots: use this many videos of each class.
        group: what no fold may cut, as `open_teaching_data` takes it.
        views: temporal views per video.
        num_folds: of the outer cross-validation.
        target_accuracy: share of the given answers that should be right, 0..1: the probability
            below which the model does not answer is stored with it, chosen on the out-of-fold
            answers. Where no share of them is that accurate, nothing is stored and a note says so.
        cache: of the embeddings; interrupted, the next call goes on from it.

    Raises:
        UserError: if the data cannot be learned from, or a name is unknown.
    """
    if target_accuracy is not None and not 0 < target_accuracy <= 1:
        raise UserError(f"a target accuracy lies between 0 and 1, got {target_accuracy:g}")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if method in NETWORKS and encoder == "auto":
        encoder = "frames"
    if method in NETWORKS and all(part in VECTOR_DIMS for part in parts_of(encoder)):
        raise UserError(
            f"method '{method}' trains on clips, and '{encoder}' reads none; add an encoder of "
            f"clips, such as frames+{encoder}, or take --method probe"
        )
    started = time.monotonic()
    found, encoded, encoders = measure(
        data,
        encoder=encoder,
        shots=shots,
        dataset=dataset,
        group=group,
        views=views,
        num_folds=num_folds,
        seed=seed,
        device=device,
        cache=cache,
        tick=tick,
    )
    name = found.crossval.encoder
    tried, why = _method(method, found, encoders[name])
    found.report["method_choice"] = why
    model, loaded = _fitted(_linear(found, encoded), encoders[name])
    trained = None
    if tried is not None:
        trained = _trained(tried, found, encoded[name], encoders[name], model, seed, cache, tick)
    far = _far(model, encoders[name], views, cache) if trained is None else None
    model = model if trained is None else trained
    calibration, tensors = fit_trust_of_answers(
        found.crossval.answers, far=far, blocks=encoded[name].blocks
    )
    if target_accuracy is not None:
        _reject(found, calibration, target_accuracy)
    found.report["calibration"] = calibration
    found.report["seconds"] = time.monotonic() - started

    out = Path(out)
    save_checkpoint(
        out,
        model,
        class_names=found.data.class_names,
        preprocess=loaded.preprocess,
        calibration=calibration,
        tensors={**describe_training(found.data.index), **tensors},
        extra={"task": "taught", "encoder": name, "videos": len(found.data.index)},
    )
    write_json(out / "teach.json", finite(found.report))
    write_text(out / "README.md", model_card(found.report))
    write_text(out / "report.html", page(found.report, found.data.index))
    found.crossval.answers.save(out / "out-of-fold")
    found.out = out
    return found


def measure(
    data: str | Path,
    *,
    encoder: str = "auto",
    shots: int | None = None,
    dataset: str | None = None,
    group: str | None = None,
    views: int = 3,
    num_folds: int = MAX_FOLDS,
    seed: int = 0,
    device: str = "auto",
    cache: FeatureCache | None = None,
    tick: Tick | None = None,
) -> tuple[Taught, dict[str, EncodedVideos], dict[str, VideoEncoder]]:
    """Cross-validate a probe over groups beside its controls; arguments as `teach`.

    Returns:
        What was found, and the embeddings and encoders by name.
    """
    opened = open_teaching_data(data, dataset=dataset, group=group, shots=shots, seed=seed)
    device = best_device() if device == "auto" else device
    cache = FeatureCache() if cache is None else cache
    names: tuple[str, ...] = (encoder,)
    if encoder == "auto":
        share = peopled(opened, cache, seed)
        names = PICTURES if share < MIN_PEOPLED else PICTURES + PEOPLE
        opened.notes.append(
            f"somebody is seen in {share:.0%} of the moments of {min(LOOKED_AT, len(opened.index))}"
            f" videos, so poses were {'left out' if share < MIN_PEOPLED else 'compared too'}"
        )
    finder = VideoVectors(OF_PEOPLE).finder if any_people(names) else None
    frames = load_encoder("frames") if len(names) > 1 else None
    encoders = {
        name: VideoEncoder(
            name,
            device=device,
            loaded=frames if "frames" in parts_of(name) else None,
            finder=finder,
        )
        for name in names
    }

    def ticker(what: str) -> Callable[[int, int], None] | None:
        return None if tick is None else lambda done, total: tick(what, done, total)

    encoded = {
        name: encode_videos(
            encoders[name], opened.index, views=views, cache=cache, tick=ticker(name)
        )
        for name in names
    }
    # A damaged file may be readable for one encoder and not for another.
    positions = sorted(set.intersection(*(set(part.positions) for part in encoded.values())))
    encoded = {name: part.only(positions) for name, part in encoded.items()}
    unreadable = {entry["video"]: entry for part in encoded.values() for entry in part.unreadable}
    chosen = kept(opened, positions)
    candidates = [Candidate(name, encoded[name].features, encoded[name].blocks) for name in names]
    folds = folds_of(chosen.labels, chosen.groups, num_folds, seed)
    found = cross_validate(
        candidates,
        chosen.labels,
        chosen.groups,
        chosen.class_names,
        videos=[chosen.index.relative_path(sample) for sample in chosen.index.samples],
        folds=folds,
        seed=seed,
        name=str(data),
    )
    found.answers.unreadable = list(unreadable.values())
    if found.encoder not in encoded:
        chosen_ones = [candidates[number] for number, _ in found.choice.members]
        union, any_part = union_of(chosen_ones), encoded[names[0]]
        encoded[union.name] = replace(any_part, features=union.features, blocks=union.blocks)
        encoders[union.name] = VideoEncoder(
            union.name,
            device=device,
            loaded=frames if "frames" in parts_of(union.name) else None,
            finder=finder,
        )
    report = {
        "data": str(data),
        "classes": chosen.index.class_counts,
        "grouped": chosen.grouped,
        "notes": chosen.notes,
        "unreadable": list(unreadable.values()),
        "method": f"probe: {found.choice.kind} regression on a frozen encoder",
        "method_choice": "cross-validation of a linear map of a frozen encoder",
        **found.summary(),
        "controls": _controls(chosen, found, folds, views, seed, cache, ticker("one picture")),
        "learning_curve": learning_curve(
            [(candidates[number], strength) for number, strength in found.choice.members],
            chosen.labels,
            folds,
            chosen.class_names,
            seed=seed,
        ),
        "errors": _worst_errors(found),
    }
    if not chosen.grouped:
        report["interval_over"] = "videos"
    report["record_more"] = _record_more(report, chosen)
    return Taught(report=report, crossval=found, data=chosen), encoded, encoders


def _reject(found: Taught, calibration: dict[str, Any], target_accuracy: float) -> None:
    """Store the probability below which the model does not answer, or note why there is none."""
    cross = found.crossval
    probs = (cross.answers.logits[:, 0].double() / calibration.get("temperature", 1.0)).softmax(-1)
    try:
        rejection = rejection_threshold(
            probs.max(1).values, cross.correct, target_accuracy=target_accuracy
        )
    except UserError as error:
        found.report["notes"] = [*found.report["notes"], f"no answer is held back: {error}"]
        return
    measured_on = "out-of-fold answers about the training videos"
    calibration["rejection"] = {**rejection, "data": measured_on}
    found.report["notes"] = [
        *found.report["notes"],
        f"below a probability of {rejection['threshold']:.2f} the model does not answer: "
        f"{rejection['coverage']:.0%} of the videos are answered, {rejection['accuracy']:.0%} of "
        f"them right ({measured_on})",
    ]


def crossval(data: str | Path, **options: Any) -> Taught:
    """Return what `teach` would state of some videos, without writing a model; arguments as
    `measure`."""
    return measure(data, **options)[0]


def _method(method: str, found: Taught, encoder: VideoEncoder) -> tuple[str | None, str]:
    """Return the network to train, None for the linear map alone, and why."""
    if method == "probe":
        return None, "asked for: a linear map of a frozen encoder"
    if method != "auto":
        return method, f"asked for: {method}"
    fewest = min(count for count in found.data.index.class_counts.values() if count)
    why = (
        "adapters and fine-tuning are not tried unasked: --method lora or full, with a "
        "transformer encoder and better with a GPU"
    )
    if encoder.clips is None:
        return None, f"a linear map: '{encoder.source}' has no tokens to attend to; {why}"
    if fewest < ATTENTIVE_FROM:
        return None, (
            f"a linear map: attentive pooling is tried from {ATTENTIVE_FROM} examples a class, the "
            f"rarest class has {fewest}; {why}"
        )
    return "try attentive", why


def _trained(
    method: str,
    found: Taught,
    encoded: EncodedVideos,
    encoder: VideoEncoder,
    fitted: Probe,
    seed: int,
    cache: FeatureCache | None,
    tick: Tick | None,
) -> Probe | None:
    """Cross-validate a network on the folds of the probe, and train it on all videos.

    The report and the out-of-fold answers become those of the network; a network that was only
    tried has to be clearly better than the probe.

    Returns:
        The network; None where the probe stays.
    """
    asked, method = not method.startswith("try "), method.removeprefix("try ")
    assert encoder.clips is not None
    data, before = found.data, found.crossval
    pooler = None
    vectors = _vectors(encoded, encoder)
    if method == "attentive":
        encoder.clips.encoder.to(encoder.device)
        tokens = video_tokens(encoder, data.index, cache=cache)
        pooler = {"dim": tokens.shape[2]}
        batch_of = tokens_of(tokens)
    else:
        batch_of = clips_of(data.index, encoder.clips.preprocess)
    network: Any = encoder.clips.encoder.cpu()
    torch.manual_seed(seed)
    probe = Probe(
        encoder_name(network),
        network.arguments,
        len(data.class_names),
        vectors=fitted.vectors,
        pooler=pooler,
    )
    probe.encoder.load_state_dict(network.state_dict())
    labels, plan = before.targets, PLANS[method]
    folds = before.answers.outputs["fold"]
    logits = cross_validate_network(
        builder(probe),
        method,
        batch_of,
        vectors,
        labels,
        folds,
        plan=plan,
        device=str(encoder.device),
        seed=seed,
        tick=None if tick is None else lambda done, total: tick(f"{method}, folds", done, total),
    )
    correct = logits.argmax(1) == labels
    compared = compare(before.correct, correct, data.labels, groups=data.groups)
    p = compared["group_test_p"] if compared["group_test_p"] is not None else compared["mcnemar_p"]
    beside = f"{method} {compared['top1_b']:.2f} beside the linear map's {compared['top1_a']:.2f}"
    found.report["methods"] = {"probe": compared["top1_a"], method: compared["top1_b"], "p": p}
    better = compared["difference"] > 0 and p < CLEARLY
    found.report["method_choice"] = f"{beside} on the same folds (p = {p:.3f}); " + (
        found.report["method_choice"]
        if asked
        else f"{'it is' if better else 'it is not'} clearly better; "
        + found.report["method_choice"]
    )
    if not asked and not better:
        return None
    trained = train_probe(
        probe,
        method,
        batch_of,
        vectors,
        labels,
        list(range(len(labels))),
        plan=plan,
        device=str(encoder.device),
        seed=seed,
    )
    before.answers.outputs["logits"] = logits[:, None]
    if method != "attentive":  # the encoder has changed, and with it what distances are measured in
        embedding = [
            outputs_of(
                trained, batch_of([row]), vectors=None if vectors is None else vectors[[row]]
            )
            for row in range(len(labels))
        ]
        before.answers.outputs["embedding"] = torch.stack([o["embedding"] for o in embedding])
    found.report |= {
        key: value for key, value in before.summary().items() if key not in ("folds", "candidates")
    }
    found.report["method"] = f"{method}: {DESCRIBED[method]}"
    found.report["kind"] = method
    found.report["errors"] = _worst_errors(before)
    for control in ("metadata", "single_frame"):
        stored = found.report["controls"][control]
        right = torch.tensor(stored["correct"])
        found.report["controls"][control] = {**stored, **_beside(right, before, data)}
    return trained


def _vectors(encoded: EncodedVideos, encoder: VideoEncoder) -> Tensor | None:
    """Return what is measured of every video, (N, E), or None."""
    width = sum(VECTOR_DIMS[name] for name in encoder.vectors.names)
    return encoded.features[:, 0, -width:].float() if width else None


def any_people(names: Sequence[str]) -> bool:
    """Return whether any of some encoders finds the people first."""
    return any(part in OF_PEOPLE for name in names for part in parts_of(name))


def peopled(data: TeachingData, cache: FeatureCache, seed: int) -> float:
    """Return the share of moments with a person, of a few videos drawn at random; their poses are
    kept."""
    order = torch.randperm(len(data.index), generator=torch.Generator().manual_seed(seed))
    shares = []
    finder = None
    for position in order[:LOOKED_AT].tolist():
        sample = data.index.samples[position]
        if sample.row is not None:
            continue
        finder = VideoVectors(OF_PEOPLE).finder if finder is None else finder
        try:
            found = cached_poses(
                sample.path,
                cache,
                fps=POSE_FPS,
                finder=finder,
                start_seconds=sample.start_seconds,
                end_seconds=sample.end_seconds,
            )
        except VideoError:
            continue
        seen = {index for track in found.tracks for index in track.frame_indices.tolist()}
        shares.append(len(seen) / max(1, len(found.frame_indices)))
    return sum(shares) / len(shares) if shares else 1.0


def _linear(found: Taught, encoded: dict[str, EncodedVideos]) -> tuple[Tensor, Tensor]:
    """Return weight (K, Q) and bias (K,) of what was chosen, fitted on all videos."""
    members = []
    for row in found.crossval.averaged:
        own = encoded[row["encoder"]]
        members.append((Candidate(row["encoder"], own.features, own.blocks), row["strength"]))
    names = found.data.class_names
    labels = torch.tensor([names.index(label) for label in found.data.labels])
    return linear_map(members, labels, len(names), kind=found.crossval.choice.kind)


def _fitted(linear: tuple[Tensor, Tensor], encoder: VideoEncoder) -> tuple[Probe, LoadedEncoder]:
    """Return the probe of a weight and a bias, and the encoder whose preprocessing it needs."""
    weight, bias = linear
    loaded = encoder.clips
    network: Any = None if loaded is None else loaded.encoder.cpu()
    probe = Probe(
        None if network is None else encoder_name(network),
        {} if network is None else network.arguments,
        len(bias),
        vectors={name: VECTOR_DIMS[name] for name in encoder.vectors.names},
    )
    if network is not None:
        probe.encoder.load_state_dict(network.state_dict())
    with torch.no_grad():
        probe.head.weight.copy_(weight)
        probe.head.bias.copy_(bias)
    if loaded is None:  # vectors decide alone: clips are only shown, not read
        loaded = LoadedEncoder(encoder=probe, preprocess=frames_preprocess(), source=encoder.source)
    return probe.eval(), loaded


def _far(
    model: Probe, encoder: VideoEncoder, views: int, cache: FeatureCache | None
) -> tuple[Tensor, Tensor]:
    """Return what the model says of the bank of other footage: logits (M, K), embeddings (M, D)."""
    if encoder.clips is not None:
        encoder.clips.encoder.to(encoder.device)
    encoded = encode_videos(encoder, far_bank(), views=views, cache=cache)
    embedding = encoded.features.mean(1)
    with torch.inference_mode():
        return model.head(embedding), embedding


def _controls(
    data: TeachingData,
    found: CrossValidated,
    folds: Tensor,
    views: int,
    seed: int,
    cache: FeatureCache | None,
    tick: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Return the controls on the same folds, each with its paired comparison."""
    facts = torch.tensor([metadata_of(sample, data.index) for sample in data.index.samples])
    targets = found.targets
    predicted = metadata_predictions(facts, targets, folds)
    best = max(predicted, key=lambda name: int((predicted[name] == targets).sum()))

    picture = LoadedEncoder(
        encoder=bundled_frames(num_frames=1, statistics=("mean",)),
        preprocess=frames_preprocess(num_frames=1),
        source="one picture",
    )
    one = encode_videos(
        VideoEncoder("frames", loaded=picture), data.index, views=1, cache=cache, tick=tick
    )
    single = cross_validate(
        [Candidate("one picture", one.features, one.blocks)],
        data.labels,
        data.groups,
        data.class_names,
        folds=folds,
        seed=seed,
    )
    return {
        "metadata": {
            "classifier": best,
            "accuracies": {
                name: (answers == targets).double().mean().item()
                for name, answers in predicted.items()
            },
            **_beside(predicted[best] == targets, found, data),
        },
        "single_frame": _beside(single.correct, found, data),
        "majority": majority(data.labels),
    }


def _beside(correct: Tensor, found: CrossValidated, data: TeachingData) -> dict[str, Any]:
    """Return a control's accuracy, and the probe's gain over it with paired tests."""
    compared = compare(correct, found.correct, data.labels, groups=data.groups)
    keys = ("difference", "low", "high", "interval", "mcnemar_p", "group_test_p")
    return {
        "accuracy": compared["top1_a"],
        "gain": {key: compared[key] for key in keys},
        "correct": correct.tolist(),
    }


def _worst_errors(found: CrossValidated, most: int = 10) -> list[dict[str, Any]]:
    """Return the wrong out-of-fold answers, the surest first."""
    probabilities = found.answers.logits[:, 0].softmax(-1)
    wrong = (~found.correct).nonzero()[:, 0]
    order = wrong[probabilities[wrong].max(1).values.argsort(descending=True)]
    names = found.answers.class_names
    return [
        {
            "video": found.answers.videos[row],
            "row": row,
            "label": found.answers.labels[row],
            "answer": names[int(probabilities[row].argmax())],
            "score": float(probabilities[row].max()),
        }
        for row in order[:most].tolist()
    ]


def _record_more(report: dict[str, Any], data: TeachingData) -> list[str]:
    """Return what to record next, one sentence each, the most useful first."""
    advice = []
    names, counts = report["confusion"]["classes"], report["confusion"]["counts"]
    recalls: Sequence[tuple[float, str, str]] = sorted(
        (
            row[k] / max(1, sum(row)),
            names[k],
            names[max((j for j in range(len(names)) if j != k), key=lambda j: row[j])],
        )
        for k, row in enumerate(counts)
    )
    for recall, name, confused in recalls[:2]:
        if recall < 0.9:
            advice.append(
                f"'{name}': {recall:.0%} are recognised, most of the others are taken for "
                f"'{confused}'; record both side by side, by the same people in the same places"
            )
    few = [name for name, count in data.index.class_counts.items() if 0 < count < 10]
    if few:
        advice.append(f"fewer than 10 videos of {', '.join(few)}; record more of them first")
    curve = report["learning_curve"]
    if len(curve) > 1 and curve[-1]["accuracy"] - curve[-2]["accuracy"] > 0.02:
        before, after = curve[-2], curve[-1]
        advice.append(
            f"the accuracy still rises with more examples a class ({before['accuracy']:.2f} at "
            f"{before['shots']}, {after['accuracy']:.2f} at {after['shots']}), so more of every "
            "class helps"
        )
    if len(set(data.groups)) < 5:
        advice.append(
            f"{len(set(data.groups))} groups only; record in five or more places, or five people"
        )
    metadata = report["controls"]["metadata"]
    chance = report["controls"]["majority"]["accuracy"]
    if metadata["accuracy"] > chance + 0.15:
        advice.append(
            f"size, length and rate alone name the class in {metadata['accuracy']:.0%} of the "
            "videos; record every class with one camera, at one size and for one length"
        )
    return advice or ["nothing stands out; new people and places are always worth recording"]
