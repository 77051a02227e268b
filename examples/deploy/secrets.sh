#!/bin/sh
# Makes what compose.yaml keeps secret, in the folder secrets beside it; what is there stays.
set -eu
umask 022
cd "$(dirname "$0")"
# Only you may enter the folder. The files in it are mounted one by one, and must be readable to containers' users.
mkdir -p secrets
chmod 700 secrets
cd secrets
random() { openssl rand -hex 24; }

if [ ! -f database-password ]; then random >database-password; fi
if [ ! -f s3-accounts.json ]; then
  registry=$(random) server=$(random)
  # Servers only read; the registry writes.
  cat >s3-accounts.json <<JSON
{"identities": [
  {"name": "registry", "credentials": [{"accessKey": "registry", "secretKey": "$registry"}], "actions": ["Admin"]},
  {"name": "server", "credentials": [{"accessKey": "server", "secretKey": "$server"}],
   "actions": ["Read:models", "List:models"]}
]}
JSON
  printf '[default]\naws_access_key_id = registry\naws_secret_access_key = %s\n' "$registry" >s3-registry
  printf '[default]\naws_access_key_id = server\naws_secret_access_key = %s\n' "$server" >s3-server
fi
if [ ! -f tokens.toml ]; then
  # As "centra token add demo tokens.toml" does: servers know the digest alone.
  printf 'centra_%s' "$(random)" >token
  printf '["demo"]\nsha256 = "%s"\n' "$(openssl dgst -sha256 -r <token | cut -d ' ' -f 1)" >tokens.toml
fi
echo "callers' token: $PWD/token" >&2
