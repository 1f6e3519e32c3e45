"""Send JSON lines to a TCP client that sends raw 16 kHz s16le.

python examples/socket_server.py & nc 127.0.0.1 10500 < recording.raw
"""

import socket
import sys

import kws

port = int(sys.argv[1]) if len(sys.argv) > 1 else 10_500
with socket.create_server(("127.0.0.1", port)) as server:
    print(f"Waiting on port {server.getsockname()[1]}.", flush=True)
    client, _ = server.accept()
with client, client.makefile("rb") as audio:
    spotter = kws.Spotter("commands")
    for detection in spotter.listen(iter(lambda: audio.read(2560), b"")):
        client.sendall(kws.to_json(detection).encode() + b"\n")
