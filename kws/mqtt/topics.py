"""Names of topics, and identifiers made of names that people chose."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["TOGGLE_OFF", "TOGGLE_ON", "Topics", "hermes_detected", "identifier"]

TOGGLE_ON = "hermes/hotword/toggleOn"
TOGGLE_OFF = "hermes/hotword/toggleOff"
_MAX_CHARACTERS = 48


@dataclass(frozen=True)
class Topics:
    """The topics of one device.

    Parameters
    ----------
    device_id : str
        From `identifier`.
    discovery_prefix : str
        Of Home Assistant.
    """

    device_id: str
    discovery_prefix: str

    @property
    def availability(self) -> str:
        """`online` or `offline`."""
        return f"kws/{self.device_id}/availability"

    @property
    def mute(self) -> str:
        """State of the switch that mutes, `ON` or `OFF`."""
        return f"kws/{self.device_id}/mute"

    @property
    def mute_command(self) -> str:
        """Commands to that switch."""
        return f"{self.mute}/set"

    @property
    def detections(self) -> str:
        """Number of detections in 24 hours."""
        return f"kws/{self.device_id}/detections_24h"

    @property
    def expected(self) -> str:
        """Number of false alarms expected in 24 hours."""
        return f"kws/{self.device_id}/expected_false_alarms_24h"

    @property
    def config(self) -> str:
        """Discovery message of the device."""
        return f"{self.discovery_prefix}/device/{self.device_id}/config"

    @property
    def birth(self) -> str:
        """`online` once Home Assistant has started."""
        return f"{self.discovery_prefix}/status"

    def detected(self, keyword: str) -> str:
        """Return the topic of a keyword's detections."""
        return f"kws/{self.device_id}/detected/{identifier(keyword)}"

    def level(self, source: str) -> str:
        """Return the topic of a source's level."""
        return f"kws/{self.device_id}/level/{identifier(source)}"


def hermes_detected(keyword: str) -> str:
    """Return the topic of a keyword's detections in the Hermes protocol.

    What a level of a topic cannot hold is replaced by `_`.
    """
    return f"hermes/hotword/{re.sub('[/+#]', '_', keyword)}/detected"


def identifier(name: str) -> str:
    """Return an identifier of letters, digits, `_` and `-`, different for different names.

    A name in small letters and digits, with `_`, `-` or single blanks, keeps its form; others get
    a part of their digest.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9_-]+", "_", plain).strip("_")[:_MAX_CHARACTERS]
    if plain == name or (plain.replace("_", " ") == name and plain):
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{plain}_{digest}" if plain else digest
