"""Find keywords in a recording: python examples/file.py [RECORDING]."""

import sys

import kws

spotter = kws.Spotter("commands")
for detection in spotter.listen(sys.argv[1] if len(sys.argv) > 1 else "kws/models/demo.wav"):
    print(f"{detection.end_s:.2f} s: {detection.keyword} ({detection.score:.2f})")
