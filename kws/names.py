"""Names: the Unicode form in which keywords are compared, and the name of this machine.

macOS gives names of folders decomposed (NFD), keyboards give them composed (NFC).
"""

import socket
import unicodedata
import uuid

__all__ = ["machine_name", "nfc"]


def nfc(name: str) -> str:
    """Return a name in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name)


def machine_name() -> str:
    """Return a name of this machine for its network: `kws-` and the hardware address.

    Without such an address, Python makes one up at each start; then the host name is taken.
    wyoming-satellite on the same machine takes the bare hardware address, and names of one kind of
    service must differ.
    """
    node = uuid.getnode()
    is_made_up = node >> 40 & 1
    return f"kws-{socket.gethostname() if is_made_up else f'{node:012x}'}"
