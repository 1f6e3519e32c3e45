"""Scores as plain-text tables of at most 100 columns."""

import math
import textwrap
from collections.abc import Iterator, Sequence

from kws_train.evaluate.clips import ClipScores
from kws_train.evaluate.det import OperatingPoint
from kws_train.evaluate.groups import GroupScores
from kws_train.evaluate.stream import StreamScores

__all__ = ["clip_table", "stream_table"]

_WIDTH = 100
_LONGEST_VALUE = 48
_HEAD = "at most/h  false alarms/h          threshold  missed"
_SPEECH_HEAD = "at most/h  in speech/h             threshold  missed                 as another"


def clip_table(scores: ClipScores) -> str:
    """Return accuracy, recall per label and confusions as text."""
    lines = [f"{scores.n} clips, {scores.accuracy:.2%} right, model {scores.model_bytes} bytes"]
    if scores.unreadable:
        lines.append(f"{len(scores.unreadable)} not readable: {', '.join(scores.unreadable)}")
    for label, recall in scores.recall.items():
        row = scores.confusion[scores.labels.index(label)]
        wrong = sorted(
            ((n, other) for other, n in zip(scores.labels, row, strict=True)), reverse=True
        )
        taken = ", ".join(f"{other} {n}" for n, other in wrong if n and other != label)
        head = f"{label:>12}  {recall:7.2%}  {sum(row):5d}   "
        lines.append(_wrapped(head, taken))
    lines.append(f"expected calibration error {scores.reliability.expected_error:.2%}")
    return "\n".join(lines)


def stream_table(scores: StreamScores) -> str:
    """Return the miss rate at each budget of false alarms, with intervals, as text."""
    lines = [
        f"{scores.hours:.2f} hours, {scores.n_words} keywords; 95 % intervals in brackets",
        f"without the gate\n{_HEAD}",
        *(_row(point) for point in scores.points),
        f"with the gate\n{_HEAD}",
        *(_row(point) for point in scores.gated_points),
    ]
    lines.append(f"without the gate, by false alarms in speech without keywords\n{_SPEECH_HEAD}")
    lines += [_speech_row(point) for point in scores.speech_points]
    if scores.calibrated:
        lines.append(f"with the gate, at the model's calibrated thresholds\n{_HEAD}")
        lines += [_row(point, has_budget=False) for point in scores.calibrated]
    for one in scores.conditions:
        lines.append(f"{one.name} alone, without the gate: {one.n_words} keywords\n{_HEAD}")
        lines += [_row(point) for point in one.points]
        lines.append(f"{one.name} alone, by false alarms in speech\n{_SPEECH_HEAD}")
        lines += [_speech_row(point) for point in one.speech_points]
    lines += _groups(scores.groups)
    lines += [
        f"false alarms that are one keyword taken for another: {scores.n_false_on_words}",
        f"word end to detection: {scores.latency_ms['p50']:.0f} ms median, "
        f"{scores.latency_ms['p95']:.0f} ms 95th percentile",
        f"detections kept with the gate on: {scores.gate_kept:.2%} (all at the default)",
    ]
    return "\n".join(lines)


def _row(point: OperatingPoint, *, has_budget: bool = True) -> str:
    asked = "default" if point.budget is None else f"{point.budget:g}"
    missed = f"{point.miss_rate:6.1%} [{point.miss_low:.1%}, {point.miss_high:.1%}]"
    note = ""
    if has_budget and point.budget is not None and point.fa_per_hour > point.budget:
        note = "  not reached"
    threshold = "per word" if math.isnan(point.threshold) else f"{point.threshold:.3f}"
    return (
        f"{asked:>9}  {point.fa_per_hour:5.2f} [{point.fa_low:5.2f},{point.fa_high:6.2f}]  "
        f"{threshold:>10}  {missed}{note}"
    )


def _speech_row(point: OperatingPoint) -> str:
    interval = f"[{point.speech_fa_low or 0:5.2f},{point.speech_fa_high or 0:6.2f}]"
    missed = f"{point.miss_rate:6.1%} [{point.miss_low:.1%}, {point.miss_high:.1%}]"
    return (
        f"{point.budget or 0:>9g}  {point.speech_fa_per_hour or 0:5.2f} {interval}  "
        f"{point.threshold:>10.3f}  {missed:<22}  {point.confused_rate or 0:.1%}"
    )


def _groups(groups: Sequence[GroupScores]) -> Iterator[str]:
    """Give a table for each way of grouping and each threshold."""
    for by, threshold in dict.fromkeys((one.by, one.threshold) for one in groups):
        title = f"by {by}, at {threshold:.3f}"
        yield f"{title:<34}  {'missed':<25}  false alarms/h"
        for one in groups:
            if (one.by, one.threshold) == (by, threshold):
                yield _group_row(one)


def _group_row(one: GroupScores) -> str:
    missed = false = "-"
    if one.miss_rate is not None:
        missed = f"{one.miss_rate:6.1%} [{one.miss_low:.1%}, {one.miss_high:.1%}]"
    if one.fa_per_hour is not None:
        false = f"{one.fa_per_hour:6.2f} [{one.fa_low:.2f}, {one.fa_high:.2f}]"
    return f"  {one.value[:_LONGEST_VALUE]:<32}  {missed:<25}  {false}"


def _wrapped(head: str, text: str) -> str:
    """Continue long text below its beginning."""
    return textwrap.fill(
        head + text,
        width=_WIDTH,
        subsequent_indent=" " * len(head),
        replace_whitespace=False,
        break_on_hyphens=False,
    )
