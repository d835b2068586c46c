//! `piecework map`: one task for each input, the way people use GNU parallel.
//!
//! ```text
//! inputs ── upload ──► bucket/maps/JOB/in/N ──► task N on a node ──► bucket/maps/JOB/out/N ── download ──► --out
//! ```
//! Inputs and outputs in S3 are used where they are. Outputs arrive as their tasks end; what was finished is kept.

mod inputs;
mod item;
mod outputs;
mod plan;
mod report;
mod target;

use std::{cell::RefCell, time::Instant};

use clap::Args;
use clients::blobs::{BlobError, Blobs};
use contract::ids::PoolId;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    inputs::{Input, Source},
    item::Item,
    plan::Plan,
    report::{Outcome, Report},
    target::Target,
};
use crate::{
    client::{Client, path},
    exit_codes::{FAILED, Failure, INTERRUPTED, OK},
    interrupts::Interrupts,
    output::Output,
    session::Session,
    settings::ServerArgs,
    work,
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
    /// The pool; `default` is made on first use, follows its queue, and stays for the next use
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
    /// The result is what the command prints, even if that is nothing
    #[arg(long)]
    stdout: bool,
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
    if args.stdout && args.command.iter().any(|word| word.contains("{out}")) {
        return Err(Failure::usage("with --stdout the result is what the command prints; {out} names a file of its own").into());
    }
    plan::check(&args.command, args.out.is_some(), args.stdout)?;
    plan::check_name(&args.name)?;
    // Mistakes in the command line are reported before anything is started.
    let local = inputs::local(&args.inputs)?;
    let mut interrupts = Interrupts::listen()?;
    let Some(session) = Session::open(&args.server, &mut interrupts).await? else { return Ok(INTERRUPTED) };
    let result = run_in(&session, &args, local, &mut interrupts, out).await;
    session.close().await;
    result
}

async fn run_in(
    session: &Session,
    args: &MapArgs,
    inputs: Vec<Input>,
    interrupts: &mut Interrupts,
    out: &dyn Output,
) -> anyhow::Result<u8> {
    let started = Instant::now();
    let (blobs, bucket) = session.blobs()?;
    // Ctrl-C is handled also while the store is slow or silent.
    let Some(planned) = interrupts.unless(prepare(args, &blobs, bucket, inputs)).await else { return Ok(INTERRUPTED) };
    let Planned { plan, mut items, refused, skipped } = planned?;
    let mut report = Report::new(skipped);
    let code = if items.is_empty() { OK } else { work_on(session, args, &plan, &blobs, &items, (&mut report, interrupts)).await? };
    for (item, reason) in refused {
        report.note(item.id.clone(), Outcome::failed(reason));
        items.push(item);
    }
    report.show(&items, started.elapsed(), out)?;
    Ok(if code == OK && report.failed() > 0 { FAILED } else { code })
}

/// The work of this `map`, before anything is made.
struct Planned {
    plan: Plan,
    items: Vec<Item>,
    /// Items that cannot be processed, with the reason.
    refused: Vec<(Item, String)>,
    /// Items whose output exists already.
    skipped: usize,
}

async fn prepare(args: &MapArgs, blobs: &Blobs, bucket: String, mut inputs: Vec<Input>) -> anyhow::Result<Planned> {
    inputs.extend(inputs::remote(&args.inputs, blobs).await?);
    let target = Target::parse(args.out.as_deref(), blobs)?;
    let job = work::new_name("map");
    let plan = Plan { job, bucket, command: args.command.clone(), target, keeps_stdout: args.stdout };
    let (mut items, refused) = plan.items(inputs, &args.name)?;
    let sources = items.iter().chain(refused.iter().map(|(item, _)| item)).map(|item| &item.source);
    plan.target.spare(sources, &items)?;
    let all = items.len();
    if args.resume {
        items = missing(&plan, blobs, items).await?;
    }
    let skipped = all - items.len();
    Ok(Planned { plan, items, refused, skipped })
}

async fn missing(plan: &Plan, blobs: &Blobs, items: Vec<Item>) -> anyhow::Result<Vec<Item>> {
    let look = |item: Item| async move { anyhow::Ok(if plan.target.has(blobs, &item).await? { None } else { Some(item) }) };
    let found: Vec<_> = stream::iter(items).map(look).buffered(TRANSFERS_MAX).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn work_on(
    session: &Session,
    args: &MapArgs,
    plan: &Plan,
    blobs: &Blobs,
    items: &[Item],
    (report, interrupts): (&mut Report, &mut Interrupts),
) -> anyhow::Result<u8> {
    let client = &session.client;
    let bar = progress(items.len());
    let refused = Refused::default();
    let work = async {
        if args.pool == "default".parse()? {
            work::ensure_pool(client, &args.pool, &work::default_pool(args.jobs)).await?;
        }
        work::create_job(client, &plan.job, &args.pool, args.jobs).await?;
        tokio::try_join!(submit(client, plan, blobs, items, &refused), watch(client, plan, blobs, items, &refused, (report, &bar)))
    };
    let result = interrupts.unless(work).await;
    bar.finish_and_clear();
    let made = || format!("job {}, and blobs below s3://{}/{}", plan.job, plan.bucket, plan.prefix());
    let cleaned = interrupts.finish(made, clean_up(client, plan, blobs)).await;
    match (result, cleaned) {
        (Some(Err(error)), _) => Err(error),
        (None, _) | (_, None) => Ok(INTERRUPTED),
        (Some(Ok(_)), Some(cleaned)) => cleaned.map(|()| OK),
    }
}

/// Removes the job first, so that none of its tasks writes any more, and then the blobs of this map.
async fn clean_up(client: &Client, plan: &Plan, blobs: &Blobs) -> anyhow::Result<()> {
    let job = work::remove(client, &path(&["jobs", &plan.job])).await;
    blobs.delete_prefix(&plan.bucket, &plan.prefix()).await?;
    Ok(job?)
}

/// Items that became no task, with the reason; `submit` adds them and `watch` takes them.
type Refused = RefCell<Vec<(String, String)>>;

/// Uploads inputs and adds their tasks, some at a time, so that the first tasks start early.
async fn submit(client: &Client, plan: &Plan, blobs: &Blobs, items: &[Item], refused: &Refused) -> anyhow::Result<()> {
    let refuse = |item: &Item, error: BlobError| {
        let is_of_the_store = matches!(error, BlobError::NoBucket { .. } | BlobError::Denied { .. }) || error.is_transient();
        if is_of_the_store {
            return Err(error);
        }
        refused.borrow_mut().push((item.id.clone(), format!("{:#}", anyhow::Error::new(error))));
        Ok(())
    };
    for some in items.chunks(BATCH) {
        let prepare = |item: &Item| {
            let (item, key) = (item.clone(), plan.input_key(item));
            async move {
                let uploaded = match &item.source {
                    Source::File(path) => blobs.upload_file(&plan.bucket, &key, path).await.map(drop),
                    Source::Blob { .. } => Ok(()),
                };
                let task = match uploaded {
                    Ok(()) => plan.task(&item, blobs).await,
                    Err(error) => Err(error),
                };
                (item, task)
            }
        };
        let mut prepared = stream::iter(some.iter().map(prepare).collect::<Vec<_>>()).buffer_unordered(TRANSFERS_MAX);
        let mut tasks = Vec::with_capacity(some.len());
        while let Some((item, task)) = prepared.next().await {
            match task {
                Ok(task) => tasks.push(task),
                Err(error) => refuse(&item, error)?,
            }
        }
        let unwanted = work::offer_tasks(client, &plan.job, tasks).await?;
        refused.borrow_mut().extend(unwanted.into_iter().map(|task| (task.id, task.reason)));
    }
    Ok(())
}

/// Handles tasks as they end, until none is left.
async fn watch(
    client: &Client,
    plan: &Plan,
    blobs: &Blobs,
    items: &[Item],
    refused: &Refused,
    (report, bar): (&mut Report, &ProgressBar),
) -> anyhow::Result<()> {
    let mut not_added = 0;
    while report.ended() < items.len() {
        for (id, reason) in refused.take() {
            report.note(id, Outcome::failed(reason));
            bar.inc(1);
            not_added += 1;
        }
        let counts = work::counts(client, &plan.job).await?;
        bar.set_message(format!("{} running, {} failed", counts.running, report.failed()));
        if counts.completed as usize + not_added > report.ended() {
            let looked = Instant::now();
            let fresh: Vec<_> = work::completed(client, &plan.job).await?.into_iter().filter(|task| !report.knows(&task.id)).collect();
            let listing = looked.elapsed();
            let mut taken = stream::iter(fresh).map(|task| take_in(client, plan, blobs, items, task)).buffer_unordered(TRANSFERS_MAX);
            while let Some((id, outcome)) = taken.next().await {
                report.note(id, outcome);
                bar.inc(1);
            }
            // A long list is requested less often.
            tokio::time::sleep(listing * 4).await;
        }
        tokio::time::sleep(work::COUNTS_POLL_PERIOD).await;
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
