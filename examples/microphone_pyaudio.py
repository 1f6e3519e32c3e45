"""Listen to a microphone through PyAudio: pip install PyAudio.

`spotter.listen("mic")` does this by itself. This is for programs that have a stream already.
"""

import pyaudio

import kws

CHUNK = 1280  # samples, 80 ms

spotter = kws.Spotter("commands")
audio = pyaudio.PyAudio()
stream = audio.open(
    rate=16_000, channels=1, format=pyaudio.paInt16, input=True, frames_per_buffer=CHUNK
)
try:
    while stream.is_active():
        for detection in spotter.process(stream.read(CHUNK, exception_on_overflow=False)):
            print(detection.keyword, detection.score)
finally:
    stream.close()
    audio.terminate()
