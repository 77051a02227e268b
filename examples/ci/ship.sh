#!/usr/bin/env bash
# Ships one team's module into production, whatever else other teams ship at the same moment.
#
#   ship.sh TASK MODULE DATA
#
# MODULE is a task module or a fine-tuned Hugging Face checkpoint. DATA is a JSONL file, or a folder with
# test.jsonl, of rows that training has not seen, not even to know when to stop: dev.jsonl would flatter.
# The registry holds the gates (centra policy show); CENTRA_DATABASE_URL and CENTRA_STORE, or centra.toml,
# say where it is; CENTRA_ACTOR says who acts. SMOKE, if set, is a command that is given a release and fails if its
# answers are wrong; it is asked before production and, through the store alone as a server reads it,
# after. Whatever ends the script between the two, an error or a signal, rolls production back.
#
# Exit codes are centra's: 4 when the task is another team's, 5 when production keeps moving or the labels
# changed, 6 when a gate fails.
set -euo pipefail
if [ $# -ne 3 ]; then
  echo "usage: ship.sh TASK MODULE DATA" >&2
  exit 2
fi
task=$1 module=$2 data=$3
reports=${REPORTS:-.}
unproven=

say() { printf '== %s\n' "$*" >&2; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
smoke() { if [ -n "${SMOKE:-}" ]; then $SMOKE "$1"; fi; }
settle() {
  code=$?
  trap - EXIT
  if [ -n "$unproven" ]; then
    say "production fails with release $unproven; rolling back"
    centra rollback production --from "$unproven" ||
      say "NOT rolled back: see what it serves, and do it by hand"
    if [ $code -eq 0 ]; then code=1; fi
  fi
  exit $code
}
trap settle EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -d "$data" ]; then data=$data/test.jsonl; fi
if [ ! -f "$data" ]; then
  say "there is no $data: rows to measure on, which training has not seen"
  exit 2
fi
if cmp -s "$data" "$(dirname "$data")/dev.jsonl"; then
  say "$data are the rows of dev.jsonl, which told training when to stop: keep others to measure on"
  exit 2
fi
mkdir -p "$reports"

# Before anything moves: is there a production, and where will servers read it?
served=$(centra channel show production --json | field address)

# 3: there is no such task. Any other error is one.
code=0
centra task show "$task" >/dev/null || code=$?
case $code in
  0) version=$(centra task update "$task" "$module") ;;
  3) version=$(centra task register "$task" "$module") ;;
  *) exit $code ;;
esac
say "$version is registered"

for attempt in 1 2 3 4 5 6 7 8; do
  release=$(centra compose --base production --set "$version" --release --json | field release)
  say "release $release: production and $version"

  centra release evaluate "$release" --task "$task" --data "$data"
  # What is served now, on the same data, so that a drop shows; a new task is not served yet.
  centra release evaluate production --task "$task" --data "$data" || [ $? -eq 3 ]

  centra promote "$release" --to staging
  smoke "$release"

  unproven=$release code=0
  centra promote "$release" --to production --markdown --junit "$reports/gates.xml" \
    >"$reports/gates.md" || code=$?
  # With these it was refused. With any other, production may have moved, be it only in the database.
  case $code in 2 | 3 | 4 | 5 | 6) unproven= ;; esac
  cat "$reports/gates.md"
  if [ $code -eq 0 ]; then break; fi
  # 5: another team was faster. Its change is part of production now; compose onto that, test again.
  if [ $code -ne 5 ] || [ $attempt -eq 8 ]; then exit $code; fi
  say "production has moved meanwhile; once more"
done

smoke "$served"
unproven=
say "release $release is in production"
