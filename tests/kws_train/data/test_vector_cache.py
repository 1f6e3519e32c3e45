"""Vectors are computed once."""

import dataclasses
import errno

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.data.front_ends import speech_embedding
from kws_train.data.vector_cache import VectorCache, digest_of

VECTORS = np.arange(192, dtype=np.float16).reshape(2, 96)


def test_vectors_are_computed_once(tmp_path):
    cache = VectorCache(tmp_path)
    made = []
    for _ in range(2):
        kept = cache.vectors(digest_of("a"), lambda: made.append(1) or VECTORS)
        assert np.array_equal(kept, VECTORS)
    assert made == [1]
    assert cache.find(digest_of("b")) is None


def test_vectors_of_another_front_end_are_not_used(tmp_path):
    cache = VectorCache(tmp_path)
    cache.vectors("aa", lambda: VECTORS)
    other = dataclasses.replace(speech_embedding(), name="speech_embedding-2")
    assert VectorCache(tmp_path, other).find("aa") is None


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
