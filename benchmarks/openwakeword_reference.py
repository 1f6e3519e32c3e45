"""Scores of openwakeword 0.5.1 on a stream, in a virtual environment of its own.

python openwakeword_reference.py STREAM.npy SCORES.npz NAME|FILE.onnx...
"""

import sys
import time
from pathlib import Path

import numpy as np
import openwakeword
from openwakeword.model import Model

_CHUNK = 1280  # samples, 80 ms


def main() -> None:
    """Write the scores of each model, one row every 80 ms, and the CPU time of it all."""
    stream, out, *names = sys.argv[1:]
    folder = Path(openwakeword.__file__).parent / "resources/models"
    files = [
        name if name.endswith(".onnx") else str(next(folder.glob(f"{name}_v*.onnx")))
        for name in names
    ]
    model = Model(wakeword_models=files, inference_framework="onnx")
    samples = np.load(stream)
    started_s = time.process_time()
    scores = [
        list(model.predict(samples[at : at + _CHUNK]).values())
        for at in range(0, len(samples) - _CHUNK + 1, _CHUNK)
    ]
    cpu_s = time.process_time() - started_s
    np.savez(out, scores=np.array(scores, np.float32), cpu_s=cpu_s, files=files)


if __name__ == "__main__":
    main()
