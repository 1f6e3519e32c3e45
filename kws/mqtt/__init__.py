"""Detections to an MQTT broker and commands from it: Rhasspy's Hermes topics, Home Assistant.

- `broker`: the broker's address, password and certificates, checked.
- `connection`: the connection to the broker, in a thread of its own.
- `link`: one connection at a time, by paho-mqtt.
- `failures`: why a broker cannot be used, as text.
- `outbox`: messages that wait for the broker, within a limit.
- `publisher`: detections and states as messages.
- `inbox`: messages as commands.
- `topics`: names of topics.
- `hermes`: messages of Rhasspy's Hermes protocol.
- `discovery`: the configuration by which Home Assistant finds this device.

Needs the package `paho-mqtt`, which the extra `kws[mqtt]` installs.
"""
