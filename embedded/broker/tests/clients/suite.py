"""What pika expects of a broker. One check a function; prints "ok NAME" for each; ends with 1 when one fails."""
import datetime
import decimal
import functools
import sys
import traceback
import uuid

import pika

URL = sys.argv[1]
CHECKS = []
WAIT_SECONDS = 20


def check(function):
    CHECKS.append(function)
    return function


def connect(**settings):
    parameters = pika.URLParameters(URL)
    for name, value in settings.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def queue(channel, **arguments):
    return channel.queue_declare("", exclusive=True, arguments=arguments or None).method.queue


def put(channel, name, body=b"x", **properties):
    channel.basic_publish("", name, body, pika.BasicProperties(**properties))


def take(channel, name, auto_ack=True):
    """The next message, waited for."""
    for method, properties, body in channel.consume(name, auto_ack=auto_ack, inactivity_timeout=WAIT_SECONDS):
        assert method is not None, "no message came"
        channel.cancel()
        return method, properties, body


@check
def login_tells_capabilities(channel):
    has = channel.connection._impl.server_capabilities
    for name in ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked", "exchange_exchange_bindings"):
        assert has[name] is True, name


@check
def wrong_password_is_an_authentication_error(channel):
    try:
        connect(credentials=pika.PlainCredentials("guest", "wrong"))
    except pika.exceptions.ProbableAuthenticationError:
        return
    raise AssertionError("logged in")


@check
def confirms_come(channel):
    name = queue(channel)
    channel.confirm_delivery()
    for _ in range(100):
        put(channel, name, delivery_mode=2)
    assert channel.queue_declare(name, passive=True).method.message_count == 100


@check
def unroutable_is_returned(channel):
    channel.confirm_delivery()
    try:
        channel.basic_publish("", "no-such-" + uuid.uuid4().hex, b"back", mandatory=True)
    except pika.exceptions.UnroutableError as error:
        assert error.messages[0].body == b"back" and error.messages[0].method.reply_code == 312
        return
    raise AssertionError("taken")


@check
def a_full_queue_nacks(channel):
    name = queue(channel, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    put(channel, name)
    try:
        for _ in range(10):
            put(channel, name)
    except pika.exceptions.NackError:
        return
    raise AssertionError("never nacked")


@check
def get_counts_down_to_empty(channel):
    name = queue(channel)
    channel.confirm_delivery()
    put(channel, name, b"1")
    put(channel, name, b"2")
    method, _, body = channel.basic_get(name, auto_ack=True)
    assert (body, method.message_count, method.redelivered) == (b"1", 1, False)
    assert channel.basic_get(name, auto_ack=True)[2] == b"2"
    assert channel.basic_get(name) == (None, None, None)


@check
def consume_keeps_order_under_prefetch(channel):
    name = queue(channel)
    channel.confirm_delivery()
    for number in range(50):
        put(channel, name, str(number).encode())
    channel.basic_qos(prefetch_count=3)
    seen = []

    def on_message(_, method, __, body):
        seen.append(int(body))
        channel.basic_ack(method.delivery_tag)
        if len(seen) == 50:
            channel.stop_consuming()

    channel.basic_consume(name, on_message)
    channel.start_consuming()
    assert seen == list(range(50))


@check
def nack_requeues_flagged_and_in_place(channel):
    name = queue(channel)
    channel.confirm_delivery()
    put(channel, name, b"1")
    put(channel, name, b"2")
    method, _, _ = channel.basic_get(name)
    channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, body = take(channel, name)
    assert (body, method.redelivered) == (b"1", True)


@check
def rejected_goes_to_the_dead_letter_exchange(channel):
    dead = queue(channel)
    name = queue(channel, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    put(channel, name, b"dead", headers={"mine": 1})
    method, _, _ = take(channel, name, auto_ack=False)
    channel.basic_reject(method.delivery_tag, requeue=False)
    _, properties, body = take(channel, dead)
    death = properties.headers["x-death"][0]
    assert body == b"dead" and properties.headers["mine"] == 1
    assert (death["queue"], death["reason"], death["count"], death["exchange"]) == (name, "rejected", 1, "")
    assert isinstance(death["time"], datetime.datetime) and death["routing-keys"] == [name]


@check
def expired_goes_to_the_dead_letter_exchange(channel):
    dead = queue(channel)
    name = queue(channel, **{"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    put(channel, name, b"late")
    _, properties, _ = take(channel, dead)
    assert properties.headers["x-death"][0]["reason"] == "expired"


@check
def higher_priority_is_first(channel):
    name = queue(channel, **{"x-max-priority": 5})
    channel.confirm_delivery()
    for priority in (1, 5, 3):
        put(channel, name, str(priority).encode(), priority=priority)
    assert [channel.basic_get(name, auto_ack=True)[2] for _ in range(3)] == [b"5", b"3", b"1"]


@check
def exchanges_bind_to_exchanges(channel):
    first, second, name = "pika-" + uuid.uuid4().hex, "pika-" + uuid.uuid4().hex, queue(channel)
    channel.exchange_declare(first, "topic", auto_delete=True)
    channel.exchange_declare(second, "fanout", auto_delete=True)
    channel.exchange_bind(second, first, "a.#")
    channel.queue_bind(name, second)
    channel.basic_publish(first, "b.c", b"no")
    channel.basic_publish(first, "a.b.c", b"yes")
    assert take(channel, name)[2] == b"yes"
    channel.exchange_delete(first)
    channel.exchange_delete(second)


@check
def a_deleted_queue_cancels_its_consumer(channel):
    name = channel.queue_declare("", auto_delete=False).method.queue
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(name, lambda *_: None)
    channel.queue_delete(name)
    for _ in range(WAIT_SECONDS):
        if cancelled:
            break
        channel.connection.process_data_events(time_limit=1)
    assert cancelled == [tag]


@check
def a_closed_channel_leaves_the_connection(channel):
    other = channel.connection.channel()
    try:
        other.queue_declare("no-such-" + uuid.uuid4().hex, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404
    else:
        raise AssertionError("found")
    assert queue(channel)


@check
def a_changed_declare_is_refused(channel):
    name = "pika-" + uuid.uuid4().hex
    channel.queue_declare(name, exclusive=True)
    try:
        channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 1})
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 406
        return
    raise AssertionError("taken")


@check
def a_large_body_comes_whole(channel):
    name, body = queue(channel), bytes(range(256)) * (5 * 4096)
    channel.confirm_delivery()
    put(channel, name, body)
    assert take(channel, name)[2] == body


@check
def headers_of_every_type_come_back(channel):
    name = queue(channel)
    headers = {
        "bool": True, "int": -7, "long": 2**40, "text": "grün", "bytes": bytes([0, 255]), "none": None,
        "decimal": decimal.Decimal("12.34"), "time": datetime.datetime(2020, 1, 2, 3, 4, 5),
        "list": [1, "two", [False], {"four": 4}], "table": {"in": {"deep": [None]}}, "empty": {},
    }
    put(channel, name, headers=headers, content_type="a/b", correlation_id="c", message_id="m", app_id="app", type="t")
    _, properties, _ = take(channel, name)
    back = dict(properties.headers)
    back["time"] = back["time"].replace(tzinfo=None)
    assert back == headers, back
    told = (properties.content_type, properties.correlation_id, properties.message_id, properties.app_id, properties.type)
    assert told == ("a/b", "c", "m", "app", "t")


@check
def direct_reply_to_answers(channel):
    name, answers = queue(channel), []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda _, __, ___, body: answers.append(body), auto_ack=True)
    put(channel, name, b"ask", reply_to="amq.rabbitmq.reply-to")
    with connect() as other:
        server = other.channel()
        for _ in range(WAIT_SECONDS * 10):
            asked = channel.basic_get(name, auto_ack=True)
            if asked[0]:
                break
        server.basic_publish("", asked[1].reply_to, b"answer")
    for _ in range(WAIT_SECONDS):
        if answers:
            break
        channel.connection.process_data_events(time_limit=1)
    assert answers == [b"answer"]


@check
def a_blocked_callback_can_be_registered(channel):
    with connect(blocked_connection_timeout=WAIT_SECONDS) as other:
        other.add_on_connection_blocked_callback(lambda *_: None)
        other.add_on_connection_unblocked_callback(lambda *_: None)
        assert queue(other.channel())


@check
def heartbeats_keep_an_idle_connection(channel):
    with connect(heartbeat=1) as other:
        other.process_data_events(time_limit=4)
        assert other.is_open and queue(other.channel())


@check
def select_connection_consumes_what_it_publishes(channel):
    seen = []

    def on_open(opened):
        opened.channel(on_open_callback=on_channel)

    def on_channel(opened):
        opened.queue_declare("", exclusive=True, callback=functools.partial(on_queue, opened))

    def on_queue(opened, frame):
        opened.basic_consume(frame.method.queue, on_message)
        opened.basic_publish("", frame.method.queue, b"async")

    def on_message(opened, method, _, body):
        seen.append(body)
        opened.basic_ack(method.delivery_tag)
        opened.connection.close()

    connection = pika.SelectConnection(
        pika.URLParameters(URL), on_open_callback=on_open, on_close_callback=lambda closed, _: closed.ioloop.stop(),
        on_open_error_callback=lambda failed, _: failed.ioloop.stop(),
    )
    connection.ioloop.call_later(WAIT_SECONDS, connection.ioloop.stop)
    connection.ioloop.start()
    assert seen == [b"async"]


failed = 0
for function in CHECKS:
    try:
        with connect() as connection:
            function(connection.channel())
        print("ok", function.__name__, flush=True)
    except Exception:
        failed += 1
        print("FAILED", function.__name__, flush=True)
        traceback.print_exc()
sys.exit(1 if failed else 0)
