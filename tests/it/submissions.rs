//! Tasks by message, from a client that knows nothing of Piecework: publish, and read the answer.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

const EXCHANGE: &str = "piecework.submit";
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// An answer as it arrived.
#[derive(Debug)]
struct Received {
    kind: String,
    correlation_id: String,
    content_type: String,
    /// The header that names what was ignored.
    ignored: Option<String>,
    body: Vec<u8>,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A publisher with one queue for its answers.
struct Client {
    runtime: tokio::runtime::Runtime,
    _connection: Connection,
    channel: Channel,
    answers: Consumer,
    reply_to: String,
}

impl Client {
    /// Answers come to a durable queue of this name, or directly.
    fn new(stack: &Stack, reply_to: &str) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connection, channel, answers) = runtime.block_on(async {
            let connection = Connection::connect(&stack.ready.broker, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            if reply_to != DIRECT_REPLY_TO {
                let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(reply_to.into(), options, FieldTable::default()).await.unwrap();
            }
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let answers = channel.basic_consume(reply_to.into(), "".into(), options, FieldTable::default()).await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel, answers)
        });
        Client { runtime, _connection: connection, channel, answers, reply_to: reply_to.to_owned() }
    }

    fn asking(&self, correlation_id: &str) -> BasicProperties {
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_reply_to(self.reply_to.as_str().into())
            .with_correlation_id(correlation_id.into())
    }

    /// Publishes and waits for the broker's confirm.
    fn publish(&self, pool: &str, body: &[u8], properties: BasicProperties) {
        let confirm = self.runtime.block_on(async {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            self.channel.basic_publish(EXCHANGE.into(), pool.into(), options, body, properties).await.unwrap().await.unwrap()
        });
        assert!(confirm.is_ack(), "{confirm:?}");
    }

    fn next(&mut self) -> Received {
        let delivery = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.answers.next()).await });
        let delivery = delivery.expect("an answer in time").expect("an open channel").expect("a delivery");
        let text = |field: &Option<lapin::types::ShortString>| field.as_ref().map(|text| text.to_string()).unwrap_or_default();
        let properties = &delivery.properties;
        Received {
            kind: text(properties.kind()),
            correlation_id: text(properties.correlation_id()),
            content_type: text(properties.content_type()),
            ignored: properties.headers().as_ref().and_then(|headers| headers.inner().get("piecework-ignored")).map(|value| match value {
                AMQPValue::LongString(text) => text.to_string(),
                other => panic!("{other:?}"),
            }),
            body: delivery.data,
        }
    }

    fn ask(&mut self, pool: &str, body: &Value, properties: BasicProperties) -> Received {
        self.publish(pool, body.to_string().as_bytes(), properties);
        self.next()
    }

    /// Takes the dead letters that there are.
    fn dead(&self) -> Vec<lapin::message::Delivery> {
        self.runtime.block_on(async {
            let mut found = Vec::new();
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) = self.channel.basic_get("piecework.dead".into(), options).await.unwrap() {
                found.push(message.delivery);
            }
            found
        })
    }
}

fn headers(pairs: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

fn header(properties: &BasicProperties, name: &str) -> String {
    match properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_message_becomes_a_task_and_its_sender_is_told() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("Work", 1, 2);
    let mut client = Client::new(&stack, DIRECT_REPLY_TO);

    // Accepted, by direct reply-to; the command line alone is enough.
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asked = client.asking("first").with_headers(headers(&[("traceparent", trace)]));
    let told = client.ask("Work", &json!({"commandLine": "/bin/sh -c 'echo out; echo err >&2; exit 3'"}), asked);
    assert_eq!((told.kind.as_str(), told.correlation_id.as_str(), told.content_type.as_str()), ("accepted", "first", "application/json"));
    assert_eq!(told.ignored, None);
    let accepted = told.json();
    assert_eq!((&accepted["jobId"], &accepted["state"]), (&json!("queue-Work"), &json!("active")));
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(accepted["url"], format!("{}/jobs/queue-Work/tasks/{id}", stack.ready.url.trim_end_matches('/')));
    assert_eq!(rest.finished("queue-Work", id)["executionInfo"]["exitCode"], 3);
    assert_eq!(rest.get(&format!("/jobs/queue-Work/tasks/{id}"))["piecework"]["traceparent"], trace);

    // Its end, to a queue of its own.
    let mut waiting = Client::new(&stack, "ends");
    let ends = |client: &Client, id: &str| client.asking(id).with_headers(headers(&[("piecework-wait", "completed")]));
    let told = waiting.ask("work", &json!({"commandLine": "/bin/sh -c 'echo out; echo err >&2; exit 3'"}), ends(&waiting, "second"));
    let end = told.json();
    assert_eq!((told.kind.as_str(), told.correlation_id.as_str()), ("completed", "second"));
    assert_eq!((&end["state"], &end["result"], &end["exitCode"]), (&json!("completed"), &json!("failure"), &json!(3)), "{end}");
    assert_eq!((&end["stdout"], &end["stderr"], &end["reason"]), (&json!("out\n"), &json!("err\n"), &json!("FailureExitCode")), "{end}");

    // The process knows what asked for it, and the sender what no task has.
    let traced = headers(&[("piecework-wait", "completed"), ("traceparent", trace)]);
    let echo = json!({"commandLine": "/bin/sh -c 'echo $TRACEPARENT'", "retries": 3});
    let told = waiting.ask("work", &echo, waiting.asking("traced").with_headers(traced));
    assert_eq!((told.ignored.as_deref(), &told.json()["stdout"]), (Some("retries"), &json!(format!("{trace}\n"))));

    // A list is one answer when it is accepted, and one for each task at their ends.
    let list = json!({"tasks": [{"id": "a", "commandLine": "/bin/true"}, {"id": "b", "commandLine": "/bin/true"}]});
    let told = client.ask("Work", &list, client.asking("list")).json();
    assert_eq!(told["tasks"].as_array().unwrap().iter().map(|task| &task["id"]).collect::<Vec<_>>(), ["a", "b"]);
    let again = json!({"tasks": [{"id": "c", "commandLine": "/bin/true"}, {"id": "d", "commandLine": "/bin/false"}]});
    waiting.publish("Work", again.to_string().as_bytes(), ends(&waiting, "ends"));
    let ended: HashMap<String, Value> =
        (0..2).map(|_| waiting.next().json()).map(|end| (end["id"].as_str().unwrap().to_owned(), end["exitCode"].clone())).collect();
    assert_eq!(ended, HashMap::from([("c".to_owned(), json!(0)), ("d".to_owned(), json!(1))]));

    // A job of one's own; priority chooses the standing job otherwise; MessagePack is answered in kind.
    rest.add_job("own", "Work");
    assert_eq!(client.ask("Work", &json!({"commandLine": "/bin/true", "job": "own"}), client.asking("own")).json()["jobId"], "own");
    let urgent = client.ask("Work", &json!({"commandLine": "/bin/true"}), client.asking("urgent").with_priority(5)).json();
    assert_eq!(urgent["jobId"], "queue5-Work");
    assert_eq!(rest.get("/jobs/queue5-Work")["priority"], 500);
    let packed = rmp_serde::to_vec_named(&json!({"commandLine": "/bin/true"})).unwrap();
    client.publish("Work", &packed, client.asking("packed").with_content_type("application/msgpack".into()));
    let told = client.next();
    let body: Value = rmp_serde::from_slice(&told.body).unwrap();
    assert_eq!((told.content_type.as_str(), &body["jobId"]), ("application/msgpack", &json!("queue-Work")));

    // Repeated, and in conflict.
    let once = json!({"commandLine": "/bin/true"});
    let keyed = |client: &Client| client.asking("keyed").with_message_id("order-1".into());
    let first = client.ask("Work", &once, keyed(&client)).json();
    assert_eq!(client.ask("Work", &once, keyed(&client)).json(), first);
    let told = client.ask("Work", &json!({"commandLine": "/bin/false"}), keyed(&client));
    assert_eq!((told.kind.as_str(), &told.json()["code"]), ("refused", &json!("OperationInvalidForCurrentState")));

    // Refused as over HTTP.
    let refused = |client: &mut Client, pool: &str, body: Value| client.ask(pool, &body, client.asking("no")).json();
    let missing = refused(&mut client, "Work", json!({"id": "x"}));
    assert_eq!(missing["code"], rest.post("/jobs/own/tasks", &json!({"id": "x"}), 400).json()["code"]);
    assert!(missing["message"]["value"].as_str().unwrap().contains("RequestId:"), "{missing}");
    assert_eq!(refused(&mut client, "nowhere", json!({"commandLine": "x"}))["code"], "PoolNotFound");
    assert_eq!(refused(&mut client, "Work", json!({"commandLine": "x", "job": "none"}))["code"], "JobNotFound");
    rest.add_pool("other", 0, 1);
    assert_eq!(refused(&mut client, "other", json!({"commandLine": "x", "job": "own"}))["code"], "InvalidPropertyValue");
    let both = json!({"tasks": [{"id": "e", "commandLine": "x"}, {"id": "a", "commandLine": "x"}]});
    assert_eq!(refused(&mut client, "Work", both)["code"], "TaskExists");
    assert_eq!(rest.send("GET", "/jobs/queue-Work/tasks/e", None).status, 404, "all or none");

    // Without a queue for the answer a refusal is a dead letter, and a queue of Piecework's own is none.
    let properties = BasicProperties::default()
        .with_message_id("lost".into())
        .with_expiration("60000".into())
        .with_reply_to("piecework.pool.work".into());
    client.publish("nowhere", b"{\"commandLine\":\"x\"}", properties);
    let dead = wait_for(PATIENCE, || Some(client.dead()).filter(|dead| !dead.is_empty())).expect("a dead letter");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].data, b"{\"commandLine\":\"x\"}");
    let properties = &dead[0].properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("lost"));
    assert_eq!(header(properties, "piecework-reason"), "InvalidHeaderValue");
    assert!(header(properties, "piecework-time").ends_with('Z'));
    let Some(AMQPValue::FieldTable(original)) = properties.headers().as_ref().unwrap().inner().get("piecework-original") else {
        panic!("{properties:?}")
    };
    let original = |name: &str| match original.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!((original("exchange").as_str(), original("routing-key").as_str()), (EXCHANGE, "nowhere"));
    assert_eq!((original("expiration").as_str(), original("reply-to").as_str()), ("60000", "piecework.pool.work"));
    drop((client, waiting));
    stack.stop();
}

/// Bytes that are no submission, or nearly one.
fn hostile(random: &mut StdRng) -> Vec<u8> {
    let good = json!({"tasks": [{"id": "x", "commandLine": "/bin/true", "constraints": {"maxTaskRetryCount": 1}}], "job": "nobody"});
    let mut bytes = match random.random_range(0..6) {
        0 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
        1 => good.to_string().into_bytes(),
        2 => rmp_serde::to_vec_named(&good).unwrap(),
        3 => vec![[b'{', b'[', 0x81, 0x91, 0xdd, 0xdf][random.random_range(0..6)]; random.random_range(1..20_000)],
        4 => json!({"commandLine": "x".repeat(random.random_range(131_072..200_000))}).to_string().into_bytes(),
        _ => json!({"commandLine": null, "tasks": [random.random::<i64>(), {"commandLine": {}}], "job": [[]]}).to_string().into_bytes(),
    };
    for _ in 0..random.random_range(0..4) {
        if !bytes.is_empty() {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
    }
    bytes
}

#[test]
fn hostile_messages_are_each_answered_or_kept_and_stop_nothing() {
    let seed: u64 = std::env::var("PIECEWORK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("PIECEWORK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("pool", 1, 1);
    let mut client = Client::new(&stack, "hostile");
    let (mut asked, mut kept) = (0, 0);
    for number in 0..200 {
        let types = ["application/json", "application/msgpack", "text/plain", ""];
        let mut properties = BasicProperties::default().with_content_type(types[random.random_range(0..types.len())].into());
        let mut table = headers(&[("number", &number.to_string())]);
        if random.random_bool(0.2) {
            table.insert("piecework-wait".into(), AMQPValue::LongLongInt(7));
        }
        if random.random_bool(0.2) {
            table.insert("traceparent".into(), AMQPValue::ByteArray(vec![0xff; 300].into()));
        }
        properties = properties.with_headers(table).with_priority(random.random());
        let is_asking = random.random_bool(0.5);
        if is_asking {
            properties = properties.with_reply_to("hostile".into()).with_correlation_id(number.to_string().as_str().into());
            asked += 1;
        } else {
            kept += 1;
        }
        // A pool that there is, none, or no name at all.
        let pool = ["pool", "nowhere", "no name", ""][random.random_range(0..4)];
        client.publish(pool, &hostile(&mut random), properties);
    }
    // Headers as large as the broker takes them.
    for (number, bytes) in (200..204).zip([30_000, 40_000, 60_000, 130_000]) {
        let table = headers(&[("number", &number.to_string()), ("large", &"x".repeat(bytes))]);
        client.publish("pool", b"no task", BasicProperties::default().with_headers(table));
        kept += 1;
    }
    let told: Vec<Received> = (0..asked).map(|_| client.next()).collect();
    for told in &told {
        assert_eq!(told.kind, "refused", "{told:?}");
    }
    let mut dead = Vec::new();
    wait_for(PATIENCE, || {
        dead.extend(client.dead());
        (dead.len() >= kept).then_some(())
    })
    .unwrap_or_else(|| panic!("{} of {kept} are kept", dead.len()));
    let numbers = dead.iter().map(|letter| header(&letter.properties, "number")).chain(told.into_iter().map(|told| told.correlation_id));
    let mut numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..204).collect::<Vec<_>>(), "each once");
    for letter in &dead {
        // The broker itself moves what is too large to be copied, and knows no reason of Piecework's.
        let is_moved = header(&letter.properties, "number").parse::<u32>().unwrap() >= 203;
        assert!(is_moved || !header(&letter.properties, "piecework-reason").is_empty());
    }
    let told = client.ask(
        "pool",
        &json!({"commandLine": "/bin/true"}),
        client.asking("good").with_headers(headers(&[("piecework-wait", "completed")])),
    );
    assert_eq!(told.json()["exitCode"], 0);
    drop(client);
    stack.stop();
}

#[test]
fn answers_and_ids_of_messages_outlive_a_killed_stack() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("later", 0, 1);
    let body = json!({"commandLine": "/bin/sh -c 'echo late'"});
    let asked =
        |client: &Client| client.asking("late").with_message_id("once".into()).with_headers(headers(&[("piecework-wait", "completed")]));
    {
        let client = Client::new(&stack, "late");
        client.publish("later", body.to_string().as_bytes(), asked(&client));
        let is_there = || rest.send("GET", "/jobs/queue-later/tasks", None);
        let tasks = wait_for(PATIENCE, || Some(is_there()).filter(|answer| answer.status == 200 && answer.json()["value"][0].is_object()));
        tasks.expect("a task");
    }
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    let mut client = Client::new(&stack, "late");
    client.publish("later", body.to_string().as_bytes(), asked(&client));
    rest.post("/pools/later/resize", &json!({"targetDedicatedNodes": 1}), 202);
    let ends: Vec<Value> = (0..2).map(|_| client.next().json()).collect();
    assert_eq!(ends[0]["id"], ends[1]["id"], "one task, whoever asked");
    assert_eq!((&ends[0]["exitCode"], &ends[0]["stdout"]), (&json!(0), &json!("late\n")));
    assert_eq!(rest.tasks("queue-later").len(), 1);
    drop(client);
    stack.stop();
}

#[test]
fn those_who_wait_for_a_task_that_never_runs_are_told() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("none", 0, 1);
    let mut client = Client::new(&stack, "never");
    let asked = |client: &Client, id: &str| client.asking(id).with_headers(headers(&[("piecework-wait", "completed")]));
    for id in ["ended", "deleted", "gone"] {
        let body = json!({"id": id, "commandLine": "/bin/true"});
        client.publish("none", body.to_string().as_bytes(), asked(&client, id));
        let path = format!("/jobs/queue-none/tasks/{id}");
        wait_for(PATIENCE, || (rest.send("GET", &path, None).status == 200).then_some(())).expect("a task");
    }
    rest.send("POST", "/jobs/queue-none/tasks/ended/terminate", None);
    let told = client.next();
    assert_eq!((told.correlation_id.as_str(), &told.json()["reason"]), ("ended", &json!("TaskEnded")));
    rest.send("DELETE", "/jobs/queue-none/tasks/deleted", None);
    let told = client.next();
    assert_eq!((told.correlation_id.as_str(), &told.json()["code"]), ("deleted", &json!("TaskNotFound")));
    rest.send("DELETE", "/jobs/queue-none", None);
    let told = client.next();
    assert_eq!((told.correlation_id.as_str(), told.kind.as_str()), ("gone", "refused"));
    // What is submitted while the job goes waits for the next one of its name.
    let told = client.ask("none", &json!({"id": "new", "commandLine": "/bin/true"}), client.asking("new"));
    assert_eq!(told.kind, "accepted", "{told:?}");
    drop(client);
    stack.stop();
}

/// What a message costs, by hand: `PIECEWORK_TASKS=100000 cargo test --release --test it -- --ignored --nocapture tasks_by_message`.
#[test]
#[ignore = "measures"]
fn tasks_by_message_a_second() {
    let count: usize = std::env::var("PIECEWORK_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("many", 0, 1);
    rest.add_job("many", "many");
    let client = Client::new(&stack, "many");
    let body = json!({"tasks": vec![json!({"commandLine": "/bin/true"}); 100], "job": "many"}).to_string();
    let began = std::time::Instant::now();
    client.runtime.block_on(async {
        let sends = (0..count / 100).map(|number| {
            let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
            let properties = properties.with_message_id(number.to_string().as_str().into());
            let (channel, body) = (&client.channel, body.as_bytes());
            async move {
                channel
                    .basic_publish(EXCHANGE.into(), "many".into(), BasicPublishOptions::default(), body, properties)
                    .await
                    .unwrap()
                    .await
                    .unwrap()
            }
        });
        futures::stream::iter(sends).buffer_unordered(64).collect::<Vec<_>>().await;
    });
    let sent = began.elapsed();
    let active = || rest.get("/jobs/many/taskcounts")["taskCounts"]["active"].as_u64().unwrap() as usize;
    wait_for(Duration::from_secs(600), || (active() >= count).then_some(())).expect("all tasks");
    let all = began.elapsed();
    eprintln!("{count} tasks: confirmed after {sent:?}, stored after {all:?}: {:.0} a second", count as f64 / all.as_secs_f64());
    drop(client);
    stack.stop();
}
