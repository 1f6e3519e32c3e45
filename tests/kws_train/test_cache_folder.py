from pathlib import Path

from kws_train.cache_folder import cache_folder


def test_kept_files_lie_in_the_users_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    assert cache_folder("bands") == Path("/home/anna/.cache/kws/bands")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder("bands") == Path("/fast/kws/bands")
