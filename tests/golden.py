"""Write tests/data/golden.npz anew: what the bundled model says to fixed frames, bit for bit.

Run it when the bundled model changes, and only then: ``python tests/golden.py``.
"""

from pathlib import Path

import numpy as np

from kws.features import Features
from kws.model import bundled_models, open_model

N_STEPS = 300
OUT = Path(__file__).parent / "data" / "golden.npz"


def sound(n_samples: int) -> np.ndarray:
    """Chirps of rising pitch over noise, with silence between: wide frames, many states."""
    random = np.random.default_rng(1)
    t = np.arange(n_samples) / 16_000
    chirps = np.sign(np.sin(2 * np.pi * (150 * t + 120 * np.sin(5 * t)))) * (np.sin(4 * t) > 0)
    noise = random.normal(0, 200, n_samples) * (np.sin(2 * t) > -0.5)
    return (3000 * chirps * np.sin(4 * t) + noise).astype(np.int16)


def main() -> None:
    """Run the bundled model with the reference kernels alone."""
    model = open_model(bundled_models()["commands"], reference=True)
    settings, n_frames = model.manifest.features, model.manifest.n_frames
    n_samples = settings.window_samples + (N_STEPS * n_frames - 1) * settings.hop_samples
    frames = Features(settings).process(sound(n_samples))
    starts = range(0, len(frames), n_frames)
    posteriors = np.concatenate([model.step(frames[start : start + n_frames]) for start in starts])
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, frames=frames, posteriors=posteriors)
    print(f"{OUT}: {len(posteriors)} outputs, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
