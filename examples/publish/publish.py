"""Submits a task, waits for its end, then invokes a function: publish.py BROKER_URL POOL FUNCTION"""

import json
import sys
import time
import uuid

import pika

PATIENCE_SECONDS = 120


ANSWERS = "amq.rabbitmq.reply-to"


def ask(channel, exchange, pool, body, **properties):
    """Publishes a message and returns what comes back for it."""
    correlation_id = str(uuid.uuid4())
    came = []
    consumer = channel.basic_consume(ANSWERS, lambda _, __, answer, body: came.append((answer, body.decode())), auto_ack=True)
    channel.basic_publish(
        exchange,
        pool,
        json.dumps(body),
        pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=str(uuid.uuid4()),
            correlation_id=correlation_id,
            reply_to=ANSWERS,
            **properties,
        ),
        mandatory=True,
    )
    until = time.monotonic() + PATIENCE_SECONDS
    while not came and time.monotonic() < until:
        channel.connection.process_data_events(time_limit=1)
    channel.basic_cancel(consumer)
    return came[0] if came else sys.exit("no answer in time")


def main(url, pool, function):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()

    task = {"commandLine": "/bin/sh -c 'echo hello from python'"}
    answer, body = ask(channel, "piecework.submit", pool, task, headers={"piecework-wait": "completed"})
    told = json.loads(body)
    if answer.type == "refused":
        sys.exit(f"{told['code']}: {told['message']['value']}")
    print(told["stdout"], end="")
    if told["exitCode"] != 0:
        sys.exit(f"the task ended with {told['exitCode']}")

    answer, body = ask(channel, "piecework.invoke", pool, {"name": "python"}, type=function)
    if answer.headers["piecework-status"] != "ok":
        sys.exit(f"{answer.headers['piecework-error']}: {answer.headers['piecework-message']}")
    print(body)
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
