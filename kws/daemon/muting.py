"""Which sources are muted, and by what: hooks, a switch, requests for a source."""

from collections.abc import Callable

__all__ = ["Muting"]


class Muting:
    """Decide whether the audio of a source is processed.

    Parameters
    ----------
    by_hooks : callable
        Whether a hook mutes all live sources now.

    Attributes
    ----------
    switch : bool or None
        Whether a switch mutes all sources; None: not known yet, which mutes none.
    """

    def __init__(self, by_hooks: Callable[[], bool]) -> None:
        self.switch: bool | None = None
        self._by_hooks = by_hooks
        self._requests: dict[str, set[str]] = {}

    def reasons(self, source: str, *, is_file: bool = False) -> list[str]:
        """Return what mutes a source, for people; empty: nothing.

        Parameters
        ----------
        source : str
            Its label.
        is_file : bool
            Hooks do not mute files.
        """
        found = ["a hook"] if not is_file and self._by_hooks() else []
        if self.switch:
            found.append("the switch")
        return found + [f"Hermes {one}".strip() for one in sorted(self._requests.get(source, ()))]

    def mute(self, source: str, reason: str) -> None:
        """Mute a source until `unmute` is called for the reason; the empty one is a reason too."""
        self._requests.setdefault(source, set()).add(reason)

    def unmute(self, source: str, reason: str) -> None:
        """Take back a reason; the empty one takes back all."""
        if reason:
            self._requests.get(source, set()).discard(reason)
        else:
            self._requests.pop(source, None)

    def end_all(self) -> None:
        """Take back all requests, and turn the switch off."""
        self.switch = None
        self._requests.clear()

    def end_passing(self) -> None:
        """Take back all reasons but the empty one, as their end may not be told any more."""
        for reasons in self._requests.values():
            reasons.intersection_update({""})
