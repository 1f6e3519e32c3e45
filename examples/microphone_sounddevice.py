"""Listen to a microphone through sounddevice: pip install sounddevice.

The callback runs in a thread of the sound library and must not be delayed: it only copies.
"""

import queue

import sounddevice

import kws

chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

spotter = kws.Spotter("commands")
with sounddevice.RawInputStream(
    samplerate=16_000,
    channels=1,
    dtype="int16",
    blocksize=1280,
    callback=lambda samples, *_: chunks.put(bytes(samples)),
    finished_callback=lambda: chunks.put(b""),
):
    for detection in spotter.listen(iter(chunks.get, b"")):
        print(detection.keyword, detection.score)
