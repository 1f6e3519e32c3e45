"""A hook: append each detection to detections.csv.

[[hooks]]
keyword = "*"
command = ["python3", "examples/hook.py"]
"""

import json
import sys
from pathlib import Path

event = json.load(sys.stdin)
with Path("detections.csv").open("a", encoding="utf-8") as rows:
    rows.write(f"{event['keyword']},{event['score']},{event['end_s']}\n")
