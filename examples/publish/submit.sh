#!/bin/sh
# Submits a task to a pool by a message and prints what it wrote: submit.sh BROKER_URL POOL
set -eu
url=$1 pool=$2
answers="answers-$(cat /proc/sys/kernel/random/uuid)"
amqp-declare-queue --url="$url" --queue="$answers" > /dev/null
trap 'amqp-delete-queue --url="$url" --queue="$answers" > /dev/null' EXIT
printf '%s' '{"commandLine": "/bin/sh -c '\''echo hello from the shell'\''"}' |
  amqp-publish --url="$url" --exchange=piecework.submit --routing-key="$pool" --persistent \
    --content-type=application/json --reply-to="$answers" --header='piecework-wait: completed'
answer=$(timeout 120 amqp-consume --url="$url" --queue="$answers" --count=1 cat)
printf '%s' "$answer" | jq --join-output 'if .code then .code + ": " + .message.value + "\n" else .stdout end'
exit "$(printf '%s' "$answer" | jq '.exitCode // 1')"
