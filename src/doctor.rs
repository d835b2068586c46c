//! `piecework doctor`: looks at everything a task needs, and says what to do.

use std::time::Duration;

use broker_config::{amqp::Link, blobs::Blobs, time::Timestamp, topology};
use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::{
    exit_codes::{FAILED, OK},
    output::Output,
    session::Session,
    settings::ServerArgs,
    stack::named,
};

/// Files that a busy stack keeps open.
const FILES_MIN: u64 = 4_096;
/// Free bytes below which a stack gets into trouble.
const DISK_MIN_BYTES: u64 = 1 << 30;
/// The door refuses requests whose clock is further off than 15 minutes.
const SKEW_MAX: Duration = Duration::from_secs(60);
/// One look may take this long.
const LOOK_MAX: Duration = Duration::from_secs(15);

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
    advice: &'static str,
}

impl Finding {
    fn of(what: &'static str, result: Result<String, String>, advice: &'static str) -> Finding {
        let is_well = result.is_ok();
        Finding { what, is_well, found: result.unwrap_or_else(|problem| problem), advice: if is_well { "" } else { advice } }
    }
}

pub(crate) async fn run(args: DoctorArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let mut findings = vec![open_files(), disk()];
    match Session::open(&args.server).await {
        Ok(session) => {
            findings.extend(look(&session).await);
            session.close().await;
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
    let health =
        health.map(|health| format!("{}, version {}", health["status"].as_str().unwrap_or("?"), health["version"].as_str().unwrap_or("?")));
    vec![
        Finding::of(
            "server",
            server.map_err(|error| error.to_string()),
            "look whether `piecework up` runs, and at the URL, account and key",
        ),
        Finding::of("store and parts", health.map_err(|error| error.to_string()), "the answer names the part; its log says more"),
        Finding::of("clock", clock(session).await, "set the clocks of both machines by NTP; signatures hold for 15 minutes"),
        Finding::of("broker", broker(session).await, "look whether the broker runs, and at its user, password and vhost"),
        Finding::of("blobs", blobs(session).await, "look at the S3 endpoint, its keys and its free space"),
    ]
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
    match tokio::time::timeout(LOOK_MAX, look).await {
        Ok(Ok(Some(depth))) if depth.consumers > 0 => Ok(format!("{} events wait for {} consumers", depth.ready, depth.consumers)),
        Ok(Ok(Some(depth))) => Err(format!("{} events wait and no dispatcher consumes them", depth.ready)),
        Ok(Ok(None)) => Err("no dispatcher ever used this broker".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {LOOK_MAX:?}")),
    }
}

async fn blobs(session: &Session) -> Result<String, String> {
    let Some(settings) = session.blob_settings() else {
        return Ok("not looked at: the store is not known here (give --server READY_FILE or --s3)".to_owned());
    };
    let place = format!("{} bucket {}", settings.endpoint, settings.bucket);
    let blobs = Blobs::new(settings.clone()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(LOOK_MAX, blobs.check()).await {
        Ok(Ok(())) => Ok(format!("{place}: written, read and deleted")),
        Ok(Err(error)) => Err(format!("{place}: {error}")),
        Err(_) => Err(format!("{place}: no answer in {LOOK_MAX:?}")),
    }
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let result = if limit >= FILES_MIN { Ok(format!("{limit}")) } else { Err(format!("{limit}, at least {FILES_MIN} are wanted")) };
    Finding::of("open files", result, "raise it with `ulimit -n 65536`, or LimitNOFILE in the unit")
}

fn disk() -> Finding {
    let folder = std::env::temp_dir();
    let result = match rustix::fs::statvfs(&folder) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{} free in {}", crate::output::bytes(free), folder.display());
            if free >= DISK_MIN_BYTES { Ok(text) } else { Err(text) }
        }
        Err(error) => Err(format!("{}: {error}", folder.display())),
    };
    Finding::of("disk", result, "make room, or set TMPDIR or --data to a larger disk")
}
