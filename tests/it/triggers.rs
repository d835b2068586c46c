//! Triggers end to end: objects and messages come, and each starts what it shall, once.

use std::{collections::BTreeMap, fs, path::PathBuf};

use aws_sdk_s3::{Client, primitives::ByteStream};
use hmac::{Hmac, KeyInit, Mac};
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::runtime::Runtime;

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, text, wait_for},
};

/// Keys that a shell, a URL or a path would read otherwise.
const HOSTILE: [&str; 6] =
    ["in/plain.txt", "in/a b+c%20d.txt", "in/$(touch pwned);`touch pwned`.txt", "in/'quo\"ted'.txt", "in/ü/ß?#&.txt", "in/-rf *.txt"];

struct World {
    stack: Stack,
    rest: Rest,
    runtime: Runtime,
    s3: Client,
}

impl World {
    /// A stack with a bucket and a pool, and a function that writes each event into a file.
    fn new() -> World {
        let stack = Stack::start();
        let (rest, runtime) = (Rest::new(&stack.ready), Runtime::new().unwrap());
        let s3 = stack.ready.s3.client();
        runtime.block_on(s3.create_bucket().bucket("watched").send()).unwrap();
        rest.add_pool("work", 1, 2);
        let world = World { stack, rest, runtime, s3 };
        let command =
            format!("/bin/sh -c 'while read -r event; do printf \"%s\\n\" \"$event\" >> {}; echo 1; done'", world.events_file().display());
        let function = json!({"id": "note", "runtime": "lines", "commandLine": command});
        world.rest.post("/piecework/pools/work/functions", &function, 201);
        world
    }

    fn events_file(&self) -> PathBuf {
        self.stack.scratch().join("events")
    }

    /// The events that the function got.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.events_file()).unwrap_or_default();
        // The last line may be on its way.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often the function got each key.
    fn keys(&self) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for record in self.events().iter().flat_map(|event| event["Records"].as_array().unwrap().clone()) {
            let key = record["s3"]["object"]["key"].as_str().unwrap().replace('+', " ");
            *keys.entry(percent_encoding::percent_decode_str(&key).decode_utf8().unwrap().into_owned()).or_default() += 1;
        }
        keys
    }

    fn put(&self, key: &str, body: &str) {
        let put = self.s3.put_object().bucket("watched").key(key).body(ByteStream::from(body.as_bytes().to_vec()));
        self.runtime.block_on(put.send()).unwrap();
    }

    fn add(&self, trigger: &Value) {
        self.rest.post("/piecework/triggers", trigger, 201);
    }

    fn show(&self, trigger: &str) -> Value {
        self.rest.get(&format!("/piecework/triggers/{trigger}"))
    }

    /// Waits until the trigger shows this.
    fn until(&self, trigger: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let found = wait_for(PATIENCE, || Some(self.show(trigger)).filter(&is_so));
        found.unwrap_or_else(|| panic!("waited in vain until {what}: {}\n{}", self.show(trigger), self.stack.log()))
    }

    /// Waits until the function got so many different keys.
    fn until_keys(&self, count: usize) -> BTreeMap<String, usize> {
        let found = wait_for(PATIENCE, || Some(self.keys()).filter(|keys| keys.len() >= count));
        found.unwrap_or_else(|| panic!("waited in vain for {count} keys: {:?}\n{}", self.keys(), self.stack.log()))
    }

    /// Publishes, and waits for the broker's confirm.
    fn publish(&self, exchange: &str, messages: Vec<(String, Vec<u8>, BasicProperties)>) {
        self.runtime.block_on(async {
            let connection = Connection::connect(&self.stack.ready.broker, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            for (key, body, properties) in messages {
                let sent = channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), &body, properties);
                assert!(sent.await.unwrap().await.unwrap().is_ack());
            }
            connection.close(200, "done".into()).await.unwrap();
        });
    }

    fn declare(&self, exchange: &str) {
        self.runtime.block_on(async {
            let connection = Connection::connect(&self.stack.ready.broker, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
            connection.close(200, "done".into()).await.unwrap();
        });
    }

    fn act(&self, trigger: &str, verb: &str) -> Value {
        let answer = self.rest.send("POST", &format!("/piecework/triggers/{trigger}/{verb}"), None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn depth(&self, queue: &str) -> u64 {
        self.rest.get(&format!("/piecework/queues/{queue}"))["messages"].as_u64().unwrap()
    }
}

/// An S3 event as another store would send it.
fn s3_event(keys: &[&str]) -> Vec<u8> {
    let record = |key: &&str| {
        json!({"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put", "eventTime": "2026-11-23T19:00:00Z",
            "s3": {"bucket": {"name": "watched"}, "object": {"key": key, "size": "3", "eTag": "by-hand"}}})
    };
    json!({"Records": keys.iter().map(record).collect::<Vec<_>>()}).to_string().into_bytes()
}

#[test]
fn objects_start_a_function_once_each_however_often_their_events_come() {
    let mut world = World::new();
    world.add(&json!({
        "id": "Ingest", "bucket": {"name": "watched", "prefix": "in/", "suffix": ".txt", "minBytes": 2, "listingInterval": "PT0S"},
        "function": {"poolId": "work", "id": "note"},
    }));
    for key in HOSTILE {
        world.put(key, "text");
    }
    for (key, body) in [("out/plain.txt", "text"), ("in/plain.md", "text"), ("in/small.txt", "x")] {
        world.put(key, body);
    }
    let expected: BTreeMap<String, usize> = HOSTILE.iter().map(|key| ((*key).to_owned(), 1)).collect();
    assert_eq!(world.until_keys(HOSTILE.len()), expected);
    let record = world.events()[0]["Records"][0].clone();
    assert_eq!((&record["eventSource"], &record["s3"]["object"]["size"]), (&json!("aws:s3"), &json!(4)));

    // Others send the same events, several in one message and again after a restart; a listing finds nothing new.
    let other = ["in/other-1.txt", "in/other-2.txt"];
    let messages = |count| (0..count).map(|_| ("watched".to_owned(), s3_event(&other), BasicProperties::default())).collect();
    world.publish("piecework.blobs", messages(3));
    world.until("ingest", "events came again", |shown| shown["eventsFired"] == 8 && shown["eventsRepeated"] == 4);
    assert!(world.until_keys(8).values().all(|times| *times == 1), "{:?}", world.keys());
    world.stack.kill_and_restart();
    (world.rest, world.s3) = (Rest::new(&world.stack.ready), world.stack.ready.s3.client());
    world.publish("piecework.blobs", messages(1));
    let shown = world.until("ingest", "events came again after a restart", |shown| shown["eventsRepeated"] == 6);
    assert!(shown["lastEventTime"].is_string() && shown["lastLagMilliseconds"].as_i64() >= Some(0), "{shown}");
    world.act("ingest", "run");
    let shown = world.until("ingest", "its bucket was listed", |shown| shown["lastListingTime"].is_string());
    assert_eq!((&shown["eventsFired"], &shown["eventsListed"]), (&json!(8), &json!(0)));

    // What comes during a pause waits, and another content is another event.
    assert_eq!(world.act("ingest", "pause")["state"], "paused");
    world.put("in/plain.txt", "changed");
    let refused = world.rest.send("POST", "/piecework/triggers/ingest/run", None);
    assert!(refused.status == 409 && refused.text().contains("paused"), "{}", refused.text());
    world.act("ingest", "resume");
    world.until("ingest", "the pause is over", |shown| shown["eventsFired"] == 9);
    let queue = world.show("ingest")["queue"].as_str().unwrap().to_owned();
    assert_eq!(world.depth(&queue), 0);
    assert_eq!(world.rest.send("DELETE", "/piecework/triggers/INGEST", None).status, 204);
    assert_eq!(world.rest.send("GET", "/piecework/triggers/ingest", None).status, 404);
    assert_eq!(world.rest.send("GET", &format!("/piecework/queues/{queue}"), None).status, 404);
    world.stack.stop();
}

#[test]
fn a_listing_finds_what_no_event_told_of_without_missing_or_repeating_one() {
    let world = World::new();
    let keys: Vec<String> = (0..1_200).map(|number| format!("in/{number:05}.txt")).collect();
    world.runtime.block_on(async {
        for chunk in keys.chunks(40) {
            let puts =
                chunk.iter().map(|key| world.s3.put_object().bucket("watched").key(key).body(ByteStream::from_static(b"text")).send());
            futures::future::try_join_all(puts).await.unwrap();
        }
    });
    // Events of this bucket never come, as its trigger is bound to another key; those of every second object come by hand.
    world.add(&json!({
        "id": "found", "bucket": {"name": "watched", "prefix": "in/", "pattern": "by-hand", "includeExisting": true, "listingInterval": "PT0S"},
        "function": {"poolId": "work", "id": "note"}, "batchSize": 5, "batchTime": "PT0.1S",
    }));
    let listed: Value = world.runtime.block_on(async {
        let page = world.s3.list_objects_v2().bucket("watched").max_keys(1).send().await.unwrap();
        page.contents()[0].e_tag().unwrap().into()
    });
    let told = keys.iter().step_by(2).map(|key| {
        let event = String::from_utf8(s3_event(&[key])).unwrap().replace("\"by-hand\"", &json!(listed).to_string());
        ("by-hand".to_owned(), event.into_bytes(), BasicProperties::default())
    });
    world.publish("piecework.blobs", told.collect());
    world.until("found", "half of the objects were told of", |shown| shown["eventsFired"] == 600);
    world.act("found", "run");
    let shown = world.until("found", "its bucket was listed", |shown| shown["lastListingTime"].is_string());
    assert_eq!((&shown["eventsFired"], &shown["eventsListed"]), (&json!(1_200), &json!(600)), "{shown}");
    let first = shown["lastListingTime"].clone();
    world.act("found", "run");
    let shown = world.until("found", "its bucket was listed again", |shown| shown["lastListingTime"] != first);
    assert_eq!(shown["eventsFired"], 1_200, "{shown}");
    let got = world.until_keys(1_200);
    assert_eq!((got.len(), got.values().sum::<usize>()), (1_200, 1_200));
    world.stack.stop();
}

#[test]
fn hostile_messages_lose_nothing_and_stop_nothing() {
    let world = World::new();
    world.declare("orders");
    world.add(&json!({
        "id": "orders", "exchange": {"name": "orders", "pattern": "order.#", "values": {"file": "$.data['file name']"}},
        "function": {"poolId": "work", "id": "note"},
    }));
    world.add(&json!({"id": "objects", "bucket": {"name": "watched"}, "function": {"poolId": "work", "id": "note"}}));
    let bodies: Vec<Vec<u8>> = (0..200u32)
        .map(|number| match number % 8 {
            0 => vec![],
            1 => vec![0xff; number as usize],
            2 => b"{\"Records\":".to_vec(),
            3 => vec![b'['; 5_000],
            4 => br#"{"Records":[{"eventName":"ObjectCreated:Put","s3":5}]}"#.to_vec(),
            5 => br#"{"data":{"file name":null}}"#.to_vec(),
            6 => format!("{{\"n\":{number}}}").into_bytes(),
            _ => vec![0; 100_000],
        })
        .collect();
    let messages = |key: &str| bodies.iter().map(|body| (key.to_owned(), body.clone(), BasicProperties::default())).collect();
    world.publish("orders", messages("order.new"));
    world.publish("piecework.blobs", messages("watched"));
    let good = json!({"data": {"file name": "x"}});
    world.publish("orders", vec![("order.new".to_owned(), good.to_string().into_bytes(), BasicProperties::default())]);
    world.put("a.txt", "text");
    world.until("orders", "the good message was acted on", |shown| shown["eventsFired"] == 1 && shown["eventsFailed"] == 200);
    let shown = world.until("objects", "the object was acted on", |shown| shown["eventsFired"] == 1 && shown["eventsFailed"] == 200);
    assert!(shown["lastError"]["message"].is_string(), "{shown}");
    assert_eq!(world.depth("piecework.dead"), 400);
    let dead = world.rest.get("/piecework/queues/piecework.dead/messages?count=1");
    assert_eq!(dead["value"].as_array().unwrap().len(), 1);
    let found = wait_for(PATIENCE, || Some(world.events()).filter(|events| events.len() == 2));
    assert!(found.unwrap_or_else(|| panic!("{:?}", world.events())).contains(&good));
    world.stack.stop();
}

#[test]
fn an_object_becomes_a_task_whose_command_runs_nothing_of_its_name() {
    let world = World::new();
    let command = "/bin/sh -c 'printf \"%s|%s|\" \"$PIECEWORK_EVENT_KEY\" \"$MINE\"; cat in/file; ls'";
    let template = json!({
        "commandLine": command, "displayName": "of {name}",
        "resourceFiles": [{"httpUrl": "{url}", "filePath": "in/file"}], "environmentSettings": [{"name": "MINE", "value": "{size}-{stem}"}],
    });
    fs::write(world.stack.scratch().join("task.json"), template.to_string()).unwrap();
    let run = |words: &[&str]| {
        let output = world.stack.command().arg("trigger").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {:?}", text(&output));
        text(&output).0
    };
    let file = world.stack.scratch().join("task.json");
    let file = file.to_str().unwrap();
    run(&[
        "add",
        "tasks",
        "--bucket",
        "watched",
        "--prefix",
        "in/",
        "--pool",
        "work",
        "--task",
        file,
        "--batch",
        "4",
        "--batch-time",
        "PT0.2S",
    ]);
    for key in HOSTILE {
        world.put(key, "content");
    }
    let tasks = || world.rest.send("GET", "/jobs/queue-work/tasks", None);
    let done = |tasks: &Value| {
        tasks["value"].as_array().is_some_and(|tasks| tasks.iter().filter(|task| task["state"] == "completed").count() == 6)
    };
    let found = wait_for(PATIENCE, || Some(tasks()).filter(|answer| answer.status == 200).map(|answer| answer.json()).filter(done));
    let found = found.unwrap_or_else(|| panic!("tasks did not complete: {}\n{}", tasks().text(), world.stack.log()));
    let mut seen = Vec::new();
    for task in found["value"].as_array().unwrap() {
        let id = task["id"].as_str().unwrap();
        assert_eq!(task["executionInfo"]["exitCode"], 0, "{task}");
        let out = world.rest.send("GET", &format!("/jobs/queue-work/tasks/{id}/files/stdout.txt"), None).text();
        assert!(out.contains("|7-") && out.contains("|content") && !out.contains("\npwned"), "{out}");
        seen.push(out.split('|').next().unwrap().to_owned());
        assert!(task["displayName"].as_str().unwrap().starts_with("of "), "{task}");
    }
    seen.sort();
    let mut expected = HOSTILE.map(str::to_owned);
    expected.sort();
    assert_eq!(seen, expected);
    let listed = run(&["list"]);
    assert!(listed.lines().any(|line| line.starts_with("tasks") && line.contains("watched")), "{listed}");
    for verb in ["pause", "resume", "run", "show", "delete"] {
        run(&[verb, "tasks"]);
    }
    world.stack.stop();
}

#[test]
fn triggers_that_could_not_work_are_refused_with_what_to_do() {
    let world = World::new();
    let function = json!({"poolId": "work", "id": "note"});
    let task = |template: Value| json!({"poolId": "work", "template": template});
    let refused = |trigger: Value, status: u16, code: &str| {
        let answer = world.rest.send("POST", "/piecework/triggers", Some(&trigger));
        assert!(answer.status == status && answer.text().contains(code), "{trigger}: {} {}", answer.status, answer.text());
    };
    let watched = json!({"name": "watched", "prefix": "in/"});
    refused(json!({"id": "t", "function": function}), 400, "bucket");
    refused(json!({"id": "t", "bucket": watched}), 400, "function");
    refused(json!({"id": "t", "bucket": watched, "exchange": {"name": "amq.topic"}, "function": function}), 400, "one source");
    refused(json!({"id": "t", "bucket": watched, "function": function, "task": task(json!({"commandLine": "a"}))}), 400, "one thing");
    refused(json!({"id": "t", "bucket": {"name": "nowhere"}, "function": function}), 400, "bucket does not exist");
    refused(json!({"id": "t", "bucket": {"name": "watched", "exchange": "nowhere"}, "function": function}), 400, "no such exchange");
    refused(json!({"id": "t", "exchange": {"name": "piecework.tasks"}, "function": function}), 400, "piecework.events");
    refused(
        json!({"id": "t", "exchange": {"name": "amq.topic", "values": {"A": "$.a"}}, "function": function}),
        400,
        "no name of a placeholder",
    );
    refused(json!({"id": "t", "exchange": {"name": "amq.topic", "values": {"a": "a"}}, "function": function}), 400, "no path");
    refused(json!({"id": "t", "bucket": watched, "function": {"poolId": "none", "id": "note"}}), 404, "PoolNotFound");
    refused(json!({"id": "t", "bucket": watched, "function": {"poolId": "work", "id": "none"}}), 404, "FunctionNotFound");
    refused(json!({"id": "t", "bucket": watched, "task": task(json!({}))}), 400, "commandLine");
    refused(json!({"id": "t", "bucket": watched, "task": task(json!({"commandLine": "cat {key}"}))}), 400, "PIECEWORK_EVENT_KEY");
    refused(json!({"id": "t", "bucket": watched, "task": task(json!({"commandLine": "a", "id": "x"}))}), 400, "no id");
    let unknown = json!({"commandLine": "a", "displayName": "{nmae}"});
    refused(json!({"id": "t", "bucket": watched, "task": task(unknown)}), 400, "no placeholder {nmae}");
    let writes = |path: &str| {
        let to = json!({"container": {"containerUrl": "s3://watched", "path": path}});
        let file = json!({"filePattern": "out", "destination": to, "uploadOptions": {"uploadCondition": "tasksuccess"}});
        task(json!({"commandLine": "a", "outputFiles": [file]}))
    };
    refused(json!({"id": "t", "bucket": watched, "task": writes("in/{stem}.out")}), 400, "would start itself");
    refused(json!({"id": "t", "bucket": watched, "task": writes("{key}.out")}), 400, "would start itself");
    world.add(&json!({"id": "t", "bucket": watched, "task": writes("out/{stem}")}));
    refused(json!({"id": "T", "bucket": watched, "function": function}), 409, "TriggerExists");
    let changed = world.rest.send("PATCH", "/piecework/triggers/t", Some(&json!({"function": function, "batchSize": 5})));
    assert!(changed.status == 200 && changed.json()["batchSize"] == 5 && changed.json().get("task").is_none(), "{}", changed.text());
    world.stack.stop();
}

#[test]
fn a_webhook_is_taken_with_its_signature_alone() {
    let world = World::new();
    let function = json!({"poolId": "work", "id": "note"});
    let body = json!({"id": "Hook", "webhook": {"values": {"ref": "$.ref"}}, "function": function});
    let added = world.rest.post("/piecework/triggers", &body, 201).json();
    let (secret, url) = (added["webhook"]["secret"].as_str().unwrap(), added["webhook"]["url"].as_str().unwrap());
    assert!(secret.len() > 40 && world.show("hook")["webhook"].get("secret").is_none(), "{added}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |url: &str, name: &'static str, signature: String, body: &str| {
        let request = client.post(url).header(name, signature).header("content-type", "application/json").body(body.to_owned());
        let answer = world.runtime.block_on(async { request.send().await.unwrap() });
        answer.status().as_u16()
    };
    let signed = |secret: &str, text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let body = r#"{"ref":"main"}"#;
    let hub = |secret: &str| format!("sha256={}", signed(secret, body));
    assert_eq!(send(url, "x-hub-signature-256", hub(secret), body), 202);
    assert_eq!(send(url, "x-hub-signature-256", hub(secret), body), 202, "the same again");
    assert_eq!(send(url, "x-hub-signature-256", hub("wrong"), body), 403);
    assert_eq!(send(url, "x-hub-signature-256", hub(secret), r#"{"ref":"evil"}"#), 403);
    assert_eq!(send(&url.replace("Hook", "other"), "x-hub-signature-256", hub(secret), body), 403);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let timed = |time: u64| format!("t={time},v1={}", signed(secret, &format!("{time}.{body}")));
    assert_eq!(send(url, "piecework-signature", timed(now), body), 202);
    assert_eq!(send(url, "piecework-signature", timed(now - 3600), body), 403);
    let unreadable = signed(secret, "[]");
    assert_eq!(send(url, "x-hub-signature-256", format!("sha256={unreadable}"), "[]"), 400);
    let shown = world.until("hook", "two requests were acted on", |shown| shown["eventsFired"] == 2);
    assert_eq!(shown["eventsRepeated"], 1, "{shown}");
    let found = wait_for(PATIENCE, || Some(world.events()).filter(|events| events.len() >= 2));
    assert_eq!(found.unwrap_or_else(|| panic!("{:?}", world.events()))[0], json!({"ref": "main"}));
    world.act("hook", "pause");
    assert_eq!(send(url, "piecework-signature", timed(now + 1), body), 409);
    world.stack.stop();
}

#[test]
fn a_schedule_is_due_on_time_and_on_request() {
    let world = World::new();
    let function = json!({"poolId": "work", "id": "note"});
    world.add(&json!({"id": "minute", "schedule": {"expression": "* * * * *"}, "function": function}));
    let shown = world.show("minute");
    assert!(shown["nextRunTime"].is_string(), "{shown}");
    world.until("minute", "a minute has passed", |shown| shown["eventsFired"].as_u64() >= Some(1));
    world.add(&json!({"id": "never", "schedule": {"expression": "0 0 29 2 *", "timeZone": "America/New_York"}, "function": function}));
    world.act("never", "run");
    world.until("never", "it ran", |shown| shown["eventsFired"] == 1);
    let found = wait_for(PATIENCE, || world.events().into_iter().find(|event| event["source"] == "/piecework/triggers/never"));
    assert_eq!(found.unwrap_or_else(|| panic!("{:?}", world.events()))["type"], "piecework.schedule.due");
    let wrong = json!({"id": "wrong", "schedule": {"expression": "0 0 30 2 *"}, "function": function});
    let refused = world.rest.send("POST", "/piecework/triggers", Some(&wrong));
    assert!(refused.status == 400 && refused.text().contains("never due"), "{}", refused.text());
    world.stack.stop();
}

#[test]
fn an_object_that_is_written_over_and_over_pauses_its_trigger() {
    let world = World::new();
    world.add(&json!({"id": "loop", "bucket": {"name": "watched"}, "function": {"poolId": "work", "id": "note"}}));
    let record = |number: u32| {
        json!({"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "watched"}, "object": {"key": "same.txt", "eTag": number.to_string()}}})
    };
    let event = json!({"Records": (0..40).map(record).collect::<Vec<_>>()});
    world.publish("piecework.blobs", vec![("watched".to_owned(), event.to_string().into_bytes(), BasicProperties::default())]);
    let shown = world.until("loop", "it is paused", |shown| shown["state"] == "paused");
    assert!(shown["lastError"]["message"].as_str().unwrap().contains("same.txt was written"), "{shown}");
    assert_eq!(shown["eventsFired"], 40, "what came before the pause is acted on: {shown}");
    world.act("loop", "resume");
    world.put("other.txt", "text");
    world.until("loop", "it goes on", |shown| shown["eventsFired"] == 41 && shown["state"] == "active");
    world.stack.stop();
}
