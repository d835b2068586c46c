//! One job with a million tasks: pages, counts, adds and memory, through the API over HTTP.
//!
//! `cargo run --release -p dispatcher --example million -- [tasks] [percent completed]`
//! Every page stands beside the same SELECT on the same file; adds take turns with a job of a thousand tasks.
//! The memory shown includes the broker, the blob store and the client, which run in the same process.

#[path = "million/fill.rs"]
mod fill;
#[path = "million/served.rs"]
mod served;
#[allow(dead_code)]
#[path = "../../tests/it/signing.rs"]
mod signing;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, types::Value as Cell};
use serde_json::{Value, json};

use crate::{fill::fill, served::Served};

/// Pages that are timed of each list.
const PAGES: usize = 60;
const COUNTS: usize = 300;
const ADDS: usize = 30;
const PAGE_ROWS: usize = 1_000;
const SMALL: usize = 1_000;

/// Values of `$select`, and the columns that hold them.
const LISTS: [(&str, &str, &str); 3] = [
    ("id,state", "t.id, t.state", ""),
    ("id,state,creationTime,nodeInfo", "t.id, t.state, t.created_at, t.node, t.pool", ""),
    (
        "id,state,executionInfo",
        "t.id, t.state, t.started_at, t.ended_at, t.exit_code, x.failure, t.retries, t.retried_at, t.requeues, t.requeued_at, t.success",
        "JOIN task_texts x ON x.uid = t.uid",
    ),
];

/// Filters that no index answers.
const SLOW: [&str; 4] = [
    "executionInfo/endTime lt DateTime'1999-01-01T00:00:00Z'",
    "executionInfo/exitCode eq 77",
    "state ne 'completed' and executionInfo/exitCode eq 77",
    "state eq 'completed' and executionInfo/result eq 'failure'",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let tasks = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let percent = arguments.next().map_or(Ok(70), |text| text.parse())?;
    let (big, small) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let started = Instant::now();
    fill(big.path(), tasks, percent)?;
    println!("filled with {tasks} tasks, {percent} % completed, in {:.0} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let api = Served::open(big.path())?;
    println!("started in {:.1} s", started.elapsed().as_secs_f64());
    for (select, columns, join) in LISTS {
        pages(&api, big.path(), select, columns, join)?;
    }
    for filter in SLOW {
        slow(&api, filter);
    }
    counts(&api, tasks);
    println!("resident: {}", memory()?);
    fill(small.path(), SMALL, percent)?;
    adds(&api, &Served::open(small.path())?, tasks);
    println!("resident with two of each: {}", memory()?);
    Ok(())
}

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}

fn first_page(select: &str, filter: &str) -> String {
    let filter = filter.replace(' ', "%20");
    format!("/jobs/Job/tasks?api-version=2024-02-01.19.0&$select={select}&$filter={filter}&maxresults={PAGE_ROWS}")
}

/// Where the next page is, as path and query.
fn next(page: &Value, api: &Served) -> Option<String> {
    page["odata.nextLink"].as_str().and_then(|link| link.strip_prefix(&api.account.url)).map(str::to_owned)
}

/// Walks a list and times each page beside the bare SELECT of its rows.
fn pages(api: &Served, folder: &Path, select: &str, columns: &str, join: &str) -> Result<(), Box<dyn std::error::Error>> {
    let bare = Connection::open_with_flags(folder.join("store.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = format!(
        "SELECT {columns} FROM tasks t {join} WHERE t.job = (SELECT uid FROM jobs WHERE id = 'Job') AND t.state = 3 AND t.id > ?1 \
         ORDER BY t.id LIMIT ?2"
    );
    let mut statement = bare.prepare(&sql)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut after = String::new();
    let mut target = Some(first_page(select, "state eq 'completed'"));
    while let Some(wanted) = target.take().filter(|_| ours.len() < PAGES) {
        let started = Instant::now();
        let answer = api.ask("GET", &wanted, "");
        ours.push(started.elapsed());
        let page = answer.json();
        let started = Instant::now();
        let width = statement.column_count();
        let rows = statement.query_map((&after, PAGE_ROWS as i64), |row| (0..width).map(|at| row.get(at)).collect())?;
        let rows = rows.collect::<Result<Vec<Vec<Cell>>, _>>()?;
        theirs.push(started.elapsed());
        assert_eq!(page["value"].as_array().map(Vec::len), Some(rows.len()), "the same rows");
        if let Some(id) = page["value"].as_array().and_then(|tasks| tasks.last()).and_then(|task| task["id"].as_str()) {
            id.clone_into(&mut after);
        }
        target = next(&page, api);
    }
    let (count, ours, theirs) = (ours.len(), p50(ours), p50(theirs));
    println!("page of {PAGE_ROWS} by state, {select}: p50 of {count} {ours:.2} ms, bare SELECT {theirs:.2} ms, ratio {:.2}", ours / theirs);
    Ok(())
}

/// Walks a whole list that holds little or nothing.
fn slow(api: &Served, filter: &str) {
    let (mut times, mut rows) = (Vec::new(), 0);
    let mut target = Some(first_page("id", filter));
    while let Some(wanted) = target.take() {
        let started = Instant::now();
        let answer = api.ask("GET", &wanted, "");
        times.push(started.elapsed());
        let page = answer.json();
        rows += page["value"].as_array().map_or(0, Vec::len);
        target = next(&page, api);
    }
    let (count, all) = (times.len(), times.iter().sum::<Duration>().as_secs_f64() * 1_000.0);
    let most = times.iter().max().map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    println!("{filter}: {rows} rows in {count} pages, p50 {:.1} ms, longest {most:.1} ms, together {all:.0} ms", p50(times));
}

fn counts(api: &Served, tasks: usize) {
    let mut times = Vec::new();
    for _ in 0..COUNTS {
        let started = Instant::now();
        let counts = api.ask("GET", "/jobs/Job/taskcounts?api-version=2024-02-01.19.0", "").json();
        times.push(started.elapsed());
        let of = |name: &str| counts["taskCounts"][name].as_u64().unwrap_or_default();
        assert_eq!(of("active") + of("running") + of("completed"), tasks as u64, "exact counts");
    }
    println!("task counts: p50 of {COUNTS} {:.2} ms", p50(times));
}

/// Adds a hundred tasks to each of two API handlers, turn by turn.
fn adds(big: &Served, small: &Served, tasks: usize) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ADDS {
        let value: Vec<_> = (0..100).map(|n| json!({"id": format!("added-{round:03}-{n:03}"), "commandLine": "/bin/true"})).collect();
        let body = json!({"value": value}).to_string();
        for (api, times) in [big, small].into_iter().zip(&mut times) {
            let started = Instant::now();
            let added = api.ask("POST", "/jobs/Job/addtaskcollection?api-version=2024-02-01.19.0", &body);
            times.push(started.elapsed());
            let is_added = |result: &Value| result["status"] == "success";
            assert!(added.json()["value"].as_array().is_some_and(|results| results.iter().all(is_added)), "all are added");
        }
    }
    let [big, small] = times.map(p50);
    println!("100 tasks added: p50 of {ADDS} {big:.2} ms at {tasks} tasks, {small:.2} ms at {SMALL}, ratio {:.2}", big / small);
}

/// Resident now and at most, as the kernel says.
fn memory() -> Result<String, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    };
    Ok(format!("{} MiB, at most {} MiB", kib("VmRSS:") / 1024, kib("VmHWM:") / 1024))
}
