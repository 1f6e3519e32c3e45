"""Write the golden outputs anew: what bundled models give for fixed frames, bit for bit.

Run it when a bundled model changes, and only then: ``python tests/golden.py commands-small`` or
``python tests/golden.py speech_embedding``.
"""

import sys
from pathlib import Path

import numpy as np

from kws.features import Features
from kws.model import model_path, open_model

N_STEPS = {"commands-small": 300, "speech_embedding": 120}
DATA = Path(__file__).parent / "data"
FILES = {
    "commands-small": (DATA / "golden.npz", "posteriors"),
    "speech_embedding": (DATA / "golden_speech_embedding.npz", "outputs"),
}


def sound(n_samples: int) -> np.ndarray:
    """Chirps of rising pitch over noise, with silence between: wide frames, many states."""
    random = np.random.default_rng(1)
    t = np.arange(n_samples) / 16_000
    chirps = np.sign(np.sin(2 * np.pi * (150 * t + 120 * np.sin(5 * t)))) * (np.sin(4 * t) > 0)
    noise = random.normal(0, 200, n_samples) * (np.sin(2 * t) > -0.5)
    return (3000 * chirps * np.sin(4 * t) + noise).astype(np.int16)


def main(name: str) -> None:
    """Run a bundled model with the reference kernels alone."""
    out, key = FILES[name]
    model = open_model(model_path(name), reference=True)
    settings, n_frames = model.manifest.features, model.manifest.n_frames
    n_samples = settings.window_samples + (N_STEPS[name] * n_frames - 1) * settings.hop_samples
    frames = Features(settings).process(sound(n_samples))
    starts = range(0, len(frames), n_frames)
    outputs = np.concatenate([model.step(frames[start : start + n_frames]) for start in starts])
    out.parent.mkdir(exist_ok=True)
    np.savez_compressed(out, **{"frames": frames, key: outputs})
    print(f"{out}: {len(outputs)} outputs, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
