//! A small signed client of the REST API, for tests that look at answers themselves.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::stack::{Ready, wait_for};

/// Any single answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Anything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of one stack.
pub struct Rest {
    url: String,
    account: String,
    key: Vec<u8>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Rest {
    pub fn new(ready: &Ready) -> Rest {
        Rest {
            url: ready.url.trim_end_matches('/').to_owned(),
            account: ready.account.clone(),
            key: BASE64_STANDARD.decode(&ready.key).expect("a key in base64"),
            client: reqwest::Client::builder().timeout(ANSWER).no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    /// Sends a request; `path` goes over the wire as it is, with the api-version added.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// The same, for stacks that may be away.
    pub fn try_send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, reqwest::Error> {
        let (raw, query) = path.split_once('?').unwrap_or((path, ""));
        let query =
            if query.is_empty() { "api-version=2024-02-01.19.0".to_owned() } else { format!("{query}&api-version=2024-02-01.19.0") };
        let body = body.map(|body| serde_json::to_vec(body).expect("JSON"));
        let length = match (&body, method) {
            (Some(body), _) => body.len().to_string(),
            (None, "GET" | "HEAD") => String::new(),
            (None, _) => "0".to_owned(),
        };
        let content_type = if body.is_some() { "application/json; odata=minimalmetadata" } else { "" };
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut pairs: Vec<(String, String)> =
            query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect();
        pairs.sort();
        let mut text = format!("{method}\n\n\n{length}\n\n{content_type}\n\n\n\n\n\n\nocp-date:{date}\n/{}{raw}", self.account);
        for (name, value) in pairs {
            text += &format!("\n{name}:{value}");
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key");
        mac.update(text.as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let mut request = self
            .client
            .request(method.parse().expect("a method"), format!("{}{raw}?{query}", self.url))
            .header("ocp-date", date)
            .header("authorization", format!("SharedKey {}:{signature}", self.account));
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if !length.is_empty() {
            request = request.header("content-length", &length);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok(Answer { status, headers, body: answer.bytes().await?.to_vec() })
        })
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, None);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    pub fn post(&self, path: &str, body: &Value, status: u16) -> Answer {
        let answer = self.send("POST", path, Some(body));
        assert_eq!(answer.status, status, "POST {path}: {}", answer.text());
        answer
    }

    /// A pool of some nodes.
    pub fn add_pool(&self, id: &str, nodes: u32, slots: u32) {
        let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "batch.node.linux"});
        let pool = json!({"id": id, "vmSize": "local", "virtualMachineConfiguration": machine, "targetDedicatedNodes": nodes, "taskSlotsPerNode": slots});
        self.post("/pools", &pool, 201);
    }

    pub fn add_job(&self, id: &str, pool: &str) {
        self.post("/jobs", &json!({"id": id, "poolInfo": {"poolId": pool}}), 201);
    }

    pub fn add_task(&self, job: &str, task: Value) {
        self.post(&format!("/jobs/{job}/tasks"), &task, 201);
    }

    /// Adds tasks a hundred at a time and asserts that each was taken.
    pub fn add_tasks(&self, job: &str, tasks: &[Value]) {
        for chunk in tasks.chunks(100) {
            let answer = self.post(&format!("/jobs/{job}/addtaskcollection"), &json!({ "value": chunk }), 200).json();
            for result in answer["value"].as_array().expect("results") {
                assert_eq!(result["status"], "success", "{result}");
            }
        }
    }

    /// Waits until a task is completed and returns it.
    pub fn finished(&self, job: &str, task: &str) -> Value {
        let path = format!("/jobs/{job}/tasks/{task}");
        let found = wait_for(PATIENCE, || Some(self.get(&path)).filter(|task| task["state"] == "completed"));
        found.unwrap_or_else(|| panic!("task {task} did not complete: {}", self.get(&path)))
    }

    /// Waits until all tasks of a job are completed.
    pub fn all_finished(&self, job: &str) -> Value {
        let counts = || self.get(&format!("/jobs/{job}/taskcounts"));
        let done = |counts: &Value| counts["taskCounts"]["active"] == 0 && counts["taskCounts"]["running"] == 0;
        let found = wait_for(PATIENCE, || Some(counts()).filter(done));
        found.unwrap_or_else(|| panic!("job {job} did not complete: {}", counts()))
    }

    /// Every task of a job, over all pages.
    pub fn tasks(&self, job: &str) -> Vec<Value> {
        let mut path = format!("/jobs/{job}/tasks");
        let mut tasks = Vec::new();
        loop {
            let page = self.get(&path);
            tasks.extend(page["value"].as_array().expect("a page").iter().cloned());
            let Some(next) = page["odata.nextLink"].as_str() else { return tasks };
            let (_, rest) = next.split_once("/jobs/").expect("a link to tasks");
            path = format!("/jobs/{}", strip_version(rest));
        }
    }
}

fn strip_version(link: &str) -> String {
    let (path, query) = link.split_once('?').unwrap_or((link, ""));
    let query: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("api-version=")).collect();
    format!("{path}?{}", query.join("&"))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
