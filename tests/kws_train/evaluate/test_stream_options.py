import math
import re

import pytest
import sounds

from kws.errors import ConfigError
from kws_train.evaluate.stream_options import StreamOptions, build_streams


@pytest.fixture
def folders(tmp_path, make_tone, make_corpus):
    """Three clips of `go`, speech by one speaker, and noise."""
    for i in range(3):
        make_tone(tmp_path / "words" / "go" / f"{i}_nohash_0.wav", hz=300)
    make_corpus(tmp_path / "speech")
    noise = sounds.noise(16_000, rms=500).astype("int16")
    sounds.write(tmp_path / "noise" / "4-rain.wav", noise)
    return tmp_path


def options(folder, **changes):
    given = {"split": "all", "speakers": "all"} | changes
    return StreamOptions(keywords=folder / "words", background=folder / "speech", **given)


def test_there_is_a_stream_for_each_ratio(folders):
    noisy = options(folders, noise=folders / "noise", snr_db=(math.inf, 10.0, 0.0))
    assert [one.name for one in build_streams(noisy, ["go"])] == ["clean", "10 dB", "0 dB"]


def test_without_noise_there_is_one_clean_stream(folders):
    (stream,) = build_streams(options(folders, snr_db=(10.0, 0.0)), ["go"])
    assert stream.name == "clean"
    assert len(stream.words) == 3
    assert {one.path.stem for one in stream.background} == {"1-2-0001"}  # the other says GO


def test_minutes_limit_a_stream(folders):
    (stream,) = build_streams(options(folders, minutes=0.1), ["go"])
    assert stream.duration_s <= 6.0
    assert len(stream.words) == 1


def test_a_pattern_that_matches_no_noise_is_refused(folders):
    message = (
        f"`--noise-pattern` must match names of noise recordings. Received: 5-*, which matches "
        f"none below {folders / 'noise'}. Correct it; `*` takes all."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_streams(options(folders, noise=folders / "noise", noise_pattern="5-*"), ["go"])
