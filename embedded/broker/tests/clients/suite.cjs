"use strict";
// What amqplib expects of a broker. One check a function; prints "ok NAME" for each; ends with 1 when one fails.
// usage: node suite.cjs MODULES URL, where MODULES is a node_modules folder that holds amqplib.
const assert = require("node:assert/strict");
const path = require("node:path");
const { randomUUID } = require("node:crypto");

const [modules, url] = process.argv.slice(2);
const amqp = require(path.join(modules, "amqplib"));
const WAIT_MS = 20_000;
const checks = [];

function check(name, body) {
  checks.push([name, body]);
}

/** The promise, or an error when it takes too long. */
function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what}`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What an emitter tells next under a name. */
function event(emitter, name) {
  return within(new Promise((resolve) => emitter.once(name, resolve)), name);
}

async function queue(channel, args) {
  return (await channel.assertQueue("", { exclusive: true, arguments: args })).queue;
}

/** The next messages of a queue, acked as told, and then cancelled. */
async function take(channel, name, count = 1, settle = (message) => channel.ack(message)) {
  const seen = [];
  const { consumerTag } = await within(
    new Promise((resolve, reject) => {
      const started = channel.consume(name, (message) => {
        seen.push(message);
        settle(message);
        if (seen.length === count) resolve(started);
      });
      started.catch(reject);
    }),
    `${count} messages`,
  );
  await channel.cancel(consumerTag);
  return seen;
}

/** What a refusal closes a channel with. */
async function refusal(connection, act) {
  const channel = await connection.createChannel();
  const closed = event(channel, "error");
  act(channel).catch(() => {});
  return (await closed).code;
}

check("confirms_come_for_everything", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  for (let number = 0; number < 500; number++) channel.sendToQueue(name, Buffer.from([1]), { persistent: true });
  await within(channel.waitForConfirms(), "confirms");
  assert.equal((await channel.checkQueue(name)).messageCount, 500);
});

check("a_full_queue_nacks_the_publish", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel, { "x-max-length": 1, "x-overflow": "reject-publish" });
  const refused = async () => {
    for (let number = 0; number < 10; number++) {
      const failed = await new Promise((resolve) => channel.sendToQueue(name, Buffer.from("x"), {}, resolve));
      if (failed) return true;
    }
    return false;
  };
  assert.ok(await within(refused(), "a nack"));
});

check("an_unroutable_message_is_returned", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const returned = event(channel, "return");
  channel.publish("", `no-such-${randomUUID()}`, Buffer.from("back"), { mandatory: true });
  await within(channel.waitForConfirms(), "the confirm");
  const message = await returned;
  assert.equal(message.content.toString(), "back");
  assert.equal(message.fields.replyCode, 312);
});

check("get_counts_down_to_empty", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  for (const body of ["1", "2"]) channel.sendToQueue(name, Buffer.from(body));
  await within(channel.waitForConfirms(), "confirms");
  const first = await channel.get(name, { noAck: true });
  assert.deepEqual([first.content.toString(), first.fields.messageCount, first.fields.redelivered], ["1", 1, false]);
  assert.equal((await channel.get(name, { noAck: true })).content.toString(), "2");
  assert.equal(await channel.get(name), false);
});

check("consume_keeps_order_under_prefetch", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  for (let number = 0; number < 50; number++) channel.sendToQueue(name, Buffer.from(String(number)));
  await within(channel.waitForConfirms(), "confirms");
  await channel.prefetch(3);
  let out = 0;
  const seen = await take(channel, name, 50, (message) => {
    out++;
    assert.ok(out <= 3, "more than the prefetch is out");
    setImmediate(() => {
      out--;
      channel.ack(message);
    });
  });
  assert.deepEqual(seen.map((message) => Number(message.content)), [...Array(50).keys()]);
});

check("nack_requeues_flagged_and_in_place", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  for (const body of ["1", "2"]) channel.sendToQueue(name, Buffer.from(body));
  await within(channel.waitForConfirms(), "confirms");
  channel.nack(await channel.get(name), false, true);
  const [again, second] = await take(channel, name, 2);
  assert.deepEqual([again.content.toString(), again.fields.redelivered], ["1", true]);
  assert.deepEqual([second.content.toString(), second.fields.redelivered], ["2", false]);
});

check("nack_all_returns_everything_unacked", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  for (const body of ["1", "2", "3"]) channel.sendToQueue(name, Buffer.from(body));
  await within(channel.waitForConfirms(), "confirms");
  for (let number = 0; number < 3; number++) assert.ok(await channel.get(name));
  channel.nackAll(true);
  const seen = await take(channel, name, 3);
  assert.deepEqual(seen.map((message) => message.content.toString()), ["1", "2", "3"]);
});

check("the_dead_letter_exchange_gets_the_story", async (connection) => {
  const channel = await connection.createChannel();
  const dead = await queue(channel);
  const name = await queue(channel, { "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead });
  channel.sendToQueue(name, Buffer.from("dead"), { headers: { mine: 1 } });
  await take(channel, name, 1, (message) => channel.reject(message, false));
  const [message] = await take(channel, dead);
  const [death] = message.properties.headers["x-death"];
  assert.equal(message.properties.headers.mine, 1);
  assert.deepEqual([death.queue, death.reason, death.count, death.exchange], [name, "rejected", 1, ""]);
  assert.deepEqual(death["routing-keys"], [name]);
  assert.equal(death.time["!"], "timestamp");
});

check("what_expires_is_dead_lettered", async (connection) => {
  const channel = await connection.createChannel();
  const dead = await queue(channel);
  const name = await queue(channel, { "x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead });
  channel.sendToQueue(name, Buffer.from("by the queue's time"));
  const [first] = await take(channel, dead);
  assert.equal(first.properties.headers["x-first-death-reason"], "expired");
  const patient = await queue(channel, { "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead });
  channel.sendToQueue(patient, Buffer.from("by its own time"), { expiration: "20" });
  const [second] = await take(channel, dead);
  assert.equal(second.properties.headers["x-death"][0]["original-expiration"], "20");
  assert.equal(second.properties.expiration, undefined);
});

check("higher_priority_is_first", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const { queue: name } = await channel.assertQueue("", { exclusive: true, maxPriority: 5 });
  for (const priority of [1, 5, 3]) channel.sendToQueue(name, Buffer.from(String(priority)), { priority });
  await within(channel.waitForConfirms(), "confirms");
  const seen = await take(channel, name, 3);
  assert.deepEqual(seen.map((message) => message.content.toString()), ["5", "3", "1"]);
});

check("exchanges_bind_to_exchanges", async (connection) => {
  const channel = await connection.createChannel();
  const [first, second, name] = [`npm-${randomUUID()}`, `npm-${randomUUID()}`, await queue(channel)];
  await channel.assertExchange(first, "topic", { autoDelete: true });
  await channel.assertExchange(second, "fanout", { autoDelete: true });
  await channel.bindExchange(second, first, "a.#");
  await channel.bindQueue(name, second, "");
  channel.publish(first, "b.c", Buffer.from("no"));
  channel.publish(first, "a.b.c", Buffer.from("yes"));
  assert.equal((await take(channel, name))[0].content.toString(), "yes");
  await channel.unbindExchange(second, first, "a.#");
  await channel.deleteExchange(second);
});

check("headers_choose_the_queue", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const [exchange, name] = [`npm-${randomUUID()}`, await queue(channel)];
  await channel.assertExchange(exchange, "headers", { autoDelete: true });
  await channel.bindQueue(name, exchange, "", { "x-match": "all", format: "pdf", pages: 3 });
  channel.publish(exchange, "", Buffer.from("no"), { headers: { format: "pdf", pages: 4 } });
  channel.publish(exchange, "", Buffer.from("yes"), { headers: { format: "pdf", pages: 3, more: true } });
  await within(channel.waitForConfirms(), "confirms");
  assert.equal((await channel.get(name, { noAck: true })).content.toString(), "yes");
  assert.equal(await channel.get(name), false);
  await channel.deleteExchange(exchange);
});

check("a_deleted_queue_cancels_its_consumer", async (connection) => {
  const channel = await connection.createChannel();
  const { queue: name } = await channel.assertQueue(`npm-${randomUUID()}`, { durable: false });
  let consuming;
  const cancelled = new Promise((resolve) => {
    consuming = channel.consume(name, (message) => message === null && resolve());
  });
  await consuming;
  await channel.deleteQueue(name);
  await within(cancelled, "the cancel");
});

check("a_refusal_closes_only_its_channel", async (connection) => {
  const name = `npm-${randomUUID()}`;
  assert.equal(await refusal(connection, (channel) => channel.checkQueue(name)), 404);
  const channel = await connection.createChannel();
  await channel.assertQueue(name, { exclusive: true });
  assert.equal(await refusal(connection, (other) => other.assertQueue(name, { exclusive: true, messageTtl: 1 })), 406);
  assert.equal(await refusal(connection, (other) => other.assertQueue(`amq.${name}`)), 403);
  assert.equal((await channel.checkQueue(name)).consumerCount, 0);
});

check("headers_of_every_type_come_back", async (connection) => {
  const channel = await connection.createChannel();
  const name = await queue(channel);
  const headers = {
    yes: true, no: false, small: 7, negative: -7, short: -3000, int: 100_000, long: 2 ** 40, half: 0.5, third: 1 / 3,
    text: "grün", empty: "", bytes: Buffer.from([0, 255]), nothing: null, none: {},
    time: { "!": "timestamp", value: 1_577_934_245 }, money: { "!": "decimal", value: { places: 2, digits: 1234 } },
    list: [1, "two", [false], { four: 4 }], table: { in: { deep: [null] } },
  };
  const options = {
    headers, contentType: "a/b", contentEncoding: "gzip", correlationId: "c", messageId: "m", appId: "app", type: "t",
    timestamp: 1_600_000_000, priority: 3, replyTo: "r", userId: "guest",
  };
  channel.sendToQueue(name, Buffer.from("x"), options);
  const [{ properties }] = await take(channel, name);
  assert.deepEqual(JSON.parse(JSON.stringify(properties.headers)), JSON.parse(JSON.stringify(headers)));
  for (const field of Object.keys(options)) {
    if (field !== "headers") assert.equal(properties[field], options[field], field);
  }
});

check("a_body_of_5_mib_comes_whole", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  const body = Buffer.alloc(5 << 20, Buffer.from([...Array(256).keys()]));
  channel.sendToQueue(name, body);
  await within(channel.waitForConfirms(), "the confirm");
  assert.ok((await take(channel, name))[0].content.equals(body));
});

check("direct_reply_to_answers", async (connection) => {
  const channel = await connection.createChannel();
  const name = await queue(channel);
  let answered;
  const answer = new Promise((resolve) => (answered = resolve));
  await channel.consume("amq.rabbitmq.reply-to", answered, { noAck: true });
  channel.sendToQueue(name, Buffer.from("ask"), { replyTo: "amq.rabbitmq.reply-to", correlationId: "7" });
  const [asked] = await take(channel, name);
  const other = await connection.createChannel();
  other.sendToQueue(asked.properties.replyTo, Buffer.from("answer"), { correlationId: asked.properties.correlationId });
  const got = await within(answer, "the answer");
  assert.deepEqual([got.content.toString(), got.properties.correlationId], ["answer", "7"]);
});

check("an_exclusive_consumer_keeps_others_out", async (connection) => {
  const channel = await connection.createChannel();
  const name = await queue(channel);
  await channel.consume(name, () => {}, { exclusive: true });
  assert.equal(await refusal(connection, (other) => other.consume(name, () => {})), 403);
});

check("recover_brings_back_what_is_out", async (connection) => {
  const channel = await connection.createConfirmChannel();
  const name = await queue(channel);
  channel.sendToQueue(name, Buffer.from("again"));
  await within(channel.waitForConfirms(), "the confirm");
  assert.ok(await channel.get(name));
  await channel.recover();
  assert.equal((await take(channel, name))[0].fields.redelivered, true);
});

check("a_wrong_password_is_refused", async () => {
  const wrong = new URL(url);
  wrong.password = "wrong";
  await assert.rejects(within(amqp.connect(wrong.href), "the refusal"), /403/);
});

(async () => {
  let failed = 0;
  for (const [name, body] of checks) {
    let connection;
    try {
      connection = await within(amqp.connect(url), "the login");
      await body(connection);
      console.log("ok", name);
    } catch (error) {
      failed++;
      console.log("FAILED", name);
      console.error(error);
    }
    await connection?.close().catch((error) => console.error("could not close:", error.message));
  }
  process.exit(failed ? 1 : 0);
})();
