"""Vectors of the speech embedding are those of the runtime, and are computed once."""

import errno

import numpy as np
import pytest
import sounds

from kws.errors import ConfigError
from kws.features import Features
from kws.model import open_model
from kws_train.data import vector_cache
from kws_train.data.vector_cache import VectorCache, digest_of, embed, n_cold_vectors

VECTORS = np.arange(192, dtype=np.float16).reshape(2, 96)


def test_vectors_are_those_of_the_bundled_embedding_from_whole_context_on():
    samples = sounds.voice(2.0)
    model = open_model("speech_embedding")
    run = model.run(Features(model.manifest.features).whole(samples))
    assert n_cold_vectors() == 9
    vectors = embed(samples)
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, run[9:].astype(np.float16))


def test_samples_are_rounded_and_clipped_as_the_runtime_has_them():
    samples = sounds.voice(1.5).astype(np.float32) * 3
    heard = np.clip(np.rint(samples + 0.3), -32768, 32767).astype(np.int16)
    assert np.array_equal(embed(samples + 0.3), embed(heard))


def test_vectors_are_computed_once(tmp_path):
    cache = VectorCache(tmp_path)
    made = []
    for _ in range(2):
        kept = cache.vectors(digest_of("a"), lambda: made.append(1) or VECTORS)
        assert np.array_equal(kept, VECTORS)
    assert made == [1]
    assert cache.find(digest_of("b")) is None


def test_a_cache_of_another_embedding_is_not_used(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path)
    cache.vectors("aa", lambda: VECTORS)
    reference = vector_cache.embedding_reference()
    other = type(reference)(name=reference.name, sha256=64 * "a", size=96, hop_frames=8)
    monkeypatch.setattr(vector_cache, "embedding_reference", lambda: other)
    assert cache.find("aa") is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nonsense", None], ids=str)
def test_a_damaged_file_is_made_again(tmp_path, content):
    cache = VectorCache(tmp_path)
    cache.vectors("aa", lambda: VECTORS)
    (path,) = tmp_path.rglob("aa.npy")
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    assert np.array_equal(cache.vectors("aa", lambda: VECTORS + 1), VECTORS + 1)
    assert np.array_equal(cache.find("aa"), VECTORS + 1)


@pytest.mark.parametrize("wrong", [np.zeros((2, 8), np.float16), np.zeros((2, 96)), np.zeros(96)])
def test_vectors_of_another_shape_are_made_again(tmp_path, wrong):
    cache = VectorCache(tmp_path)
    cache.vectors("aa", lambda: wrong)
    assert cache.find("aa") is None


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path)
    cache.vectors("aa", lambda: VECTORS)
    save = np.save

    def full(file, vectors, **options):
        save(file, vectors[:1], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ConfigError, match=r"No space left on device.*used again"):
        cache.vectors("ab", lambda: VECTORS)
    assert [path.name for path in tmp_path.rglob("*.npy")] == ["aa.npy"]
    assert np.array_equal(cache.find("aa"), VECTORS)


def test_an_interruption_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(file, vectors, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path).vectors("aa", lambda: VECTORS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
