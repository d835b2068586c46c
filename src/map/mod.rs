//! `piecework map`: one task for each input, the way people use GNU parallel.
//!
//! ```text
//! inputs ── upload ──► bucket/maps/JOB/in/N ──► task N on a node ──► bucket/maps/JOB/out/N ── download ──► --out
//! ```
//! Inputs and outputs in S3 are used where they are. Outputs arrive as their tasks end; what was finished is kept.

mod inputs;
mod outputs;
mod plan;
mod report;

use std::time::Instant;

use broker_config::{blobs::Blobs, ids::PoolId};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    client::{Client, path},
    exit_codes::{FAILED, Failure, INTERRUPTED, OK},
    output::Output,
    session::Session,
    settings::ServerArgs,
    work,
};

use self::{
    inputs::{Input, Source},
    outputs::Target,
    plan::{Item, Plan},
    report::{Outcome, Report},
};

/// Files on their way to or from the bucket at the same time.
const TRANSFERS_MAX: usize = 8;
/// Inputs that are uploaded before their tasks are added.
const BATCH: usize = 64;

/// Runs one task for each input file
#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The pool; `default` is made on first use and follows its queue
    #[arg(long, default_value = "default")]
    pool: PoolId,
    /// Files, folders, or s3://BUCKET/PREFIX
    #[arg(long = "in", value_name = "FILES|DIR|s3://", num_args = 1.., required = true)]
    inputs: Vec<String>,
    /// Where outputs go; without it each task's stdout is printed
    #[arg(long = "out", value_name = "DIR|s3://")]
    out: Option<String>,
    /// Tasks at the same time
    #[arg(short, value_name = "SLOTS", value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: Option<u32>,
    /// An output's name, made of {name}, {stem} and {ext} of its input
    #[arg(long, value_name = "TEMPLATE", default_value = "{name}")]
    name: String,
    /// Only inputs whose output is missing
    #[arg(long)]
    resume: bool,
    /// The command, with {in}, {out}, {name}, {stem} and {ext}; a single argument with spaces is given to a shell
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) async fn run(args: MapArgs, out: &dyn Output) -> anyhow::Result<u8> {
    if args.out.is_none() && (args.resume || args.command.iter().any(|word| word.contains("{out}"))) {
        return Err(Failure::usage("{out} and --resume need --out").into());
    }
    // Mistakes in the command line are told before anything is started.
    let local = inputs::local(&args.inputs)?;
    let session = Session::open(&args.server).await?;
    let result = run_in(&session, &args, local, out).await;
    session.close().await;
    result
}

async fn run_in(session: &Session, args: &MapArgs, mut inputs: Vec<Input>, out: &dyn Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let (blobs, bucket) = session.blobs()?;
    inputs.extend(inputs::remote(&args.inputs, &blobs).await?);
    let target = Target::parse(args.out.as_deref(), &blobs)?;
    let job = work::new_name("map");
    let plan = Plan { job, bucket, command: args.command.clone(), target };
    let mut items = plan.items(inputs, &args.name)?;
    let all = items.len();
    if args.resume {
        items = missing(&plan, &blobs, items).await?;
    }
    let skipped = all - items.len();
    let mut report = Report::new(skipped);
    let code = if items.is_empty() { OK } else { work_on(session, args, &plan, &blobs, &items, &mut report).await? };
    report.show(&items, started.elapsed(), out)?;
    Ok(if code == OK && report.failed() > 0 { FAILED } else { code })
}

async fn missing(plan: &Plan, blobs: &Blobs, items: Vec<Item>) -> anyhow::Result<Vec<Item>> {
    let look = |item: Item| async move { anyhow::Ok(if plan.target.has(blobs, &item).await? { None } else { Some(item) }) };
    let found: Vec<_> = stream::iter(items).map(look).buffered(TRANSFERS_MAX).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn work_on(session: &Session, args: &MapArgs, plan: &Plan, blobs: &Blobs, items: &[Item], report: &mut Report) -> anyhow::Result<u8> {
    let client = &session.client;
    if args.pool == "default".parse()? {
        work::ensure_pool(client, &args.pool, &work::default_pool(args.jobs)).await?;
    }
    work::create_job(client, &plan.job, &args.pool, args.jobs).await?;
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let bar = progress(items.len());
    let result = tokio::select! {
        done = async { tokio::try_join!(submit(client, plan, blobs, items), watch(client, plan, blobs, items, report, &bar)) } => done.map(|_| OK),
        _ = interrupts.recv() => Ok(INTERRUPTED),
        _ = terms.recv() => Ok(INTERRUPTED),
    };
    bar.finish_and_clear();
    client.delete(&path(&["jobs", &plan.job])).await?;
    blobs.delete_prefix(&plan.bucket, &plan.prefix()).await?;
    result
}

/// Uploads inputs and adds their tasks, some at a time, so that the first tasks start early.
async fn submit(client: &Client, plan: &Plan, blobs: &Blobs, items: &[Item]) -> anyhow::Result<()> {
    for some in items.chunks(BATCH) {
        let upload = |item: &Item| {
            let (source, key) = (item.source.clone(), plan.input_key(item));
            async move {
                match source {
                    Source::File(path) => blobs.upload_file(&plan.bucket, &key, &path).await.map(drop),
                    Source::Blob { .. } => Ok(()),
                }
            }
        };
        stream::iter(some.iter().map(upload).collect::<Vec<_>>()).buffer_unordered(TRANSFERS_MAX).try_collect::<Vec<()>>().await?;
        let mut tasks = Vec::with_capacity(some.len());
        for item in some {
            tasks.push(plan.task(item, blobs).await?);
        }
        work::add_tasks(client, &plan.job, tasks).await?;
    }
    Ok(())
}

/// Takes in what ends until nothing is left.
async fn watch(client: &Client, plan: &Plan, blobs: &Blobs, items: &[Item], report: &mut Report, bar: &ProgressBar) -> anyhow::Result<()> {
    while report.ended() < items.len() {
        let counts = work::counts(client, &plan.job).await?;
        bar.set_message(format!("{} running, {} failed", counts.running, report.failed()));
        if counts.completed as usize > report.ended() {
            let looked = Instant::now();
            let fresh: Vec<_> = work::completed(client, &plan.job).await?.into_iter().filter(|task| !report.knows(&task.id)).collect();
            let listing = looked.elapsed();
            let mut taken = stream::iter(fresh).map(|task| take_in(client, plan, blobs, items, task)).buffer_unordered(TRANSFERS_MAX);
            while let Some((id, outcome)) = taken.next().await {
                report.note(id, outcome);
                bar.inc(1);
            }
            // A long list is not asked for all the time.
            tokio::time::sleep(listing * 4).await;
        }
        tokio::time::sleep(work::LOOK_COUNTS).await;
    }
    Ok(())
}

async fn take_in(client: &Client, plan: &Plan, blobs: &Blobs, items: &[Item], task: work::Task) -> (String, Outcome) {
    let Ok(at) = items.binary_search_by(|item| item.id.as_str().cmp(&task.id)) else {
        return (task.id, Outcome::failed("a task that is not ours"));
    };
    let item = &items[at];
    let outcome = if task.has_succeeded() {
        plan.target.fetch(client, plan, blobs, item).await
    } else {
        Outcome::Failed { reason: task.reason(), stderr: report::stderr_end(client, &plan.job, &task.id).await }
    };
    (task.id, outcome)
}

fn progress(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style)
}
