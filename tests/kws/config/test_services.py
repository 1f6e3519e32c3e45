import pytest

from kws.config import parse_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "port = 1883",
            "`host` of [mqtt] must be set where `port` is. Received: none. Set it to the broker, "
            'such as `host = "localhost"`, or leave `port` out.',
        ),
        (
            "host = 'mqtt://kws:secret@broker'",
            "`host` of [mqtt] must be a name or an address alone. Received: mqtt://…@broker. Set a "
            "port as `port`, and `tls = true` for mqtts.",
        ),
        (
            "host = 'broker:1883'",
            "`host` of [mqtt] must be a name or an address alone. Received: broker:1883. Set a "
            "port as `port`, and `tls = true` for mqtts.",
        ),
        (
            "host = 'b'\ndiscovery_prefix = 'ha/#'",
            "`discovery_prefix` of [mqtt] must be a topic without wildcards, blanks and empty "
            "levels. Received: 'ha/#'. Leave it out, unless Home Assistant has another one.",
        ),
        (
            "host = 'b'\npassword_file = 'p'",
            "`password_file` of [mqtt] needs `username`. Received: `password_file` without it. Set "
            "`username`, or leave `password_file` out.",
        ),
        (
            "host = 'b'\nca_file = 'p'",
            "`ca_file` of [mqtt] needs `tls`. Received: `ca_file` without it. Set `tls`, or leave "
            "`ca_file` out.",
        ),
    ],
)
def test_keys_of_mqtt_that_contradict_are_refused(text, message, refused):
    assert str(refused(f"[mqtt]\n{text}\n")) == message


@pytest.mark.parametrize("host", ["localhost", "broker.example.org", "192.168.1.2", "fe80::1"])
def test_a_broker_is_a_name_or_an_address(host):
    assert parse_config(f"[mqtt]\nhost = '{host}'\n").mqtt.host == host
