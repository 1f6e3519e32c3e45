"""What tests of training share."""

import numpy as np
import pytest
import soundfile

RATE_HZ = 16_000
WORDS_HZ = {"low": 500, "high": 2500, "other": 1200}


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """A folder of tones by speakers in the training and the validation split; not to be changed."""
    from kws.train.data import official_split

    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(1)
    splits = set()
    for word, hz in WORDS_HZ.items():
        for i in range(14):
            path = folder / "words" / word / f"{i:04x}_nohash_0.wav"
            splits.add(official_split(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            t = np.arange(6000) / RATE_HZ
            wave = random.normal(0, 30, RATE_HZ)
            wave[4000:10_000] += 6000 * np.sin(2 * np.pi * hz * random.uniform(0.9, 1.1) * t)
            soundfile.write(path, wave.astype(np.int16), RATE_HZ)
    assert splits >= {"train", "validation"}
    return folder
