"""Submits a task to a pool by a message and prints what it wrote: submit.py BROKER_URL POOL"""

import json
import sys
import uuid

import pika

PATIENCE_SECONDS = 120


def main(url, pool):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    answers = channel.queue_declare("", exclusive=True).method.queue
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=str(uuid.uuid4()),
        correlation_id="hello",
        reply_to=answers,
        headers={"piecework-wait": "completed"},
    )
    task = {"commandLine": "/bin/sh -c 'echo hello from python'"}
    channel.basic_publish("piecework.submit", pool, json.dumps(task), properties, mandatory=True)
    for _, answer, body in channel.consume(answers, auto_ack=True, inactivity_timeout=PATIENCE_SECONDS):
        if body is None:
            sys.exit("no answer in time")
        told = json.loads(body)
        if answer.type == "refused":
            sys.exit(f"{told['code']}: {told['message']['value']}")
        print(told["stdout"], end="")
        connection.close()
        return told["exitCode"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
