"""Print near misses and peaks, to tune a threshold: python examples/near_misses.py [RECORDING]."""

import sys

import kws

spotter = kws.Spotter("commands", near_miss_score=0.3)
for _ in spotter.listen(sys.argv[1] if len(sys.argv) > 1 else "mic"):
    pass
for peak in spotter.take_peaks():
    print(f"{peak.end_s:.2f} s: {peak.keyword} detected, peak {peak.peak:.2f}")
for miss in spotter.take_near_misses():
    threshold = spotter.thresholds[miss.keyword]
    print(f"{miss.end_s:.2f} s: {miss.keyword} missed, {miss.score:.2f} of {threshold:.2f}")
