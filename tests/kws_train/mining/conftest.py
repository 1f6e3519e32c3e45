"""What tests of `kws mine` share."""

import pytest

from kws.manifest import UNKNOWN, FeatureSettings, Manifest


@pytest.fixture(scope="session")
def manifest():
    """The self-description of a model of two keywords."""
    return Manifest(
        name="two",
        labels=("_silence_", UNKNOWN, "go", "stop"),
        kind="step",
        features=FeatureSettings(kind="logmel", n_mels=15, floor=1.0),
        n_frames=2,
        hop_frames=2,
    )
