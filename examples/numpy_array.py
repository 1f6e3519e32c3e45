"""Find keywords in samples that are in memory: python examples/numpy_array.py [RECORDING]."""

import sys

import soundfile

import kws

recording = sys.argv[1] if len(sys.argv) > 1 else "kws/models/demo.wav"
samples, rate_hz = soundfile.read(recording, dtype="float32")  # -1..1; int16 is taken too
if rate_hz != 16_000:
    sys.exit("Resample first, for example by soxr.")
spotter = kws.Spotter("commands")
for detection in (*spotter.process(samples), *spotter.flush()):
    print(f"{detection.end_s:.2f} s: {detection.keyword}")
