//! The page of metrics, scraped as Prometheus does and read strictly.

mod page;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::json;

use self::page::Page;
use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

/// A request without any key; the status and the body.
fn ask(address: &str, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("a listener");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(socket, "{request} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if status == 200 {
        assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    }
    (status, body.to_owned())
}

fn scrape(address: &str) -> Page {
    let (status, text) = ask(address, "GET /metrics");
    assert_eq!(status, 200, "{text}");
    Page::read(&text)
}

fn address(stack: &Stack) -> String {
    stack.ready.url.strip_prefix("http://").expect("plain HTTP").trim_end_matches('/').to_owned()
}

/// Three tasks that succeed and one that fails, until all have ended.
fn run_job(rest: &Rest, job: &str) {
    rest.add_job(job, "measured");
    let task = |id: &str, command: &str| json!({"id": id, "commandLine": command});
    rest.add_tasks(job, &[task("a", "/bin/true"), task("b", "/bin/true"), task("c", "/bin/true"), task("d", "/bin/false")]);
    for task in ["a", "b", "c", "d"] {
        rest.finished(job, task);
    }
}

#[test]
fn metrics_say_what_is_done_and_what_is_there_and_grow_with_no_job() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("measured", 1, 2);
    run_job(&rest, "first-job");

    // A scrape is on the page after it.
    scrape(&address(&stack));
    let page = scrape(&address(&stack));
    let pool = ("pool", "measured");
    assert_eq!(page.value("piecework_tasks_completed_total", &[pool, ("result", "success")]), Some(3.0));
    assert_eq!(page.value("piecework_tasks_completed_total", &[pool, ("result", "failure")]), Some(1.0));
    assert_eq!(page.value("piecework_task_attempts_ended_total", &[("reason", "success")]), Some(3.0));
    assert_eq!(page.value("piecework_task_attempts_ended_total", &[("reason", "exit_code")]), Some(1.0));
    assert_eq!(page.value("piecework_task_queue_seconds_count", &[pool]), Some(4.0));
    assert_eq!(page.value("piecework_task_run_seconds_count", &[pool]), Some(4.0));
    for (state, count) in [("active", 0.0), ("preparing", 0.0), ("running", 0.0), ("completed", 4.0)] {
        assert_eq!(page.value("piecework_tasks", &[pool, ("state", state)]), Some(count), "{state}");
    }
    assert_eq!(page.sum("piecework_nodes", &[pool]), 1.0);
    assert_eq!(page.value("piecework_task_slots", &[pool]), Some(2.0));
    assert_eq!(page.value("piecework_http_requests_total", &[("operation", "job.add"), ("status", "2xx")]), Some(1.0));
    for role in ["publishing", "consuming"] {
        assert_eq!(page.value("piecework_broker_connected", &[("part", "dispatcher"), ("role", role)]), Some(1.0), "{role}");
    }
    assert!(page.value("piecework_broker_messages_published_total", &[("result", "confirmed")]).is_some_and(|count| count >= 4.0));
    assert!(page.sum("piecework_blob_requests_total", &[]) > 0.0);
    assert!(page.value("piecework_engine_batch_seconds_count", &[]) == page.value("piecework_engine_batches_total", &[]));
    for name in ["piecework_store_bytes", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(page.sum(name, &[]) > 0.0, "{name}");
    }

    // While a task runs it counts as running.
    let gate = stack.scratch().join("gate");
    rest.add_job("long-job", "measured");
    let waits = format!("/bin/sh -c 'while [ ! -e {} ]; do sleep 0.05; done'", gate.display());
    rest.add_tasks("long-job", &[json!({"id": "waits", "commandLine": waits})]);
    let running = wait_for(PATIENCE, || {
        let page = scrape(&address(&stack));
        (page.value("piecework_tasks", &[pool, ("state", "running")]) == Some(1.0)).then_some(page)
    });
    let running = running.expect("a running task on the page");
    assert_eq!(running.value("piecework_task_slots_used", &[pool]), Some(1.0));
    fs::write(gate, "").expect("a gate");
    rest.finished("long-job", "waits");

    for job in ["second-job", "third-job"] {
        run_job(&rest, job);
    }
    let later = scrape(&address(&stack));
    assert_eq!(later.value("piecework_tasks_completed_total", &[pool, ("result", "success")]), Some(10.0));
    // Blobs are also asked for by the clock.
    let is_steady = |series: &&String| !series.starts_with("piecework_blob_");
    let new: Vec<&String> = later.series().filter(is_steady).filter(|series| !page.series().any(|known| known == *series)).collect();
    assert_eq!(new, Vec::<&String>::new(), "series grow with jobs");
    for word in ["first-job", "second-job", "tvm", "/bin/"] {
        assert!(!later.text.contains(word), "{word} is on the page:\n{}", later.text);
    }
    let password =
        stack.ready.broker.split_once("://").and_then(|(_, rest)| rest.split_once('@')).and_then(|(user, _)| user.split_once(':'));
    let (_, password) = password.expect("a password in the broker's URL");
    for secret in [&stack.ready.key, &stack.ready.s3.secret_key, &stack.ready.s3.access_key, password] {
        assert!(!later.text.contains(secret), "a secret is on the page:\n{}", later.text);
    }

    // Gauges come from what is stored; counters begin again.
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    let again = scrape(&address(&stack));
    assert_eq!(again.value("piecework_tasks", &[pool, ("state", "completed")]), Some(13.0));
    assert_eq!(again.value("piecework_jobs", &[]), Some(4.0));
    assert_eq!(again.sum("piecework_tasks_completed_total", &[]), 0.0);
    assert_eq!(rest.send("DELETE", "/pools/measured", None).status, 202);
    let left = wait_for(PATIENCE, || (!scrape(&address(&stack)).text.contains("measured")).then_some(()));
    assert!(left.is_some(), "a pool's series leave with it:\n{}", scrape(&address(&stack)).text);
    stack.stop();
}

/// The address in the log line that names it.
fn logged_address(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("metrics are served"))?;
    let port: String = line.split_once("127.0.0.1:")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.kill().expect("a child to kill");
        self.0.wait().expect("its end");
    }
}

#[test]
fn metrics_may_have_an_address_of_their_own_and_parts_that_run_alone_have_theirs() {
    let stack = Stack::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let own = logged_address(&stack.log()).expect("an address in the log");
    assert_eq!(scrape(&own).value("piecework_pools", &[]), Some(0.0));
    assert_eq!(ask(&own, "GET /pools").0, 404);
    assert_eq!(ask(&own, "POST /metrics").0, 405);
    let (status, text) = ask(&address(&stack), "GET /metrics");
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("--metrics-listen"), "{text}");

    let log = stack.scratch().join("autoscaler.log");
    let mut command = stack.command();
    command.args(["autoscaler", "--script", "/bin/true", "--metrics-listen", "127.0.0.1:0", "--broker", &stack.ready.broker]);
    command.env("PIECEWORK_LOG", "info").stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a log"));
    let alone = KilledOnDrop(command.spawn().expect("the binary to start"));
    let theirs = wait_for(Duration::from_secs(30), || logged_address(&fs::read_to_string(&log).expect("a log")));
    let theirs = theirs.unwrap_or_else(|| panic!("no address: {}", fs::read_to_string(&log).unwrap_or_default()));
    let connected = [("part", "autoscaler"), ("role", "publishing")];
    let stands = wait_for(PATIENCE, || (scrape(&theirs).value("piecework_broker_connected", &connected) == Some(1.0)).then_some(()));
    assert!(stands.is_some(), "{}", scrape(&theirs).text);
    let page = scrape(&theirs);
    assert!(page.value("process_start_time_seconds", &[]).is_some());
    assert_eq!(page.value("piecework_pools", &[]), None, "pools are the dispatcher's");
    drop(alone);
    stack.stop();
}
