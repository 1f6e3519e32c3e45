import pytest

from kws_train.atomic import replacing


def test_a_file_is_replaced_once_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as begun:
        begun.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        _run_out_of_disk(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _run_out_of_disk(path):
    with replacing(path) as begun:
        begun.write_text("ne")
        raise OSError("full")
