#!/usr/bin/env bash
# Ships one team's module into production, whatever else other teams ship at the same moment.
#
#   ship.sh TASK MODULE DATA
#
# MODULE is a task module or a fine-tuned Hugging Face checkpoint, DATA a JSONL file or a folder with
# dev.jsonl. CENTRA_DATABASE_URL, CENTRA_STORE and CENTRA_ACTOR say where and who; centra.toml holds
# the gates. SMOKE, if set, is a command that is given a release and fails if its answers are wrong;
# it is asked before production and, through the store alone as a server reads it, after.
#
# Exit codes are centra's: 5 when production keeps moving or the labels changed, 6 when a gate fails.
set -euo pipefail
task=$1 module=$2 data=$3
reports=${REPORTS:-.}

say() { printf '== %s\n' "$*" >&2; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
smoke() { if [ -n "${SMOKE:-}" ]; then $SMOKE "$1"; fi; }

if centra task show "$task" >/dev/null 2>&1; then
  version=$(centra task update "$task" "$module")
else
  version=$(centra task register "$task" "$module")
fi
say "$version is registered"

for attempt in 1 2 3 4 5 6 7 8; do
  release=$(centra compose --base production --set "$version" --release --json | field release)
  say "release $release: production and $version"

  centra release evaluate "$release" --task "$task" --data "$data"
  # What is served now, on the same data, so that a drop shows; a new task is not served yet.
  centra release evaluate production --task "$task" --data "$data" || [ $? -eq 3 ]

  centra promote "$release" --to staging
  smoke "$release"

  code=0
  centra promote "$release" --to production --markdown --junit "$reports/gates.xml" \
    >"$reports/gates.md" || code=$?
  cat "$reports/gates.md"
  if [ $code -eq 0 ]; then break; fi
  # 5: another team was faster. Its change is part of production now; compose onto that, test again.
  if [ $code -ne 5 ] || [ $attempt -eq 8 ]; then exit $code; fi
  say "production has moved meanwhile; once more"
done

if ! smoke "$CENTRA_STORE#production"; then
  say "production fails with release $release; rolling back"
  centra rollback production --from "$release"
  exit 1
fi
say "release $release is in production"
