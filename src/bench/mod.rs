//! `piecework bench`: tasks that do nothing, through the whole path: REST, store, queue, agent, result; and invocations.
//!
//! Throughput counts from the first request until the last end is visible; latency is that of one task at a time.

mod figures;
mod invocations;

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use clap::Args;
use contract::{ids::PoolId, spec::NOTHING, time::Timestamp};
use serde_json::{Value, json};

use self::{figures::Figures, invocations::Invoker};
use crate::{
    client::{Client, path},
    exit_codes::{FAILED, Failure, INTERRUPTED, OK, USAGE},
    interrupts::Interrupts,
    output::Output,
    percentiles::{Percentiles, queue_wait_ms},
    session::Session,
    settings::ServerArgs,
    stack::StackSettings,
    work::{self, PoolShape, Task},
};

/// Tasks that warm everything up.
const WARM: u32 = 50;
/// Period of the polls.
const POLL_PERIOD: Duration = Duration::from_millis(10);
/// Nodes must be idle after this long.
const NODES_MAX: Duration = Duration::from_secs(60);

/// Measures throughput and latency of tasks and functions that do nothing
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Tasks of each kind
    #[arg(long, default_value_t = 5_000)]
    tasks: u32,
    /// Slots of the no-op tasks' node
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: u32,
    /// Slots of the /bin/true tasks' node
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    process_slots: u32,
    /// Tasks that are timed one at a time
    #[arg(long, default_value_t = 200)]
    singles: u32,
    /// Invocations of each function
    #[arg(long, default_value_t = 5_000)]
    invocations: u32,
    /// Runs a stack of its own on this broker
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
}

pub(crate) async fn run(args: BenchArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::listen()?;
    let opened = match args.broker.clone() {
        Some(broker) => Session::start(StackSettings { broker: Some(broker), ..StackSettings::default() }, &mut interrupts).await?,
        None => Session::open(&args.server, &mut interrupts).await?,
    };
    let Some(session) = opened else { return Ok(INTERRUPTED) };
    let made = Made::default();
    let result = interrupts.unless(measure(&session, &args, &made)).await;
    let cleaned = interrupts.finish(|| made.names(), made.remove(&session.client)).await;
    session.close().await;
    let (Some(rows), Some(cleaned)) = (result, cleaned) else { return Ok(INTERRUPTED) };
    let rows = rows?;
    cleaned?;
    out.list(COLUMNS, &rows)?;
    Ok(OK)
}

/// Resources made on the server, recorded before they are made so that all of them are removed.
#[derive(Default)]
struct Made {
    jobs: RefCell<Vec<String>>,
    pools: RefCell<Vec<PoolId>>,
}

impl Made {
    fn pool(&self) -> anyhow::Result<PoolId> {
        let pool: PoolId = work::new_name("bench").parse()?;
        self.pools.borrow_mut().push(pool.clone());
        Ok(pool)
    }

    fn job(&self) -> String {
        let job = work::new_name("bench");
        self.jobs.borrow_mut().push(job.clone());
        job
    }

    /// Names of the resources that the run created and removes at its end, for messages.
    fn names(&self) -> String {
        let jobs = self.jobs.borrow().iter().map(|job| format!("job {job}")).collect::<Vec<_>>();
        let pools = self.pools.borrow().iter().map(|pool| format!("pool {pool}")).collect::<Vec<_>>();
        if jobs.len() + pools.len() == 0 { "nothing".to_owned() } else { [jobs, pools].concat().join(", ") }
    }

    /// Waits for the removal of pools, because their queues must be gone before the broker is left.
    async fn remove(&self, client: &Client) -> anyhow::Result<()> {
        // Cleared last: when this is cut off, the next call removes them again.
        let (jobs, pools) = (self.jobs.borrow().clone(), self.pools.borrow().clone());
        for job in jobs {
            work::remove(client, &path(&["jobs", &job])).await?;
        }
        for pool in pools {
            work::remove(client, &path(&["pools", pool.as_str()])).await?;
        }
        self.jobs.borrow_mut().clear();
        self.pools.borrow_mut().clear();
        Ok(())
    }
}

const COLUMNS: &[(&str, &str)] = &[
    ("WHAT", "/what"),
    ("TASKS", "/tasks"),
    ("SLOTS", "/slots"),
    ("TASKS/S", "/tasks_per_second"),
    ("SUBMIT/S", "/submitted_per_second"),
    ("WAIT P50 MS", "/wait_p50_ms"),
    ("WAIT P90 MS", "/wait_p90_ms"),
    ("WAIT P99 MS", "/wait_p99_ms"),
];

async fn measure(session: &Session, args: &BenchArgs, made: &Made) -> anyhow::Result<Vec<Value>> {
    let client = &session.client;
    let mut rows = vec![];
    for (what, command, slots) in [("no-op", NOTHING, args.slots), ("/bin/true", "/bin/true", args.process_slots)] {
        let pool = made.pool()?;
        work::create_pool(client, &pool, &PoolShape { slots, nodes: 1, policy: None }).await?;
        wait_for_node(client, &pool).await?;
        many(client, (&pool, made.job()), command, WARM.min(args.tasks)).await?;
        let figures = many(client, (&pool, made.job()), command, args.tasks).await?;
        rows.push(row(what, args.tasks, slots, Some(&figures), &figures.waits));
        if command == NOTHING {
            let waits = singles(client, (&pool, made.job()), args.singles).await?;
            rows.push(row("submit to start, one at a time", args.singles, slots, None, &waits));
        }
        // The next kind of task must have the machine to itself.
        made.remove(client).await?;
    }
    if args.invocations > 0 {
        rows.extend(invoke(session, args, made).await?);
        made.remove(client).await?;
    }
    Ok(rows)
}

async fn invoke(session: &Session, args: &BenchArgs, made: &Made) -> anyhow::Result<Vec<Value>> {
    let hint = "give --server READY_FILE, or --invocations 0";
    let broker = session.broker().ok_or_else(|| Failure::new(USAGE, "the server's broker is not known", hint))?;
    let pool = made.pool()?;
    work::create_pool(&session.client, &pool, &PoolShape { slots: args.slots, nodes: 1, policy: None }).await?;
    invocations::deploy(&session.client, &pool).await?;
    wait_for_node(&session.client, &pool).await?;
    let invoker = Invoker::open(broker.clone(), &pool).await?;
    let mut rows = vec![];
    for (name, _, _) in invocations::FUNCTIONS {
        invoker.many(name, WARM.max(args.slots).min(args.invocations)).await?;
        let figures = invoker.many(name, args.invocations).await?;
        rows.push(row(&format!("invocation: {name}"), args.invocations, args.slots, Some(&figures), &figures.waits));
        let waits = invoker.singles(name, args.singles).await?;
        rows.push(row(&format!("invocation to answer, one at a time: {name}"), args.singles, args.slots, None, &waits));
    }
    invoker.close().await;
    Ok(rows)
}

fn row(what: &str, tasks: u32, slots: u32, figures: Option<&Figures>, waits: &Percentiles) -> Value {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    json!({
        "what": what, "tasks": tasks, "slots": slots,
        "tasks_per_second": figures.map(|figures| rounded(figures.per_second)),
        "submitted_per_second": figures.map(|figures| rounded(figures.submitted_per_second)),
        "wait_p50_ms": rounded(waits.at(50.0)), "wait_p90_ms": rounded(waits.at(90.0)), "wait_p99_ms": rounded(waits.at(99.0)),
    })
}

async fn wait_for_node(client: &Client, pool: &PoolId) -> anyhow::Result<()> {
    let until = Instant::now() + NODES_MAX;
    loop {
        let nodes: Vec<Value> = client.list(&path(&["pools", pool.as_str(), "nodes"]), &[]).await?;
        if nodes.iter().any(|node| node["state"] == "idle") {
            return Ok(());
        }
        if Instant::now() > until {
            let hint = "look at `piecework node list`, and at agent.log below the data folder's nodes";
            return Err(Failure::new(FAILED, format!("no node was ready in {NODES_MAX:?}"), hint).into());
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

async fn many(client: &Client, (pool, job): (&PoolId, String), command: &str, count: u32) -> anyhow::Result<Figures> {
    work::create_job(client, &job, pool, None).await?;
    let tasks = (0..count).map(|number| json!({ "id": format!("t{number:07}"), "commandLine": command })).collect();
    let started = Instant::now();
    work::add_tasks(client, &job, tasks).await?;
    let submitted = started.elapsed();
    loop {
        let counts = work::counts(client, &job).await?;
        if counts.completed >= u64::from(count) {
            break;
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
    let took = started.elapsed();
    let tasks = work::completed(client, &job).await?;
    let failed = tasks.iter().filter(|task| !task.has_succeeded()).count();
    if failed > 0 || tasks.len() != count as usize {
        return Err(Failure::new(FAILED, format!("{failed} of {} tasks failed", tasks.len()), "").into());
    }
    client.delete(&path(&["jobs", &job])).await?;
    let rate = |took: Duration| f64::from(count) / took.as_secs_f64().max(1e-9);
    Ok(Figures {
        per_second: rate(took),
        submitted_per_second: rate(submitted),
        waits: Percentiles::of(tasks.iter().filter_map(queue_wait_ms)),
    })
}

/// Latencies from before the request is sent until the run starts, by the clock of this machine.
async fn singles(client: &Client, (pool, job): (&PoolId, String), count: u32) -> anyhow::Result<Percentiles> {
    work::create_job(client, &job, pool, None).await?;
    let mut waits = vec![];
    for number in 0..count {
        let id = format!("t{number:07}");
        let sent = Timestamp::now();
        client.post(&path(&["jobs", &job, "tasks"]), Some(&json!({ "id": id, "commandLine": NOTHING }))).await?;
        let task = loop {
            let task: Task = client.get(&work::task_path(&job, &id), &[]).await?;
            if task.is_completed() {
                break task;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let started = task.execution_info.start_time.as_deref().and_then(Timestamp::parse);
        waits.extend(started.map(|started| started.since(sent) as f64));
    }
    client.delete(&path(&["jobs", &job])).await?;
    Ok(Percentiles::of(waits))
}
