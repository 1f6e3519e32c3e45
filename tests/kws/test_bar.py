import math

import pytest

from kws.bar import bar, level_share


@pytest.mark.parametrize(("share", "n_full"), [(-1.0, 0), (0.0, 0), (0.5, 6), (1.0, 12), (2.0, 12)])
def test_a_bar_goes_from_empty_to_full(share, n_full):
    assert bar(share, cells=12) == "█" * n_full + "░" * (12 - n_full)
    assert bar(share, cells=12, ascii_only=True) == "#" * n_full + "." * (12 - n_full)


@pytest.mark.parametrize(("mark", "at"), [(-1.0, 0), (0.0, 0), (0.5, 2), (0.99, 3), (1.0, 3)])
def test_a_mark_lies_on_the_bar(mark, at):
    assert bar(0.0, cells=4, mark=mark).index("│") == at
    assert len(bar(1.0, cells=4, mark=mark)) == 4


@pytest.mark.parametrize(
    ("level", "share"), [(-math.inf, 0.0), (-100.0, 0.0), (-60.0, 0.0), (-30.0, 0.5), (0.0, 1.0)]
)
def test_a_level_is_shown_from_minus_60_dbfs_to_0(level, share):
    assert level_share(level) == share
