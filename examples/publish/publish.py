"""Submits a task, waits for its end, then invokes a function: publish.py BROKER_URL POOL FUNCTION"""

import json
import sys
import uuid

import pika

PATIENCE_SECONDS = 120


def ask(channel, answers, exchange, pool, body, **properties):
    """Publishes a message and returns what comes back for it."""
    correlation_id = str(uuid.uuid4())
    channel.basic_publish(
        exchange,
        pool,
        json.dumps(body),
        pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=str(uuid.uuid4()),
            correlation_id=correlation_id,
            reply_to=answers,
            **properties,
        ),
        mandatory=True,
    )
    for _, answer, body in channel.consume(answers, auto_ack=True, inactivity_timeout=PATIENCE_SECONDS):
        if answer is None:
            sys.exit("no answer in time")
        if answer.correlation_id == correlation_id:
            return answer, body.decode()


def main(url, pool, function):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    answers = channel.queue_declare("", exclusive=True).method.queue

    task = {"commandLine": "/bin/sh -c 'echo hello from python'"}
    answer, body = ask(channel, answers, "piecework.submit", pool, task, headers={"piecework-wait": "completed"})
    told = json.loads(body)
    if answer.type == "refused":
        sys.exit(f"{told['code']}: {told['message']['value']}")
    print(told["stdout"], end="")
    if told["exitCode"] != 0:
        sys.exit(f"the task ended with {told['exitCode']}")

    answer, body = ask(channel, answers, "piecework.invoke", pool, {"name": "python"}, type=function)
    if answer.headers["piecework-status"] != "ok":
        sys.exit(f"{answer.headers['piecework-error']}: {answer.headers['piecework-message']}")
    print(body)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
