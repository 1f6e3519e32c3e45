"""Unicode form of keywords and labels: NFC, in which names from all systems compare equal.

macOS gives names of folders decomposed (NFD), keyboards give them composed.
"""

import unicodedata

__all__ = ["nfc"]


def nfc(name: str) -> str:
    """Return a name in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name)
