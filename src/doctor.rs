//! `piecework doctor`: checks everything that a task needs, and says what to do about problems.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use broker_config::{disk, topology};
use clap::Args;
use clients::{amqp::Link, blobs::Blobs};
use contract::time::Timestamp;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::{
    exit_codes::{FAILED, INTERRUPTED, OK},
    interrupts::Interrupts,
    output::Output,
    session::Session,
    settings::ServerArgs,
    stack::named,
};

/// Files that a busy stack keeps open.
const FILES_MIN: u64 = 4_096;
/// With fewer free bytes than this a stack does not work well.
const DISK_MIN_BYTES: u64 = 1 << 30;
/// The API refuses requests whose clock is further off than 15 minutes.
const SKEW_MAX: Duration = Duration::from_secs(60);
/// Longest check of all rows of the store; of a larger store only the first rows are checked.
const ROWS_CHECK_MAX: Duration = Duration::from_secs(60);
/// Rows that are listed with what to do about each, at most.
const ROWS_NAMED_MAX: usize = 50;
/// Timeout of each other check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// Checks broker, blobs, store, clock and limits, and says what to do
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    server: ServerArgs,
}

struct Finding {
    what: &'static str,
    is_well: bool,
    found: String,
    advice: String,
}

impl Finding {
    fn of(what: &'static str, result: Result<String, String>, advice: &str) -> Finding {
        let is_well = result.is_ok();
        Finding {
            what,
            is_well,
            found: result.unwrap_or_else(|problem| problem),
            advice: if is_well { String::new() } else { advice.to_owned() },
        }
    }
}

pub(crate) async fn run(args: DoctorArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let mut findings = vec![open_files(), disk()];
    findings.extend(args.server.server.as_deref().and_then(shared_disk));
    let mut interrupts = Interrupts::listen()?;
    match Session::open(&args.server, &mut interrupts).await {
        Ok(None) => return Ok(INTERRUPTED),
        Ok(Some(session)) => {
            let found = interrupts.unless(look(&session)).await;
            session.close().await;
            let Some(found) = found else { return Ok(INTERRUPTED) };
            findings.extend(found);
        }
        Err(error) => {
            let advice = "look at the settings: piecework doctor --help names the flags and variables";
            findings.push(Finding::of("stack", Err(format!("{error:#}")), advice));
        }
    }
    let is_well = findings.iter().all(|finding| finding.is_well);
    let rows: Vec<Value> = findings
        .iter()
        .map(|Finding { what, is_well, found, advice }| {
            json!({ "check": what, "result": if *is_well { "ok" } else { "problem" }, "found": found, "advice": advice })
        })
        .collect();
    out.list(&[("CHECK", "/check"), ("RESULT", "/result"), ("FOUND", "/found"), ("WHAT TO DO", "/advice")], &rows)?;
    Ok(if is_well { OK } else { FAILED })
}

async fn look(session: &Session) -> Vec<Finding> {
    let own = if session.is_own() { "a stack started for this check" } else { session.client.url() };
    let pools = session.client.list::<Value>("/pools", &[]).await;
    let server = pools.map(|pools| format!("{own}: account {} has {} pools", session.client.account(), pools.len()));
    let health = session.client.get::<Value>("/piecework/health", &[]).await;
    let met = health.as_ref().map_or_else(|error| Err(error.to_string()), unreadable);
    let health =
        health.map(|health| format!("{}, version {}", health["status"].as_str().unwrap_or("?"), health["version"].as_str().unwrap_or("?")));
    let mut findings = vec![
        Finding::of(
            "server",
            server.map_err(|error| error.to_string()),
            "look whether `piecework up` runs, and at the URL, account and key",
        ),
        Finding::of("store and parts", health.map_err(|error| error.to_string()), "the answer names the part; its log says more"),
        Finding::of(
            "rows met",
            met,
            "tasks named here have ended as failed; what to do about others stands with the row below, if it is there still",
        ),
        Finding::of("clock", clock(session).await, "set the clocks of both machines by NTP; signatures hold for 15 minutes"),
        Finding::of("broker", broker(session).await, "look whether the broker runs, and at its user, password and vhost"),
        Finding::of("blobs", blobs(session).await, "look at the S3 endpoint, its keys and its free space"),
    ];
    findings.extend(rows(session).await);
    findings
}

/// Rows of the store that cannot be read, each with what to do about it.
async fn rows(session: &Session) -> Vec<Finding> {
    let listed = session.client.list_until::<Value>("/piecework/unreadable", Instant::now() + ROWS_CHECK_MAX).await;
    let (mut rows, is_all) = match listed {
        Ok(listed) => listed,
        Err(error) => return vec![Finding::of("rows", Err(error.to_string()), "look at the server's log")],
    };
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or("?").to_owned();
    let key = |row: &Value| ["table", "row", "column"].map(|name| word(row, name));
    rows.sort_by_key(key);
    rows.dedup_by_key(|row| key(row));
    let extent =
        if is_all { "all rows were looked at".to_owned() } else { format!("not all rows were looked at within {ROWS_CHECK_MAX:?}") };
    let summary = match rows.len() {
        0 => Ok(format!("{extent}: none of them is unreadable")),
        count => Err(format!("{extent}: {count} cannot be read, {} of them follow", count.min(ROWS_NAMED_MAX))),
    };
    let mut findings = vec![Finding::of("rows", summary, "restore the store from a backup, or do what stands beside each row")];
    findings.extend(rows.iter().take(ROWS_NAMED_MAX).map(|row| {
        let named = format!("{} {} cannot be read: {}", word(row, "table"), word(row, "row"), word(row, "column"));
        Finding::of("row", Err(named), &word(row, "advice"))
    }));
    findings
}

/// Rows that the server could not read.
fn unreadable(health: &Value) -> Result<String, String> {
    let rows = health["unreadableRows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or("?").to_owned();
    let named: Vec<String> =
        rows.iter().map(|row| format!("{} {} ({})", word(row, "table"), word(row, "row"), word(row, "column"))).collect();
    if named.is_empty() {
        Ok("all rows that were needed since the start could be read".to_owned())
    } else {
        Err(format!("could not be read: {}", named.join(", ")))
    }
}

async fn clock(session: &Session) -> Result<String, String> {
    let there = session.client.server_time().await.map_err(|error| error.to_string())?;
    let apart = Timestamp::now().0.abs_diff(there.0);
    let text = format!("{apart} ms apart");
    if u128::from(apart) > SKEW_MAX.as_millis() { Err(text) } else { Ok(text) }
}

async fn broker(session: &Session) -> Result<String, String> {
    let Some(settings) = session.broker() else {
        return Ok("not looked at: its URL is not known here (give --server READY_FILE)".to_owned());
    };
    let look = async {
        let link = Link::open(named(settings.url.expose(), "piecework doctor")).await?;
        let depth = link.depth(topology::EVENT_QUEUE).await;
        link.close().await;
        depth
    };
    match tokio::time::timeout(CHECK_TIMEOUT, look).await {
        Ok(Ok(Some(depth))) if depth.consumers > 0 => Ok(format!("{} events wait for {} consumers", depth.ready, depth.consumers)),
        Ok(Ok(Some(depth))) => Err(format!("{} events wait and no dispatcher consumes them", depth.ready)),
        Ok(Ok(None)) => Err("no dispatcher ever used this broker".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {CHECK_TIMEOUT:?}")),
    }
}

async fn blobs(session: &Session) -> Result<String, String> {
    let Some(settings) = session.blob_settings() else {
        return Ok("not looked at: the store is not known here (give --server READY_FILE or --s3)".to_owned());
    };
    let place = format!("{} bucket {}", settings.endpoint, settings.bucket);
    let blobs = Blobs::new(settings.clone()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(CHECK_TIMEOUT, blobs.check()).await {
        Ok(Ok(())) => Ok(format!("{place}: written, read and deleted")),
        Ok(Err(error)) => Err(format!("{place}: {error}")),
        Err(_) => Err(format!("{place}: no answer in {CHECK_TIMEOUT:?}")),
    }
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let result = if limit >= FILES_MIN { Ok(format!("{limit}")) } else { Err(format!("{limit}, at least {FILES_MIN} are wanted")) };
    Finding::of("open files", result, "raise it with `ulimit -n 65536`, or LimitNOFILE in the unit")
}

/// Whether the tasks of this machine share a disk with the store, where the data folder is that of the ready file.
fn shared_disk(ready: &Path) -> Option<Finding> {
    let data = ready.parent()?;
    let (store, nodes) = (data.join("dispatcher"), data.join("nodes"));
    if !store.is_dir() || !nodes.is_dir() {
        return None;
    }
    let result = match disk::is_same(&store, &nodes) {
        Ok(false) => Ok("the store and the tasks of this machine have disks of their own".to_owned()),
        Ok(true) => {
            let free = disk::free(&store).map_or_else(|error| error.to_string(), crate::output::bytes);
            Ok(format!("the store shares a disk with the tasks of this machine, {free} free: a task that fills it stops all changes"))
        }
        Err(error) => Err(format!("{}: {error}", data.display())),
    };
    Some(Finding::of("disk of tasks", result, "look at the permissions of the data folder"))
}

fn disk() -> Finding {
    let folder = std::env::temp_dir();
    let result = match disk::free(&folder) {
        Ok(free) => {
            let text = format!("{} free in {}", crate::output::bytes(free), folder.display());
            if free >= DISK_MIN_BYTES { Ok(text) } else { Err(text) }
        }
        Err(error) => Err(format!("{}: {error}", folder.display())),
    };
    Finding::of("disk", result, "make room, or set TMPDIR or --data to a larger disk")
}
