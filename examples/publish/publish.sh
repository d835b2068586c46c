#!/bin/sh
# Submits a task, waits for its end, then invokes a function: publish.sh BROKER_URL POOL FUNCTION
set -eu
[ $# = 3 ] || { echo "usage: publish.sh BROKER_URL POOL FUNCTION" >&2; exit 2; }
url=$1 pool=$2 function=$3
# A publisher may declare queues of this name alone; others may, too.
user=$(printf '%s' "$url" | sed 's#^[^/]*//\([^:@/]*\)[:@].*#\1#')
answers="piecework.answers.$user.$(cat /proc/sys/kernel/random/uuid)"
amqp-declare-queue --url="$url" --queue="$answers" > /dev/null
trap 'amqp-delete-queue --url="$url" --queue="$answers" > /dev/null' EXIT
answer() { timeout 120 amqp-consume --url="$url" --queue="$answers" --count=1 cat; }

printf '%s' '{"commandLine": "/bin/sh -c '\''echo hello from the shell'\''"}' |
  amqp-publish --url="$url" --exchange=piecework.submit --routing-key="$pool" --persistent \
    --content-type=application/json --reply-to="$answers" --header='piecework-wait: completed'
told=$(answer)
printf '%s' "$told" | jq --join-output 'if .code then .code + ": " + .message.value + "\n" else .stdout end'
[ "$(printf '%s' "$told" | jq '.exitCode // 1')" = 0 ] || exit 1

# amqp-publish cannot set `type`: the header names the function as well.
printf '%s' '{"name":"the shell"}' |
  amqp-publish --url="$url" --exchange=piecework.invoke --routing-key="$pool" --persistent \
    --content-type=application/json --reply-to="$answers" --header="piecework-function: $function"
answer
echo
