"""Count hits, misses and false alarms on a labelled recording.

python examples/evaluate.py RECORDING LABELS.json, with labels like kws/models/demo.json:
{"recording": "demo.wav", "duration_s": 33.4, "words": [
    {"word": "yes", "start_s": 1.2, "end_s": 1.6}]}
"""

import sys
from pathlib import Path

import msgspec

import kws

recording, labels = Path(sys.argv[1]), Path(sys.argv[2])
words = msgspec.json.decode(labels.read_bytes(), type=kws.LabelledRecording).words
spotter = kws.Spotter("commands")
matches = kws.match(words, spotter.listen(recording), keywords=spotter.keywords)
print(f"{len(matches.hits)} hits, {len(matches.missed)} missed, {len(matches.false)} false alarms")
