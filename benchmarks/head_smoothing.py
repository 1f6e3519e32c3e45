"""Choose the smoothing of heads on some words, and report it on another: leave one word out.

    python benchmarks/head_smoothing.py runs/heads/*-0.work --smoothing-ms 320 --smoothing-ms 640

Takes finished work folders of `kws new` or `benchmarks/own_word.py`. Their heads run without the
gate over their evaluation streams, once; each smoothing is applied to the same posteriors. For each
word, the smoothing with the fewest misses of the other words is chosen, and its own misses with it
are reported: no choice was made on them. Misses are means over the operating points of one to six
false alarms, as a single one decides too little. `--tuning` takes the streams that thresholds are
set on. Folders of `--format microwakeword` are taken too, with multiples of 30 ms.
"""

from pathlib import Path

import click
import msgspec
import numpy as np

from kws.arrays import Frames
from kws.features import open_features
from kws.manifest import Manifest
from kws.model import Model, n_cold_vectors, open_embedding, open_model
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import DetCurve, det_curve
from kws_train.evaluate.traces import TAIL_SAMPLES, Trace
from kws_train.own_word.evaluation import NOISY_SNR_DB, evaluation_streams
from kws_train.own_word.word_vectors import vector_tuning_streams
from kws_train.own_word.workspace import Workspace

Misses = dict[int, list[float]]  # by smoothing: of each condition


@click.command()
@click.argument("folders", metavar="WORK...", nargs=-1, required=True, type=Path)
@click.option("--smoothing-ms", "choices", multiple=True, type=int, default=(320, 480, 640))
@click.option("--tuning", is_flag=True)
def main(folders: tuple[Path, ...], choices: tuple[int, ...], *, tuning: bool) -> None:
    """Print misses at each smoothing, then each word at the smoothing that the others choose."""
    found: dict[str, Misses] = {}
    for folder in folders:
        workspace = Workspace(folder)
        request = workspace.read_request()
        streams = (
            vector_tuning_streams(request, workspace, snr_db=NOISY_SNR_DB, seed=1)
            if tuning
            else evaluation_streams(request, workspace)
        )
        model = open_model(workspace.exported)
        traces = [_posteriors(workspace.exported, one) for one in streams]
        rows = found[request.phrases[0]] = {}
        for smoothing_ms in choices:
            rows[smoothing_ms] = [
                curve_at(model.manifest, p, stream, smoothing_ms).mean_misses()
                for p, stream in zip(traces, streams, strict=True)
            ]
            shown = " | ".join(f"{misses:.1%}" for misses in rows[smoothing_ms])
            click.echo(f"| {request.phrases[0]} | {smoothing_ms} ms | {shown} |")
    for word, rows in found.items():
        others = [one for name, one in found.items() if name != word]
        chosen = min(choices, key=lambda ms: sum(sum(one[ms]) for one in others))
        shown = " | ".join(f"{misses:.1%}" for misses in rows[chosen])
        click.echo(f"left out: | {word} | {chosen} ms | {shown} |")


def run_over(model: Model, stream: Stream) -> Frames:
    """Return what a model that takes frames gives over a stream and half a second more."""
    padded = np.concatenate((stream.samples, np.zeros(TAIL_SAMPLES, np.int16)))
    return model.run(open_features(model.manifest.features).whole(padded))


def _posteriors(path: Path, stream: Stream) -> np.ndarray:
    """Return the posteriors of a model at every output over a stream [shape=(k, labels)]."""
    model = open_model(path)
    if model.manifest.takes is None:
        return run_over(model, stream)
    embedding = open_embedding(model)
    posteriors = model.run(run_over(embedding, stream))
    posteriors[: n_cold_vectors(embedding.manifest)] = 0
    return posteriors


def curve_at(
    manifest: Manifest, posteriors: np.ndarray, stream: Stream, smoothing_ms: int
) -> DetCurve:
    output_ms = round(manifest.call_ms)
    n = smoothing_ms // output_ms
    sums = np.cumsum(np.pad(posteriors, ((n, 0), (0, 0))), axis=0, dtype=np.float64)
    smoothed = ((sums[n:] - sums[:-n]) / n).astype(np.float32)
    delay_ms = (n - 1) * output_ms
    decision = msgspec.structs.replace(
        manifest.decision, smoothing_ms=smoothing_ms, delay_ms=delay_ms
    )
    columns = [manifest.labels.index(keyword) for keyword in manifest.keywords]
    trace = Trace(
        msgspec.structs.replace(manifest, decision=decision),
        smoothed[:, columns],
        n_outputs=1,
        duration_s=stream.duration_s,
    )
    return det_curve([trace], [stream])


if __name__ == "__main__":
    main()
