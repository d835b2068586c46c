//! Requests that the API must refuse: a table with the status and code of each.
//!
//! `check` runs it against a running API and asserts that nothing has changed afterwards.

mod jobs;
mod pools;
mod requests;
mod scaling;
mod schedules;
mod tasks;
mod values;

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::signing::{Account, Got, Wire};

const V: &str = "api-version=2024-02-01.19.0";
const MIB: usize = 1024 * 1024;
/// The table may not shrink below this.
const CASES_MIN: usize = 500;

/// How a request is signed.
#[derive(Debug, Clone)]
enum Signed {
    Well,
    Not,
    As(&'static str),
    WithOtherKey,
    ForOtherAccount,
    ForOtherPath,
    WithOtherHeader,
    Minutes(i64),
    Dated(&'static str),
}

/// A request that must be refused.
struct Case {
    name: String,
    wire: Wire,
    signed: Signed,
    status: u16,
    code: &'static str,
}

/// Cases under construction.
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, name: impl Into<String>, wire: Wire, status: u16, code: &'static str) {
        self.0.push(Case { name: name.into(), wire, signed: Signed::Well, status, code });
    }

    fn signed(&mut self, name: &str, signed: Signed, status: u16, code: &'static str) {
        let wire = Wire::new("GET", &format!("/jobs?{V}"), "");
        self.0.push(Case { name: name.to_owned(), wire, signed, status, code });
    }

    fn get(&mut self, target: &str, status: u16, code: &'static str) {
        self.add(format!("GET {target}"), Wire::new("GET", &versioned(target), ""), status, code);
    }

    fn send(&mut self, method: &str, target: &str, body: &Value, status: u16, code: &'static str) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let shown: String = text.chars().take(120).collect();
        let wire = Wire::new(method, &versioned(target), text).with("content-type", "application/json; odata=minimalmetadata");
        self.add(format!("{method} {target} {shown}"), wire, status, code);
    }

    fn post(&mut self, target: &str, body: Value, status: u16, code: &'static str) {
        self.send("POST", target, &body, status, code);
    }
}

fn versioned(target: &str) -> String {
    match target.split_once('?') {
        _ if target.starts_with("/piecework/") => target.to_owned(),
        Some((path, query)) => format!("{path}?{query}&{V}"),
        None => format!("{target}?{V}"),
    }
}

/// An object with some fields replaced; null removes one.
fn with(mut body: Value, changes: &[(&str, Value)]) -> Value {
    let fields = body.as_object_mut().expect("an object");
    for (name, value) in changes {
        if value.is_null() { drop(fields.remove(*name)) } else { drop(fields.insert((*name).to_owned(), value.clone())) }
    }
    body
}

fn pool(changes: &[(&str, Value)]) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    with(json!({"id": "never-pool", "vmSize": "small", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine}), changes)
}

fn job(changes: &[(&str, Value)]) -> Value {
    with(json!({"id": "never-job", "poolInfo": {"poolId": "bad-pool"}}), changes)
}

fn task(changes: &[(&str, Value)]) -> Value {
    with(json!({"id": "never-task", "commandLine": "/bin/true"}), changes)
}

fn resource(file: Value) -> Value {
    task(&[("resourceFiles", json!([file]))])
}

fn output(changes: &[(&str, Value)]) -> Value {
    let file = json!({
        "filePattern": "*", "destination": {"container": {"containerUrl": "s3://box/p"}}, "uploadOptions": {"uploadCondition": "tasksuccess"},
    });
    task(&[("outputFiles", json!([with(file, changes)]))])
}

/// One row for each case, some of them for every value or name that could go wrong in the same way.
fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    requests::credentials(&mut table);
    requests::protocol(&mut table);
    requests::queries(&mut table);
    requests::bodies(&mut table);
    pools::pools(&mut table);
    pools::ours(&mut table);
    jobs::jobs(&mut table);
    tasks::tasks(&mut table);
    tasks::files(&mut table);
    schedules::schedules(&mut table);
    scaling::scaling(&mut table);
    scaling::nodes(&mut table);
    values::ids(&mut table);
    values::kinds(&mut table);
    values::durations(&mut table);
    table.0
}

fn send(case: &Case, account: &Account) -> Got {
    let now = SystemTime::now();
    let at = |minutes: i64| {
        let distance = Duration::from_secs(60 * minutes.unsigned_abs());
        if minutes < 0 { now - distance } else { now + distance }
    };
    let wire = case.wire.clone();
    let sign = |wire: Wire, name: &str, key: &str| {
        let authorization = wire.authorization(name, key);
        wire.with("authorization", authorization).send(account)
    };
    match &case.signed {
        Signed::Well => sign(wire.prepared(account, now), &account.name, &account.key),
        Signed::Not => wire.prepared(account, now).send(account),
        Signed::As(text) => wire.prepared(account, now).with("authorization", *text).send(account),
        Signed::WithOtherKey => sign(wire.prepared(account, now), &account.name, "b3RoZXI="),
        Signed::ForOtherAccount => sign(wire.prepared(account, now), "somebodyelse", &account.key),
        Signed::ForOtherPath => {
            let mut wire = wire.prepared(account, now);
            let authorization = wire.authorization(&account.name, &account.key);
            wire.target = format!("/pools?{V}");
            wire.with("authorization", authorization).send(account)
        }
        Signed::WithOtherHeader => {
            let wire = wire.prepared(account, now);
            let authorization = wire.authorization(&account.name, &account.key);
            wire.with("ocp-range", "bytes=0-1").with("authorization", authorization).send(account)
        }
        Signed::Minutes(minutes) => sign(wire.prepared(account, at(*minutes)), &account.name, &account.key),
        Signed::Dated(text) => {
            let mut wire = wire.prepared(account, now);
            wire.headers.retain(|(name, _)| name != "ocp-date");
            let wire = if text.is_empty() { wire } else { wire.with("ocp-date", *text) };
            sign(wire, &account.name, &account.key)
        }
    }
}

fn fault(case: &Case, got: &Got) -> Option<String> {
    let shown = || String::from_utf8_lossy(&got.body).chars().take(600).collect::<String>();
    if got.status != case.status {
        return Some(format!("status {} instead of {}: {}", got.status, case.status, shown()));
    }
    if got.header("request-id").is_none_or(|id| id.len() != 36) {
        return Some(format!("no request-id: {:?}", got.headers));
    }
    if case.code.is_empty() {
        return (!got.body.is_empty()).then(|| format!("a body: {}", shown()));
    }
    let body: Value = match serde_json::from_slice(&got.body) {
        Ok(body) => body,
        Err(error) => return Some(format!("{error}: {}", shown())),
    };
    let message = body["message"]["value"].as_str().unwrap_or_default();
    let is_whole =
        body["code"] == case.code && body["message"]["lang"] == "en-US" && message.contains("\nRequestId:") && message.contains("\nTime:");
    (!is_whole).then(|| format!("not {}: {}", case.code, shown()))
}

fn state(account: &Account) -> Vec<Value> {
    let read = |path: &str| {
        let got = Wire::new("GET", &versioned(path), "").send_signed(account);
        assert_eq!(got.status, 200, "GET {path}: {:?}", String::from_utf8_lossy(&got.body));
        got.json()["value"].clone()
    };
    vec![read("/pools"), read("/jobs"), read("/jobs/bad-job/tasks")]
}

/// Sends every request of the table; none may get another answer, or change anything.
pub fn check(account: &Account) {
    for (path, body) in [
        ("/pools", pool(&[("id", json!("bad-pool"))])),
        ("/jobs", job(&[("id", json!("bad-job"))])),
        ("/jobs/bad-job/tasks", task(&[("id", json!("bad-task"))])),
    ] {
        let got = Wire::new("POST", &versioned(path), body.to_string()).send_signed(account);
        assert_eq!(got.status, 201, "POST {path}: {:?}", String::from_utf8_lossy(&got.body));
    }
    let before = state(account);
    let cases = cases();
    let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert!(names.len() >= CASES_MIN, "the table has {} different cases", names.len());
    let faults: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let got = send(case, account);
            fault(case, &got).map(|fault| format!("{}: {fault}", case.name.chars().take(200).collect::<String>()))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert_eq!(state(account), before, "bad input has changed something");
}
