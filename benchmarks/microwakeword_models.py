"""Models of microWakeWord in kws and in pymicro-wakeword: probabilities, detections, CPU time.

python benchmarks/microwakeword_models.py --recordings FOLDER

FOLDER has recordings of words in folders of their names; those of the package's models are used.
"""

import time
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np
import numpy.typing as npt
import pymicro_wakeword
from openwakeword_heads import recordings_stream, speech_stream
from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.config import GateSettings
from kws.micro_features import MicroFeatures
from kws.model import open_model
from kws.model_file import read_model
from kws.spotter import Spotter

Values: TypeAlias = npt.NDArray[np.float64]

_STEP_S = 0.03
_REFRACTORY_S = 1.0
_MODELS = Path(pymicro_wakeword.__file__).parent / "models"


@click.command()
@click.option("--data", type=Path, default=Path("data"), show_default=True)
@click.option("--recordings", type=Path, required=True)
@click.option("--hours", default=1.0, show_default=True)
def main(data: Path, recordings: Path, hours: float) -> None:
    """Print a table for each model."""
    words = sorted(one.name for one in recordings.iterdir() if one.is_dir())
    random = np.random.default_rng(1)
    speech = speech_stream(data / "librispeech", words, hours=hours, random=random)
    said, _ = recordings_stream(recordings, words, data / "noise/esc10", random)
    stream = np.concatenate((said, speech))
    duration_s = len(stream) / SAMPLE_RATE_HZ
    click.echo(f"{duration_s / 3600:.2f} h, {len(words)} words")
    click.echo("| model | equal | theirs | kws | the same | kws, gated | CPU: theirs; kws |")
    click.echo("|---|---|---|---|---|---|---|")
    for path in sorted(_MODELS.glob("*.json")):
        probabilities, theirs, their_s = _theirs(stream, path)
        values = open_model(path).run(MicroFeatures().whole(stream))[:, 0]
        n = min(len(values), len(probabilities))
        equal = np.mean(values[:n] == probabilities[:n])
        ours, our_s = _ours(stream, path, GateSettings(enabled=False))
        gated, _ = _ours(stream, path, GateSettings())
        counts = (len(theirs), len(ours), len(set(theirs) & set(ours)), len(gated))
        click.echo(
            f"| {path.stem} | {equal:.2%} | {' | '.join(map(str, counts))} | "
            f"{1000 * their_s / duration_s:.2f}; {1000 * our_s / duration_s:.2f} ms |"
        )


def _theirs(stream: Samples, path: Path) -> tuple[Values, list[float], float]:
    """Return the probability of each step, the ends of detections, and CPU seconds."""
    features, model = MicroWakeWordFeatures(), MicroWakeWord.from_config(path)
    probabilities, detections, was_above, n = [], [], False, 0
    started_s = time.process_time()
    for at in range(0, len(stream), 1280):
        for frame in features.process_streaming(stream[at : at + 1280].tobytes()):
            is_above = model.process_streaming(frame)
            n += 1
            if n % model.stride:
                continue
            probabilities.append(model._probabilities[-1])
            end_s = round(n // model.stride * _STEP_S + 0.02, 3)
            is_rest = bool(detections) and end_s - detections[-1] <= _REFRACTORY_S + 0.01
            if is_above and not was_above and not is_rest:
                detections.append(end_s)
            was_above = bool(is_above)
    return np.array(probabilities), detections, time.process_time() - started_s


def _ours(stream: Samples, path: Path, gate: GateSettings) -> tuple[list[float], float]:
    """Return when words are detected, and CPU seconds."""
    spotter = Spotter(path, gate=gate)
    delay_s = read_model(path)[0].decision.delay_ms / 1000
    started_s = time.process_time()
    found = [
        round(one.end_s + delay_s, 3)
        for at in range(0, len(stream), 1280)
        for one in spotter.process(stream[at : at + 1280])
    ]
    return found, time.process_time() - started_s


if __name__ == "__main__":
    main()
