"""Why a broker cannot be used, as text with the remedy."""

import ssl

from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from kws.mqtt.broker import Broker

__all__ = ["LostError", "lost", "no_answer", "not_mqtt", "refused", "unreachable"]


class LostError(Exception):
    """The end of a connection, with its reason."""


def unreachable(broker: Broker, error: OSError) -> str:
    """Return why no connection could be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"The certificate of the MQTT broker {broker} is not trusted: "
            f"{error.verify_message.rstrip('.')}. Set `ca_file` of [mqtt] to that of its "
            f"authority, and `host` to a name in it."
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS with the MQTT broker {broker} failed: {error.reason or error}. Check `port`, and "
            f"the certificate of this client, in [mqtt]."
        )
    return (
        f"The MQTT broker {broker} cannot be reached: {error.strerror or error}. Check `host`, "
        f"`port` and `tls` in [mqtt]."
    )


def refused(broker: Broker, code: ReasonCode) -> str:
    """Return why the broker has refused the login."""
    remedy = "It may be starting, or refuse the client's name; see its log."
    if str(code) in {"Not authorized", "Bad user name or password"}:
        remedy = "Check `username` and the password file of [mqtt]."
    return f"The MQTT broker {broker} refused the login: {code}. {remedy}"


def no_answer(broker: Broker, after_s: float) -> str:
    """Return that the broker has not answered the login."""
    return (
        f"The MQTT broker {broker} accepted the connection, but did not answer for {after_s:g} s. "
        f"Check `port` and `tls` in [mqtt]."
    )


def not_mqtt(broker: Broker) -> str:
    """Return that what was received is not MQTT."""
    return f"The MQTT broker {broker} sent what is not MQTT. Check `port` in [mqtt]."


def lost(broker: Broker, code: MQTTErrorCode, *, is_new: bool) -> str:
    """Return why a connection was lost.

    Parameters
    ----------
    broker : Broker
    code : MQTTErrorCode
        Of paho-mqtt.
    is_new : bool
        Whether it was lost soon after the login.
    """
    if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
        return not_mqtt(broker)
    if code == MQTTErrorCode.MQTT_ERR_KEEPALIVE:
        return f"The MQTT broker {broker} has stopped answering."
    hint = " If that repeats, another device has the same `name` in [mqtt]." if is_new else ""
    return f"The connection to the MQTT broker {broker} was lost.{hint}"
