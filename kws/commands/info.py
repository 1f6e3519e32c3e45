"""The manifest of a model in words."""

from collections.abc import Iterator

import msgspec

from kws.errors import printable
from kws.manifest import Manifest

__all__ = ["facts", "manifest_json"]


def facts(manifest: Manifest, *, n_bytes: int) -> Iterator[tuple[str, str]]:
    """Describe a manifest: a title and a text per line, control characters escaped."""
    for title, text in _facts(manifest, n_bytes=n_bytes):
        yield title, printable(text)


def manifest_json(manifest: Manifest, *, n_bytes: int) -> str:
    """Return a manifest and the size of its file as a line of JSON, control characters escaped."""
    everything = {**msgspec.to_builtins(manifest), "model_bytes": n_bytes}
    text = msgspec.json.encode(everything).decode()
    return "".join(one if one.isprintable() else _json_escape(one) for one in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _facts(manifest: Manifest, *, n_bytes: int) -> Iterator[tuple[str, str]]:
    features, decision = manifest.features, manifest.decision
    hop_ms = 1000 * features.hop_samples / features.sample_rate_hz
    window_ms = 1000 * features.window_samples / features.sample_rate_hz
    yield "name", manifest.name
    yield "description", manifest.description or "none"
    yield "size", f"{n_bytes / 1000:.1f} kB, {manifest.quantization}"
    if manifest.labels:
        yield "keywords", ", ".join(manifest.keywords)
        yield "labels", ", ".join(manifest.labels)
    else:
        yield "output", f"embeddings of {manifest.embedding} values"
    yield (
        "features",
        f"{features.n_features} {features.kind} values from {window_ms:g} ms every {hop_ms:g} ms "
        f"at {features.sample_rate_hz} Hz",
    )
    unit = f"vector of {manifest.takes.name}" if manifest.takes else "frame"
    if manifest.takes:
        yield (
            "takes",
            f"vectors of the embedding `{manifest.takes.name}`, sha256 "
            f"{manifest.takes.sha256[:12]}...",
        )
    yield (
        "kind",
        f"{manifest.kind}: {_count(manifest.n_frames, unit)} per call, "
        + (
            f"{_count(len(manifest.states), 'state')} kept between calls"
            if manifest.kind == "step"
            else f"moved by {manifest.hop_frames}"
        ),
    )
    if manifest.labels:
        yield (
            "latency",
            f"a call every {manifest.call_ms:g} ms; trained for "
            f"{decision.delay_ms} ms after the end of a word",
        )
        yield (
            "decision",
            f"threshold {decision.threshold:g}, smoothing {decision.smoothing_ms} ms, "
            f"refractory {decision.refractory_ms} ms",
        )
    else:
        yield "latency", f"a call every {manifest.call_ms:g} ms"
    if manifest.speaker:
        yield "speaker", f"verified: a score of {manifest.speaker.threshold:g} or more"
    for point in manifest.calibration:
        thresholds = ", ".join(f"{word} {value:g}" for word, value in point.thresholds.items())
        yield "calibration", f"{point.false_alarms_per_hour:g} false alarms/h: {thresholds}"
    if basis := manifest.calibrated_on:
        conditions = f" ({', '.join(basis.conditions)})" if basis.conditions else ""
        yield (
            "calibrated on",
            f"{basis.hours:.2g} h{conditions} with {_count(basis.words, 'keyword')} among "
            f"{basis.speech_hours:.2g} h of different speech",
        )
    if manifest.labels and not manifest.calibration:
        yield "calibration", "none"
    for source in manifest.data:
        clips = _count(source.clips, "clip") if source.clips else ""
        hours = f"{source.hours:g} h" if source.hours else ""
        yield "data", ", ".join(filter(None, (source.name, clips, hours, source.licence)))
    yield "licence", manifest.licence or "not stated"


def _count(n: int, noun: str) -> str:
    """Return "1 word", "2 words", "2 words of speech"."""
    word, *rest = noun.split(" ", 1)
    return " ".join((str(n), word if n == 1 else f"{word}s", *rest))
