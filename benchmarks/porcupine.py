"""Measure Porcupine 1.9 on the streams of `kws new`: porcupine.py WORK [SENSITIVITY...].

WORK is the working folder of `kws new` for a phrase that Porcupine supports. `pip install
"pvporcupine<2"` installs its last version that needs no access key.
"""

import sys
import time
from pathlib import Path

import pvporcupine

from kws.audio import SAMPLE_RATE_HZ
from kws.events import Detection
from kws.matching import match
from kws_train.evaluate.det import poisson_interval, wilson_interval
from kws_train.own_word.evaluation import evaluation_streams
from kws_train.own_word.workspace import Workspace


def main() -> None:
    workspace = Workspace(Path(sys.argv[1]))
    request = workspace.read_request()
    phrase = request.phrases[0]
    label = phrase.replace(" ", "_")
    streams = evaluation_streams(request, workspace)
    for sensitivity in map(float, sys.argv[2:] or ["0.5"]):
        for stream in streams:
            engine = pvporcupine.create(keywords=[phrase], sensitivities=[sensitivity])
            size, found = engine.frame_length, []
            started_s = time.process_time()
            for at in range(0, len(stream.samples) - size + 1, size):
                if engine.process(stream.samples[at : at + size]) >= 0:
                    end_s = (at + size) / SAMPLE_RATE_HZ
                    start_s = max(0.0, end_s - 0.6)
                    found.append(
                        Detection(
                            keyword=label,
                            score=1.0,
                            start_s=start_s,
                            end_s=end_s,
                            model="porcupine",
                        )
                    )
            cpu_ms = 1000 * (time.process_time() - started_s) / stream.duration_s
            outcome = match(stream.words, found, keywords=(label,))
            n, hours = len(stream.words), stream.duration_s / 3600
            missed, false = len(outcome.missed), len(outcome.false)
            low, high = wilson_interval(missed, n)
            least, most = (one / hours for one in poisson_interval(false))
            print(
                f"{phrase}, sensitivity {sensitivity:g}, {stream.name}: missed {missed / n:.1%} "
                f"[{low:.1%}, {high:.1%}] at {false / hours:.2f}/h [{least:.2f}, {most:.2f}], "
                f"{cpu_ms:.1f} ms of CPU per second",
                flush=True,
            )


if __name__ == "__main__":
    main()
