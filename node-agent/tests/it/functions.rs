//! Functions: each runtime, warm hosts, new versions, failures, retries and dead letters.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use broker_config::topology;
use clients::amqp::{Consumer, Delivery, Outgoing, Subscription};
use contract::{
    body::Format,
    function::{Function, FunctionSpec, PoolFunctions, Runtime, header},
    ids::FunctionId,
    message::NodeOrder,
    period::Period,
    state::DeallocationOption,
};
use node_agent::Ending;
use tokio::time::timeout;

use crate::harness::{Harness, pool};

/// Fails a test that waits forever; nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn function(name: &str, version: u32, runtime: Runtime, command_line: &str) -> Function {
    let spec = FunctionSpec {
        runtime,
        handler: None,
        command_line: Some(command_line.to_owned()),
        package: None,
        memory_mib: None,
        timeout: Period::from_secs(60),
        concurrency_per_node: None,
        environment_settings: vec![],
        warm_instances: 0,
        max_retry_count: 0,
        idle_time: Period::from_secs(600),
    };
    let name: FunctionId = name.parse().unwrap();
    let uid = u64::from(version) * 1_000 + name.as_str().bytes().map(u64::from).sum::<u64>();
    Function { name, version, uid, spec }
}

impl Harness {
    /// Deploys these functions, in place of those before.
    fn deploy(&self, functions: Vec<Function>) {
        self.change_script(|script| script.functions = PoolFunctions { number: script.functions.number + 1, functions });
    }

    /// A script in the test's folder, as a command line.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    async fn invoke(&self, name: &str, event: &str) -> Delivery {
        let caller = self.link.caller().await.unwrap();
        let outgoing = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), event.into(), Format::Json).of_kind(name);
        caller.call_raw(outgoing, PATIENCE).await.unwrap()
    }

    async fn dead(&self) -> Consumer {
        self.link.subscribe(Subscription::plain(topology::DEAD_QUEUE, 10)).await.unwrap()
    }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(PATIENCE, consumer.next()).await.expect("a message comes").unwrap();
    consumer.acker().ack(delivery.tag);
    delivery
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

fn header_of(delivery: &Delivery, name: &str) -> String {
    delivery.header_as_text(name).unwrap_or_else(|| panic!("{name} is missing in {:?}", delivery.headers))
}

#[tokio::test]
async fn a_program_that_reads_lines_stays_warm_and_a_new_version_takes_new_invocations() {
    let mut harness = Harness::with_agent(2).await;
    let program = harness.script("lines", r#"while read -r event; do echo "{\"event\":$event,\"pid\":$$}"; done"#);
    harness.deploy(vec![function("Echo", 1, Runtime::Lines, &program)]);
    let first = harness.invoke("echo", "{\n\"a\": [1, 2]\n}").await;
    assert!(text(&first).starts_with(r#"{"event":{"a":[1,2]},"pid":"#), "{}", text(&first));
    assert_eq!((header_of(&first, header::STATUS), header_of(&first, header::VERSION)), ("ok".to_owned(), "1".to_owned()));
    header_of(&first, header::DURATION).parse::<u64>().unwrap();
    let second = harness.invoke("echo", r#"{"a":[1,2]}"#).await;
    assert_eq!(text(&first), text(&second), "the same process answers");
    let newer = harness.script("newer", r#"while read -r event; do echo '"newer"'; done"#);
    harness.deploy(vec![function("Echo", 2, Runtime::Lines, &newer)]);
    let newer = async {
        loop {
            let answer = harness.invoke("echo", "1").await;
            if header_of(&answer, header::VERSION) == "2" {
                return answer;
            }
        }
    };
    assert_eq!(text(&timeout(PATIENCE, newer).await.unwrap()), "\"newer\"");
    harness.end_agent(Ending::Drain).await.unwrap();
    assert!(harness.queue_is_empty().await);
    harness.stop().await;
}

#[tokio::test]
async fn a_process_for_each_event_answers_by_its_output_and_fails_by_its_exit_code() {
    let harness = Harness::with_agent(2).await;
    let mut dead = harness.dead().await;
    let good = harness.script("good", "echo \"$AWS_LAMBDA_FUNCTION_NAME $AWS_LAMBDA_FUNCTION_VERSION\"; cat");
    let bad = harness.script("bad", "echo 'it is broken' >&2; exit 3");
    harness.deploy(vec![function("good", 7, Runtime::Exec, &good), function("bad", 1, Runtime::Exec, &bad)]);
    assert_eq!(text(&harness.invoke("good", "raw \u{e9}vent").await), "good 7\nraw \u{e9}vent");
    let failed = harness.invoke("bad", "x").await;
    assert_eq!((header_of(&failed, header::STATUS), header_of(&failed, header::ERROR)), ("error".to_owned(), "FunctionCrashed".to_owned()));
    assert!(text(&failed).contains("exit code 3") && text(&failed).contains("it is broken"), "{}", text(&failed));
    let letter = next(&mut dead).await;
    assert_eq!((text(&letter), letter.kind.as_deref()), ("x", Some("bad")));
    assert!(header_of(&letter, header::MESSAGE).contains("exit code 3"));
    assert_eq!((header_of(&letter, header::FAILED), header_of(&letter, header::POOL)), ("1".to_owned(), "pool".to_owned()));
    harness.stop().await;
}

#[tokio::test]
async fn a_failed_invocation_is_tried_again_later_and_then_is_a_dead_letter_with_its_own_properties() {
    let harness = Harness::with_agent(1).await;
    let mut dead = harness.dead().await;
    let tries = harness.folder.path().join("tries");
    let crash = harness.script("crash", &format!("read -r event; echo try >> {}; kill -9 $$", tries.display()));
    let echo = harness.script("echo", r#"while read -r event; do echo "$event"; done"#);
    let mut flaky = function("flaky", 1, Runtime::Lines, &crash);
    flaky.spec.max_retry_count = 1;
    harness.deploy(vec![flaky, function("echo", 1, Runtime::Lines, &echo)]);
    let mut outgoing =
        Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), b"[1]".to_vec(), Format::Json).of_kind("flaky").id("my id");
    outgoing = outgoing.header("mine", "kept");
    harness.link.publisher().publish(outgoing).await.unwrap();
    // The only slot is free for others while the invocation waits for its next try.
    assert_eq!(text(&harness.invoke("echo", "2").await), "2");
    let letter = next(&mut dead).await;
    assert_eq!((text(&letter), letter.message_id.as_deref(), letter.content_type()), ("[1]", Some("my id"), Some("application/json")));
    assert_eq!((header_of(&letter, "mine"), header_of(&letter, header::REASON)), ("kept".to_owned(), "FunctionCrashed".to_owned()));
    assert!(header_of(&letter, header::MESSAGE).contains("signal 9"));
    assert_eq!((header_of(&letter, header::FAILED), fs::read_to_string(tries).unwrap().lines().count()), ("2".to_owned(), 2));
    harness.stop().await;
}

#[tokio::test]
async fn a_program_that_misses_its_deadline_is_ended_with_its_children() {
    let harness = Harness::with_agent(1).await;
    let pids = harness.folder.path().join("pids");
    let slow = harness.script("slow", &format!("sleep 1000 & echo $$ $! > {}; wait", pids.display()));
    let mut slow = function("slow", 1, Runtime::Exec, &slow);
    slow.spec.timeout = Period::from_secs(1);
    harness.deploy(vec![slow]);
    // On a slow machine the deadline may be over before the program has written anything.
    let pids: Vec<String> = loop {
        let failed = harness.invoke("slow", "x").await;
        assert_eq!(header_of(&failed, header::ERROR), "FunctionTimedOut");
        let text = fs::read_to_string(&pids).unwrap_or_default();
        if text.split_whitespace().count() >= 2 {
            break text.split_whitespace().map(str::to_owned).collect();
        }
    };
    let has_ended = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    };
    let ended = async {
        while !pids.iter().all(has_ended) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("both processes end");
    harness.stop().await;
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_and_is_not_started_again_at_once() {
    let harness = Harness::with_agent(1).await;
    let starts = harness.folder.path().join("starts");
    let broken = harness.script("broken", &format!("echo start >> {}; echo 'no such module' >&2; exit 1", starts.display()));
    let mut missing = function("missing", 1, Runtime::Exec, "/no/such/program");
    missing.spec.max_retry_count = 0;
    harness.deploy(vec![function("broken", 1, Runtime::Http, &broken), missing]);
    let (first, second) = (harness.invoke("broken", "{}").await, harness.invoke("broken", "{}").await);
    for failed in [&first, &second] {
        assert_eq!(header_of(failed, header::ERROR), "FunctionInitFailed");
        assert!(text(failed).contains("no such module") && text(failed).contains("exit code 1"), "{}", text(failed));
    }
    assert!(fs::read_to_string(starts).unwrap().lines().count() <= 2);
    let failed = harness.invoke("missing", "{}").await;
    assert!(header_of(&failed, header::MESSAGE).contains("/no/such/program"), "{}", text(&failed));
    harness.stop().await;
}

#[tokio::test]
async fn what_no_function_takes_is_refused_and_holds_nobody_up() {
    let harness = Harness::with_agent(1).await;
    let mut dead = harness.dead().await;
    let refused = harness.invoke("nobody", "1").await;
    assert_eq!(header_of(&refused, header::ERROR), "FunctionNotFound");
    assert_eq!(header_of(&next(&mut dead).await, header::REASON), "FunctionNotFound");
    let refused = harness.invoke("not/a/name", "1").await;
    assert_eq!(header_of(&refused, header::ERROR), "FunctionNameInvalid");
    next(&mut dead).await;
    let echo = harness.script("echo", r#"while read -r event; do echo "$event"; done"#);
    harness.deploy(vec![function("echo", 1, Runtime::Lines, &echo)]);
    // Known by no heartbeat yet, so the agent asks.
    assert_eq!(text(&harness.invoke("echo", "2").await), "2");
    let refused = harness.invoke("echo", "no JSON").await;
    assert_eq!(header_of(&refused, header::ERROR), "FunctionEventInvalid");
    next(&mut dead).await;
    // An answer never goes to one of Piecework's own queues.
    let mut forged = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), b"{}".to_vec(), Format::Json).of_kind("echo");
    forged.reply_to = Some(topology::SCALE_QUEUE.to_owned());
    harness.link.publisher().publish(forged).await.unwrap();
    assert_eq!(text(&harness.invoke("echo", "3").await), "3", "the only slot has done the forged one before");
    assert_eq!(harness.link.depth(topology::SCALE_QUEUE).await.unwrap().unwrap().ready, 0);
    harness.stop().await;
}

#[tokio::test]
async fn a_drain_waits_for_running_invocations_and_heartbeats_count_them() {
    let mut harness = Harness::with_agent(2).await;
    let gate = harness.folder.path().join("gate");
    let waits = harness.script("waits", &format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", gate.display()));
    harness.deploy(vec![function("waits", 1, Runtime::Exec, &waits)]);
    let caller = harness.link.caller().await.unwrap();
    let outgoing = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), vec![], Format::Json).of_kind("waits");
    let answer = tokio::spawn(async move { caller.call_raw(outgoing, PATIENCE).await.unwrap() });
    harness.heartbeat(|heartbeat| heartbeat.invocations == 1 && heartbeat.free_slots == 1).await;
    harness.change_script(|script| script.order = NodeOrder::Drain { option: DeallocationOption::Terminate });
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming && heartbeat.invocations == 1).await;
    fs::write(gate, "").unwrap();
    assert_eq!(text(&answer.await.unwrap()), "done\n");
    while !harness.report().await.is_drained {}
    harness.stop().await;
}

#[tokio::test]
async fn a_large_answer_is_a_blob() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    harness.start_agent();
    harness.report().await;
    let large = harness.script("large", "head -c 1000000 /dev/zero");
    harness.deploy(vec![function("large", 1, Runtime::Exec, &large)]);
    let answer = harness.invoke("large", "").await;
    assert_eq!((answer.body.len(), header_of(&answer, header::BLOB_BYTES)), (0, "1000000".to_owned()));
    let blobs = harness.blobs.as_ref().unwrap();
    let own = &blobs.settings().own_bucket;
    let listing = blobs.list(own, "transfer/answers/", None, 10).await.unwrap();
    assert_eq!(listing.blobs.len(), 1);
    assert!(header_of(&answer, header::BLOB_URL).contains(&listing.blobs[0].key));
    harness.stop().await;
}

/// A python with `awslambdaric`; tests that need it are skipped without.
fn lambda_python() -> Option<String> {
    let found: Option<OsString> = std::env::var_os("PIECEWORK_TEST_LAMBDA_PYTHON");
    assert!(
        found.is_some() || std::env::var_os("PIECEWORK_CI").is_none(),
        "PIECEWORK_TEST_LAMBDA_PYTHON names no python with awslambdaric"
    );
    if found.is_none() {
        eprintln!("skipped: PIECEWORK_TEST_LAMBDA_PYTHON names no python with awslambdaric");
    }
    found.and_then(|found| found.into_string().ok())
}

#[tokio::test]
async fn handlers_for_aws_lambda_run_unchanged() {
    let Some(python) = lambda_python() else { return };
    let harness = Harness::with_agent(2).await;
    let handler = "import os\n\nCOUNT = 0\n\ndef handler(event, context):\n    global COUNT\n    COUNT += 1\n    if event == 'fail':\n        \
                   raise ValueError('as asked')\n    if event == 'die':\n        os._exit(9)\n    return {'event': event, 'count': COUNT, \
                   'function': context.function_name, 'memory': context.memory_limit_in_mb, \
                   'left': context.get_remaining_time_in_millis() > 0}\n";
    let modules: PathBuf = harness.folder.path().join("modules");
    fs::create_dir(&modules).unwrap();
    fs::write(modules.join("app.py"), handler).unwrap();
    fs::write(modules.join("broken.py"), "import nothing_of_this_name\n").unwrap();
    let lambda = |name: &str, handler: &str| {
        let mut function = function(name, 3, Runtime::Lambda, &format!("{python} -m awslambdaric $_HANDLER"));
        function.spec.handler = Some(handler.to_owned());
        function.spec.memory_mib = Some(512);
        function.spec.environment_settings =
            vec![contract::spec::EnvironmentSetting { name: "PYTHONPATH".into(), value: Some(modules.display().to_string()) }];
        function
    };
    harness.deploy(vec![lambda("app", "app.handler"), lambda("broken", "broken.handler")]);
    let answer: serde_json::Value = serde_json::from_slice(&harness.invoke("app", r#"{"a":1}"#).await.body).unwrap();
    assert_eq!(answer, serde_json::json!({"event": {"a": 1}, "count": 1, "function": "app", "memory": "512", "left": true}));
    let failed = harness.invoke("app", "\"fail\"").await;
    assert_eq!(header_of(&failed, header::ERROR), "FunctionError");
    let error: serde_json::Value = serde_json::from_slice(&failed.body).unwrap();
    assert_eq!((&error["errorType"], &error["errorMessage"]), (&"ValueError".into(), &"as asked".into()));
    let again: serde_json::Value = serde_json::from_slice(&harness.invoke("app", "2").await.body).unwrap();
    assert_eq!(again["count"], 3, "the program goes on after an error of its handler");
    let died = harness.invoke("app", "\"die\"").await;
    assert_eq!(header_of(&died, header::ERROR), "FunctionCrashed");
    assert!(header_of(&died, header::MESSAGE).contains("exit code 9"));
    let anew: serde_json::Value = serde_json::from_slice(&harness.invoke("app", "3").await.body).unwrap();
    assert_eq!(anew["count"], 1);
    let broken = harness.invoke("broken", "1").await;
    assert_eq!(header_of(&broken, header::ERROR), "FunctionInitFailed");
    assert!(text(&broken).contains("nothing_of_this_name"), "{}", text(&broken));
    harness.stop().await;
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

#[tokio::test]
async fn a_program_that_takes_too_much_memory_is_ended_and_others_go_on() {
    let harness = Harness::with_agent(1).await;
    let hungry = harness.script("hungry", "read -r event; held=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 300; echo \"$held\"");
    let echo = harness.script("echo", r#"while read -r event; do echo "$event"; done"#);
    let mut limited = function("hungry", 1, Runtime::Lines, &hungry);
    limited.spec.memory_mib = Some(32);
    harness.deploy(vec![limited, function("echo", 1, Runtime::Lines, &echo)]);
    let failed = harness.invoke("hungry", "1").await;
    assert_eq!(header_of(&failed, header::ERROR), "FunctionOutOfMemory");
    assert!(header_of(&failed, header::MESSAGE).contains("more than its 32 MiB"), "{}", header_of(&failed, header::MESSAGE));
    assert_eq!(text(&harness.invoke("echo", "2").await), "2");
    harness.stop().await;
}

#[tokio::test]
async fn a_warm_minimum_is_started_before_any_invocation_and_an_idle_program_ends() {
    let harness = Harness::with_agent(2).await;
    let pids = harness.folder.path().join("warm");
    let warm = harness.script("warm", &format!("echo $$ > {0}.new; mv {0}.new {0}; while read -r event; do echo $$; done", pids.display()));
    let idle = harness.script("idle", "while read -r event; do echo $$; done");
    let mut kept = function("warm", 1, Runtime::Lines, &warm);
    kept.spec.warm_instances = 1;
    let mut brief = function("idle", 1, Runtime::Lines, &idle);
    brief.spec.idle_time = Period::from_secs(1);
    harness.deploy(vec![kept, brief]);
    until("the warm program has started", || pids.exists()).await;
    assert_eq!(text(&harness.invoke("warm", "1").await), fs::read_to_string(&pids).unwrap().trim(), "it answers");
    let first = text(&harness.invoke("idle", "1").await).to_owned();
    until("the idle program has ended", || !PathBuf::from(format!("/proc/{first}")).exists()).await;
    assert_ne!(text(&harness.invoke("idle", "2").await), first);
    harness.stop().await;
}

#[tokio::test]
async fn headers_as_large_as_brokers_let_through_are_taken_and_passed_on_as_far_as_they_fit() {
    let harness = Harness::with_agent(1).await;
    let mut dead = harness.dead().await;
    let echo = harness.script("echo", "cat");
    let bad = harness.script("bad", "exit 3");
    let mut again = function("again", 1, Runtime::Exec, &bad);
    again.spec.max_retry_count = 1;
    harness.deploy(vec![function("echo", 1, Runtime::Exec, &echo), again]);
    let event = |name: &str, bytes: usize| {
        let outgoing = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), b"1".to_vec(), Format::Json).of_kind(name).id(name);
        outgoing.header("large", &"x".repeat(bytes))
    };
    for bytes in [60_000, 130_000] {
        let answer = harness.link.caller().await.unwrap().call_raw(event("echo", bytes), PATIENCE).await.unwrap();
        assert_eq!(text(&answer), "1");
        harness.link.publisher().publish(event("again", bytes)).await.unwrap();
        let letter = next(&mut dead).await;
        assert_eq!((letter.kind.as_deref(), letter.message_id.as_deref(), text(&letter)), (Some("again"), Some("again"), "1"));
        assert_eq!(header_of(&letter, header::REASON), "FunctionCrashed");
        // What does not fit into one frame with the reason is left out, and is not tried again.
        let is_whole = bytes < 100_000;
        assert_eq!(letter.has_header("large"), is_whole);
        assert_eq!(header_of(&letter, header::FAILED), if is_whole { "2" } else { "1" });
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_program_that_listens_gets_cloud_events() {
    let Some(python) = lambda_python() else { return };
    let harness = Harness::with_agent(1).await;
    let server = harness.folder.path().join("server.py");
    let source = "import os\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n\nclass Handler(BaseHTTPRequestHandler):\n    \
                  def do_POST(self):\n        body = self.rfile.read(int(self.headers['content-length']))\n        \
                  self.send_response(500 if body == b'fail' else 200)\n        self.end_headers()\n        \
                  self.wfile.write(body + b' ' + self.headers['ce-type'].encode() + b' ' + self.headers['ce-id'].encode())\n\n    \
                  def log_message(self, *words):\n        pass\n\nHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n";
    fs::write(&server, source).unwrap();
    harness.deploy(vec![function("web", 1, Runtime::Http, &format!("{python} {}", server.display()))]);
    let caller = harness.link.caller().await.unwrap();
    let outgoing = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool()), b"hello".to_vec(), Format::Json).of_kind("web").id("id-1");
    assert_eq!(text(&caller.call_raw(outgoing, PATIENCE).await.unwrap()), "hello piecework.invocation id-1");
    let failed = harness.invoke("web", "fail").await;
    assert_eq!(header_of(&failed, header::ERROR), "FunctionError");
    assert!(header_of(&failed, header::MESSAGE).contains("500"));
    harness.stop().await;
}
