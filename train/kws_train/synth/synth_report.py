"""Counts of clips of a synthesis."""

from collections.abc import Iterable

import msgspec

from kws.errors import ConfigError

__all__ = ["SynthReport"]


class SynthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of clips of a synthesis.

    Attributes
    ----------
    n_wanted : int
    n_kept : int
        In the folder before.
    n_written : int
        New in the folder.
    n_spoken : int
        Synthesised, dropped ones included; all others came from the cache.
    dropped : dict of str to int
        By defect: `empty`, `too short`, `too long`, `misread`, `failed`.
    missing : dict of str to int
        Missing clips of each phrase that has fewer than wanted.
    unsayable : tuple of str
        Phrases without any clip.
    """

    n_wanted: int
    n_kept: int
    n_written: int
    n_spoken: int
    dropped: dict[str, int]
    missing: dict[str, int]
    unsayable: tuple[str, ...]

    def describe(self) -> str:
        """Return a summary in one line."""
        dropped = ", ".join(f"{n} {why}" for why, n in sorted(self.dropped.items()))
        return (
            f"{self.n_written} clips written, {self.n_kept} found, {sum(self.dropped.values())} "
            f"dropped{f' ({dropped})' if dropped else ''}, {sum(self.missing.values())} missing"
        )

    def require(self, texts: Iterable[str]) -> None:
        """Check that each of these phrases has at least one clip.

        Raises
        ------
        ConfigError
            If all clips of one of them were dropped.
        """
        for text in texts:
            if text in self.unsayable:
                why = ", ".join(sorted(self.dropped))
                raise ConfigError(
                    f"A phrase must be one that voices can say. Received: `{text}`; all of its "
                    f"clips were dropped ({why}). Spell it as it sounds, or choose another "
                    f"engine: `--backend`."
                )
