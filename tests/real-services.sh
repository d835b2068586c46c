#!/usr/bin/env bash
# Runs the end-to-end tests and the broker's conformance and client suites on a real RabbitMQ: a private node on a
# port of its own, started from the Debian package and stopped at the end. Then the S3 suite on Garage, where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rabbitmq-server
fi
sbin=$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin | tail -1)
scratch=$(mktemp -d)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port); dist=$(free_port); epmd=$(free_port); admin=$(free_port)

home=$HOME; export HOME="$scratch/home"; mkdir -p "$HOME" "$scratch/data" "$scratch/log"
export RABBITMQ_NODENAME="piecework-$$@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$dist
export RABBITMQ_MNESIA_BASE="$scratch/data" RABBITMQ_LOG_BASE="$scratch/log" RABBITMQ_PID_FILE="$scratch/pid"
export RABBITMQ_CONF_ENV_FILE="$scratch/env.conf" RABBITMQ_CONFIG_FILE="$scratch/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$scratch/plugins"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-setcookie piecework-test -kernel inet_dist_use_interface {127,0,0,1}" RABBITMQ_CTL_ERL_ARGS="-setcookie piecework-test"
export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$epmd
: > "$RABBITMQ_CONF_ENV_FILE"; echo '[rabbitmq_management].' > "$RABBITMQ_ENABLED_PLUGINS_FILE"
printf 'loopback_users = none\nvm_memory_high_watermark.relative = 0.3\ndisk_free_limit.absolute = 200MB\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %s\n' "$admin" > "$scratch/rabbitmq.conf"

"$sbin/rabbitmq-server" > "$scratch/log/out" 2>&1 &
server=$!
cleanup() {
  "$sbin/rabbitmqctl" stop "$scratch/pid" > /dev/null 2>&1 || kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  # The port mapper is a process of its own and outlives the node; it was started on our port.
  epmd_bin=$(command -v epmd || true)
  [ -z "$epmd_bin" ] || ERL_EPMD_PORT=$epmd "$epmd_bin" -port "$epmd" -kill > /dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap cleanup EXIT
for _ in $(seq 1 600); do
  if python3 - "$port" 2>/dev/null <<'P'
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)
s.settimeout(2)
s.sendall(b"AMQP\0\0\x09\x01")
sys.exit(0 if s.recv(1) == b"\x01" else 1)
P
  then ready=1; break; fi
  kill -0 "$server" 2>/dev/null || { cat "$scratch/log/out"; echo "RabbitMQ ended" >&2; exit 1; }
  sleep 0.1
done
[ "${ready:-}" = 1 ] || { cat "$scratch/log/out"; echo "RabbitMQ did not answer in 60 s" >&2; exit 1; }
export HOME=$home

# Each stack of the end-to-end tests has a virtual host of its own.
HOME="$scratch/home" "$sbin/rabbitmqctl" -q eval "[begin rabbit_vhost:add(list_to_binary(\"it-\" ++ integer_to_list(N)), <<\"test\">>), rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, list_to_binary(\"it-\" ++ integer_to_list(N)), <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"test\">>) end || N <- lists:seq(1, 100)], ok."

export PIECEWORK_TEST_AMQP_URL="amqp://guest:guest@127.0.0.1:$port/%2f"
# The cases about users make them by the management API.
export PIECEWORK_TEST_AMQP_ADMIN_URL="http://guest:guest@127.0.0.1:$admin"
cargo test --test it
cargo test -p embedded-broker --test conformance
cargo test -p embedded-broker --test clients
bash tests/real-garage.sh
