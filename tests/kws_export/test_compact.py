"""Compacting a flatbuffer changes its size and nothing that it says."""

import numpy as np

from kws.manifest import pack, read_manifest
from kws.model import bundled_models, open_model
from kws_export.compact import compact


def test_a_compacted_model_answers_as_before(tmp_path):
    manifest, content = read_manifest(bundled_models()["commands-small"])
    smaller = tmp_path / "smaller.tflite"
    smaller.write_bytes(pack(compact(content), manifest))
    before, after = open_model(bundled_models()["commands-small"]), open_model(smaller)
    random = np.random.default_rng(0)
    for _ in range(40):
        frames = random.normal(8, 3, (manifest.n_frames, 40)).astype(np.float32)
        assert np.array_equal(before.step(frames), after.step(frames))


def test_a_compacted_model_is_not_compacted_further():
    _, content = read_manifest(bundled_models()["commands-small"])
    once = compact(content)
    assert len(once) <= len(content)
    assert len(compact(once)) == len(once)
