"""Measure the bundled speech embedding: fidelity to the published network, CPU, memory.

``python benchmarks/speech_embedding.py --data data`` needs `kws[train,speech-embedding]`, and
librispeech/ and noise/esc10/ in the folder. LibriSpeech's last speakers and ESC-10's fold 4 are
used, by which nothing was set. CPU is the best of several runs.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.model import model_path, open_model
from kws_export.quantize_embedding import correlations
from kws_train.data.audio_files import audio_files, audio_matching, read_samples
from kws_train.data.librispeech import speaker_halves
from kws_train.networks.speech_embedding import load_weights
from kws_train.recipe import EMBEDDING_FEATURES

STREAM_S, N_STREAMS = 10, 24
N_RUNS, RUN_S = 7, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, default=model_path("speech_embedding"))
    options = parser.parse_args()
    print(f"{options.model}: {options.model.stat().st_size / 1000:.1f} kB")
    _print_costs(options.model)
    corpus = options.data / "librispeech"
    _, unseen = speaker_halves(corpus)
    speech = [path for path in audio_files(corpus) if path.name.partition("-")[0] in unseen]
    noise = audio_matching(options.data, "noise/esc10/*/4-*")
    weights = load_weights()
    for name, gains_db, snrs_db in (
        ("clean", [0.0], []),
        ("at -20 to 6 dB", [-20.0, -10.0, 6.0], []),
        ("in noise at 0 to 20 dB", [0.0], [0.0, 10.0, 20.0]),
    ):
        found = correlations(options.model, weights, _streams(speech, noise, gains_db, snrs_db))
        print(f"{name}: least {found.min():.4f}, median {np.median(found):.4f}")


def _print_costs(path: Path) -> None:
    open_model(model_path("commands"))  # so that the interpreter's library is loaded
    before = _resident_mb()
    model = open_model(path)
    frames = (
        np.random.default_rng(1).normal(6, 2, (8, EMBEDDING_FEATURES.n_features)).astype(np.float32)
    )
    after = _resident_mb()
    print(f"memory: {after - before:.1f} MB beside the interpreter's library")
    slow = open_model(path, reference=True)
    chunk = np.random.default_rng(2).normal(0, 3000, RATE_HZ * 80 // 1000).astype(np.int16)
    features = Features(EMBEDDING_FEATURES)
    for name, call in (
        ("step", lambda: model.step(frames)),
        ("step, built-in kernels", lambda: slow.step(frames)),
        ("features, 80 ms chunks", lambda: features.process(chunk)),
    ):
        print(f"{name}: {_cpu_ms(call, calls_per_s=12.5):.2f} ms of CPU per second of audio")


def _resident_mb() -> float:
    n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_ms(call: Callable[[], object], *, calls_per_s: float) -> float:
    """Return what a second of audio takes, in the best of several runs."""
    n_calls = round(RUN_S * calls_per_s)
    best = np.inf
    for _ in range(N_RUNS):
        start = time.process_time()
        for _ in range(n_calls):
            call()
        best = min(best, time.process_time() - start)
    return float(1000 * best / RUN_S)


def _streams(
    speech: Sequence[Path], noise: Sequence[Path], gains_db: list[float], snrs_db: list[float]
) -> np.ndarray:
    """Return frames of utterances in a row [shape=(N_STREAMS, k, 32)]."""
    random = np.random.default_rng(5)
    signals = np.empty((N_STREAMS, STREAM_S * RATE_HZ), np.int16)
    for i in range(N_STREAMS):
        said = _filled(speech, random)
        if snrs_db:
            around = _filled(noise, random)
            power = np.square(said).mean() / max(1.0, np.square(around).mean())
            said += around * np.sqrt(power) * 10 ** (-snrs_db[i % len(snrs_db)] / 20)
        said *= 10 ** (gains_db[i % len(gains_db)] / 20)
        signals[i] = np.clip(np.rint(said), -32768, 32767)
    return Features(EMBEDDING_FEATURES).whole(signals).astype(np.float32)


def _filled(paths: Sequence[Path], random: np.random.Generator) -> np.ndarray:
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < STREAM_S * RATE_HZ:
        parts.append(read_samples(paths[int(random.integers(len(paths)))]).astype(np.float32))
    return np.concatenate(parts)[: STREAM_S * RATE_HZ]


if __name__ == "__main__":
    main()
