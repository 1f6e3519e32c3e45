"""A wake word service of the Wyoming protocol, for Home Assistant and its satellites.

- `service`: settings of the command line to a running service.
- `server`: addresses, clients and their limits.
- `connection`: events in and out, with bounds on waiting.
- `session`: one client: its requests, its audio, its detections.
- `catalog`: the models that are served, by keyword and by name.
- `events`: bounded reading of events, and what they must hold.
- `pcm`: the audio of a client as 16 kHz mono, and its timestamps.
- `trigger`: detections that are confirmed by further blocks above the threshold.
- `recordings`: debug recordings of what clients send.
- `addresses`: `tcp://` and `unix://`.
- `announcement`: zeroconf.

Needs the package `wyoming`, which the extra `kws[wyoming]` installs.
"""
