"""Choose the threshold: as a number, for each keyword, or by a budget of false alarms.

python examples/threshold.py [RECORDING]
"""

import sys

import kws

source = sys.argv[1] if len(sys.argv) > 1 else "mic"
for name, spotter in {
    "0.5 for all": kws.Spotter("commands", threshold=0.5),
    "0.3 for stop": kws.Spotter(
        "commands", decision=kws.DecisionSettings(threshold=0.9, thresholds={"stop": 0.3})
    ),
    "1 false alarm an hour": kws.Spotter("commands", false_alarms_per_hour=1),
}.items():
    found = [detection.keyword for detection in spotter.listen(source)]
    print(f"{name}: stop at {spotter.thresholds['stop']:.2f}, found {found}")
