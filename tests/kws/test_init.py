"""The public API: its names, and that user code is checked by types."""

import subprocess
import sys
from pathlib import Path

import pytest

import kws

CONFIG = Path(__file__).parents[2] / "pyproject.toml"

USER_CODE = """
import numpy as np
import kws

gate = kws.GateSettings(hangover_ms=500)
spotter = kws.Spotter(["commands", kws.ModelSettings(name="computer")], gate=gate, threshold=0.5)
detection: kws.Detection
for detection in spotter.listen("recording.wav"):
    keyword: str = detection.keyword
    start_s: float | None = detection.start_s
    print(keyword, detection.score + detection.end_s, start_s)
detections: list[kws.Detection] = spotter.process(np.zeros(160, np.int16)) + spotter.process(b"")
peaks: list[float] = [one.peak for one in spotter.take_peaks()]
version: str = kws.__version__
try:
    matches = kws.match([], detections, keywords=spotter.keywords)
    print(matches.hits, peaks, version)
except kws.KwsError as error:
    print(error.exit_code)
"""
WRONG_CODE = """
import kws

kws.Spotter("commands", treshold=0.5)
spotter = kws.Spotter(threshold="high")
for detection in spotter.listen("recording.wav"):
    detection.keyword = "other"
    detection.start_s + 1
"""


def test_the_public_names_are_all_that_dir_lists():
    assert dir(kws) == sorted(kws.__all__)
    assert kws.__version__ == "0.1.0"
    for name in kws.__all__:
        assert getattr(kws, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'kws' has no attribute 'Spoter'$"):
        _ = kws.Spoter


@pytest.mark.parametrize(
    ("code", "n_errors"), [(USER_CODE, 0), (WRONG_CODE, 4)], ids=["right", "wrong"]
)
def test_strict_type_checking_of_user_code(tmp_path, code, n_errors):
    file = tmp_path / "user.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count(" error: ") == n_errors, done.stdout
