#!/usr/bin/env bash
# A smoke test for ship.sh: the release given must answer the team's own example rightly.
set -euo pipefail
centra predict --release "$1" --task intent --json "wake me at seven" |
  python3 -c '
import json, sys
answer = json.load(sys.stdin)["intent"]
print(answer, file=sys.stderr)
sys.exit(answer["label"] != "alarm")
'
