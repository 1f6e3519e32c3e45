"""Scores as plain text, for the terminal."""

from kws.train.evaluate import ClipScores, Point, StreamScores

__all__ = ["clip_table", "stream_table"]


def clip_table(scores: ClipScores) -> str:
    """Return accuracy, recall per label and what each is taken for, as plain text."""
    lines = [f"{scores.n} clips, {scores.accuracy:.2%} right, model {scores.model_bytes} bytes"]
    if scores.unreadable:
        lines.append(f"{len(scores.unreadable)} not readable: {', '.join(scores.unreadable)}")
    for label, recall in scores.recall.items():
        row = scores.confusion[scores.labels.index(label)]
        wrong = sorted(
            ((n, other) for other, n in zip(scores.labels, row, strict=True)), reverse=True
        )
        taken = ", ".join(f"{other} {n}" for n, other in wrong if n and other != label)
        lines.append(f"{label:>12}  {recall:7.2%}  {sum(row):5d}   {taken}")
    return "\n".join(lines)


def stream_table(scores: StreamScores) -> str:
    """Return misses at each budget of false alarms, with intervals, as plain text."""
    lines = [
        f"{scores.hours:.2f} hours, {scores.n_words} keywords; 95 % intervals in brackets",
        "at most/h  false alarms/h          threshold  missed",
        *(_row(point) for point in scores.points),
    ]
    missed = (f"{word} {rate:.0%}" for word, rate in scores.miss_rate_per_keyword.items())
    lines.append(f"missed there, by keyword: {', '.join(missed)}")
    lines.append(
        f"word end to detection: {scores.latency_ms['p50']:.0f} ms median, "
        f"{scores.latency_ms['p95']:.0f} ms 95th percentile"
    )
    lines.append(f"detections kept with the gate on: {scores.gate_kept:.2%}")
    return "\n".join(lines)


def _row(point: Point) -> str:
    asked = "default" if point.budget is None else f"{point.budget:g}"
    missed = f"{point.miss_rate:6.1%} [{point.miss_low:.1%}, {point.miss_high:.1%}]"
    note = ""
    if point.budget is not None and point.fa_per_hour > point.budget:
        note = "  not reached: the highest threshold tried"
    return (
        f"{asked:>9}  {point.fa_per_hour:5.2f} [{point.fa_low:5.2f},{point.fa_high:6.2f}]  "
        f"{point.threshold:10.3f}  {missed}{note}"
    )
