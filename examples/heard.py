"""A hook: append what was heard to heard.csv.

[[hooks]]
keyword = "*"
command = ["python3", "examples/heard.py"]
"""

import json
import sys
from pathlib import Path

event = json.load(sys.stdin)
with Path("heard.csv").open("a", encoding="utf-8") as rows:
    rows.write(f"{event['keyword']},{event['score']},{event['start_s']},{event['end_s']}\n")
