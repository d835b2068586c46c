#!/usr/bin/env bash
# Runs the S3 conformance suite on a Garage of its own, when one is installed (PIECEWORK_TEST_GARAGE or `garage`
# on the path): its ports, data and configuration are in a temporary folder and gone at the end. Skips aloud otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
garage=${PIECEWORK_TEST_GARAGE:-$(command -v garage || true)}
if [ -z "$garage" ]; then
  echo "SKIPPED the S3 suites on Garage: no garage is installed and PIECEWORK_TEST_GARAGE names none" >&2
  exit 0
fi
scratch=$(mktemp -d)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
s3=$(free_port); rpc=$(free_port); admin=$(free_port)
hex() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }
export GARAGE_DEFAULT_ACCESS_KEY="GK$(hex 12)" GARAGE_DEFAULT_SECRET_KEY GARAGE_DEFAULT_BUCKET=first GARAGE_CONFIG_FILE="$scratch/garage.toml"
GARAGE_DEFAULT_SECRET_KEY=$(hex 32)
cat > "$GARAGE_CONFIG_FILE" <<EOF
metadata_dir = "$scratch/meta"
data_dir = "$scratch/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(hex 32)"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "127.0.0.1:$s3"
[admin]
api_bind_addr = "127.0.0.1:$admin"
EOF
"$garage" server --single-node --default-bucket > "$scratch/log" 2>&1 &
server=$!
cleanup() { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$scratch"; }
trap cleanup EXIT
for _ in $(seq 1 300); do
  if python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=1)' "http://127.0.0.1:$admin/health" 2>/dev/null; then ready=1; break; fi
  kill -0 "$server" 2>/dev/null || { cat "$scratch/log"; echo "Garage ended" >&2; exit 1; }
  sleep 0.1
done
[ "${ready:-}" = 1 ] || { cat "$scratch/log"; echo "Garage was not healthy in 30 s" >&2; exit 1; }
"$garage" key allow --create-bucket "$GARAGE_DEFAULT_ACCESS_KEY" > /dev/null 2>&1

export PIECEWORK_TEST_S3_ENDPOINT="http://127.0.0.1:$s3" PIECEWORK_TEST_S3_REGION=us-east-1
export PIECEWORK_TEST_S3_ACCESS_KEY=$GARAGE_DEFAULT_ACCESS_KEY PIECEWORK_TEST_S3_SECRET_KEY=$GARAGE_DEFAULT_SECRET_KEY
# What Garage does otherwise is listed, with the reasons in docs/embedded-blobs.md.
skips=()
while read -r name; do skips+=(--skip "$name"); done < <(sed -n '/^## Garage/,/^## /p' docs/embedded-blobs.md | grep -o '`[a-z0-9_]*::[a-z0-9_]*`' | tr -d '`')
cargo test -p embedded-blobs --test conformance -- "${skips[@]}"
