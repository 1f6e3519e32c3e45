"""Messages of the Hermes protocol, as Rhasspy 2.5 reads and sends them."""

from typing import Literal

import msgspec

__all__ = ["HotwordDetected", "Toggle", "read_toggle"]

Reason = Literal["", "dialogueSession", "playAudio", "ttsSay"]


class HotwordDetected(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A wake word was detected.

    Attributes
    ----------
    model_id, model_version : str
        Name of the model; its version, which kws does not have.
    model_type : str
        `personal` for a model of one voice, else `universal`.
    current_sensitivity : float
        0..1; one less the threshold.
    site_id : str
    session_id, send_audio_captured, lang
        Left to the dialogue manager.
    """

    model_id: str
    model_version: str = ""
    model_type: Literal["universal", "personal"] = "universal"
    current_sensitivity: float = 1.0
    site_id: str = "default"
    session_id: str | None = None
    send_audio_captured: bool | None = None
    lang: str | None = None


class Toggle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request to turn the detection on or off at a site.

    Attributes
    ----------
    site_id : str
    reason : str
        Detection is off while there is a reason for it. The empty one is no reason in particular:
        turning on for it removes all others.
    """

    site_id: str = "default"
    reason: Reason = ""


class _Received(msgspec.Struct, rename="camel"):
    site_id: str = "default"
    reason: str | None = ""


def read_toggle(payload: bytes) -> Toggle:
    """Return the request in a message; an unknown reason counts as the empty one.

    Raises
    ------
    msgspec.DecodeError
        If the payload is not a JSON object, or a field has the wrong type.
    """
    received = msgspec.json.decode(payload, type=_Received)
    try:
        reason = msgspec.convert(received.reason, Reason)
    except msgspec.ValidationError:
        reason = ""
    return Toggle(site_id=received.site_id, reason=reason)
