"""Find keywords in a recording from Python: python examples/spot_file.py RECORDING.wav."""

import sys

from kws.config import SourceSettings
from kws.model import model_path, open_model
from kws.sources import open_source
from kws.spotter import Spotter

spotter = Spotter(open_model(model_path("commands")))
with open_source(SourceSettings(input=sys.argv[1])) as source:
    for chunk in source:  # int16, mono, 16 kHz: any number of samples
        for detection in spotter.process(chunk):
            print(f"{detection.start_s:.2f} s: {detection.keyword} ({detection.score:.2f})")
for detection in spotter.flush():
    print(f"{detection.start_s:.2f} s: {detection.keyword} ({detection.score:.2f})")
