"""Listen for words of several models on one stream: python examples/several_words.py [RECORDING].

Gate and features are computed once.
"""

import sys

import kws

spotter = kws.Spotter(["commands", "computer", "hey_computer"])
print("Listening for", ", ".join(spotter.keywords))
for detection in spotter.listen(sys.argv[1] if len(sys.argv) > 1 else "mic"):
    print(f"{detection.end_s:.2f} s: {detection.keyword} by {detection.model}")
