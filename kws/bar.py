"""Bars of characters for levels and posteriors, on terminals with and without UTF-8."""

__all__ = ["bar", "level_share"]

_FLOOR_DBFS = -60.0


def bar(share: float, *, cells: int, mark: float | None = None, ascii_only: bool = False) -> str:
    """Return a bar, empty at 0 and full at 1.

    Parameters
    ----------
    share : float
        How far it goes; what lies outside 0..1 is shown as the nearer end.
    cells : int
        Its width.
    mark : float or None
        Where a mark stands on it, 0..1.
    ascii_only : bool
        Draw with what every terminal has.
    """
    full, rest, marked = ("#", ".", "|") if ascii_only else ("█", "░", "│")
    n_full = round(min(1.0, max(0.0, share)) * cells)
    drawn = full * n_full + rest * (cells - n_full)
    if mark is None:
        return drawn
    at = min(cells - 1, int(max(0.0, mark) * cells))
    return drawn[:at] + marked + drawn[at + 1 :]


def level_share(level_dbfs: float) -> float:
    """Return how far a bar goes at a level: 0 at -60 dBFS and below, 1 at 0 dBFS."""
    return min(1.0, max(0.0, 1 - level_dbfs / _FLOOR_DBFS))
