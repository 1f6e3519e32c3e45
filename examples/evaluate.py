"""Count hits, misses and false alarms on a labelled recording.

python examples/evaluate.py [RECORDING LABELS.json], with labels like kws/models/demo.json:
{"recording": "demo.wav", "duration_s": 33.4, "words": [
    {"word": "yes", "start_s": 1.2, "end_s": 1.6}]}
"""

import sys
from pathlib import Path

import msgspec

import kws

recording, labels = sys.argv[1:] or ["kws/models/demo.wav", "kws/models/demo.json"]
words = msgspec.json.decode(Path(labels).read_bytes(), type=kws.LabelledRecording).words
spotter = kws.Spotter("commands")
matches = kws.match(words, spotter.listen(recording), keywords=spotter.keywords)
print(f"{len(matches.hits)} hits, {len(matches.missed)} missed, {len(matches.false)} false alarms")
