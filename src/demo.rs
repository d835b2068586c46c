//! `piecework demo`: a picture rendered in tiles on a pool that grows from nothing and shrinks back to it.
//!
//! ```text
//! scenes ► bucket ► tile tasks on 0..N nodes ► bucket ► merge task, when all tiles are there ► bucket ► ./piecework-demo.png
//! ```

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use clients::blobs::Blobs;
use contract::ids::PoolId;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, path},
    command_line,
    exit_codes::{FAILED, Failure, INTERRUPTED, OK},
    interrupts::Interrupts,
    output::{Output, bytes, is_terminal},
    percentiles::{Percentiles, queue_wait_ms},
    session::Session,
    stack::StackSettings,
    tracer::Job,
    work::{self, Counts, PoolShape},
};

const POOL: &str = "demo";
const JOB: &str = "picture";
const PICTURE: &str = "piecework-demo.png";
/// A build without optimisations renders with fewer paths for each pixel.
const SAMPLES: u32 = if cfg!(debug_assertions) { 8 } else { 256 };
/// A node without work is removed after this long, so that the pool is seen to shrink.
const IDLE_MS: u64 = 1_000;
/// Longest wait until all nodes are removed.
const SHRINK_MAX: Duration = Duration::from_secs(15);

/// Renders a picture on a stack of its own and shows how that goes
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The folder that gets the picture
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Paths for each pixel
    #[arg(long, default_value_t = SAMPLES, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Tiles in a row, and in a column
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=32))]
    tiles: u32,
    /// Nodes at most; one for each processor when absent
    #[arg(long)]
    nodes: Option<u32>,
}

pub(crate) async fn run(args: DemoArgs, out: &dyn Output) -> anyhow::Result<u8> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let started = Instant::now();
    eprintln!("starting broker, blob store, dispatcher and autoscaler in a temporary folder");
    let mut interrupts = Interrupts::listen()?;
    let Some(session) = Session::start(StackSettings::default(), &mut interrupts).await? else { return Ok(INTERRUPTED) };
    eprintln!("ready after {:.1} s at {}", started.elapsed().as_secs_f64(), session.client.url());
    let result = interrupts.unless(paint(&session, &args, out)).await.unwrap_or(Ok(INTERRUPTED));
    session.close().await;
    result
}

async fn paint(session: &Session, args: &DemoArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let client = &session.client;
    let (blobs, bucket) = session.blobs()?;
    let scene = Job { width: 960, height: 600, samples: args.samples, tiles: args.tiles, tile: 0 };
    let tiles = args.tiles * args.tiles;
    let mut moved = 0;
    for tile in 0..tiles {
        let text = serde_json::to_vec(&Job { tile, ..scene })?;
        moved += text.len() as u64;
        blobs.put(&bucket, &format!("scenes/{}.json", tile_name(tile)), text.into()).await?;
    }

    let started = Instant::now();
    let pool: PoolId = POOL.parse()?;
    let nodes = args.nodes.unwrap_or_else(work::processors).clamp(1, 16);
    work::create_pool(client, &pool, &PoolShape { slots: 1, nodes: 0, policy: Some(work::policy(0, nodes, IDLE_MS)) }).await?;
    work::create_job(client, JOB, &pool, None).await?;
    work::add_tasks(client, JOB, tasks(&bucket, tiles)?).await?;
    let show = Show::new(u64::from(tiles) + 1);
    let counts = show.follow(client, &pool).await?;
    let wall = started.elapsed();
    if counts.failed > 0 {
        show.bar.finish_and_clear();
        return failed(client).await;
    }

    let picture = args.out.join(PICTURE);
    moved += blobs.download_file(&bucket, &format!("picture/{PICTURE}"), &picture).await?;
    show.shrink(client, &pool).await?;
    show.bar.finish_and_clear();
    moved += size_below(&blobs, &bucket, "tiles/").await?;
    let picture = std::fs::canonicalize(&picture)?;
    figures(client, out, &picture, wall, moved, show.most_nodes.get()).await?;
    Ok(OK)
}

fn tile_name(tile: u32) -> String {
    format!("tile-{tile:04}")
}

/// Tasks of the demo: one for each tile, and one that merges them when all have succeeded.
fn tasks(bucket: &str, tiles: u32) -> anyhow::Result<Vec<Value>> {
    let program = std::env::current_exe().context("this executable cannot be found")?;
    let program = program.to_str().context("this executable's path is not UTF-8")?.to_owned();
    let line = |words: &[&str]| {
        let words: Vec<String> = std::iter::once(program.as_str()).chain(words.iter().copied()).map(str::to_owned).collect();
        command_line::of(&words)
    };
    let output = |pattern: &str, folder: &str| {
        json!([{
            "filePattern": pattern,
            "destination": { "container": { "containerUrl": format!("s3://{bucket}/{folder}"), "path": pattern } },
            "uploadOptions": { "uploadCondition": "tasksuccess" },
        }])
    };
    let scene = |name: &str| json!({ "storageContainerUrl": format!("s3://{bucket}/scenes"), "blobPrefix": name });
    let names: Vec<String> = (0..tiles).map(tile_name).collect();
    let mut all: Vec<Value> = names
        .iter()
        .map(|name| {
            let (job, pixels) = (format!("{name}.json"), format!("{name}.rgb"));
            json!({
                "id": name,
                "commandLine": line(&["trace-tile", &job, &pixels]),
                "resourceFiles": [scene(&job)],
                "outputFiles": output(&pixels, "tiles"),
            })
        })
        .collect();
    let (job, pixels): (String, Vec<String>) =
        (format!("{}.json", tile_name(0)), names.iter().map(|name| format!("tiles/{name}.rgb")).collect());
    let mut words = vec!["trace-merge", &job, PICTURE];
    words.extend(pixels.iter().map(String::as_str));
    all.push(json!({
        "id": "merge",
        "commandLine": line(&words),
        "resourceFiles": [scene(&job), { "storageContainerUrl": format!("s3://{bucket}/tiles"), "filePath": "tiles" }],
        "outputFiles": output(PICTURE, "picture"),
        "dependsOn": { "taskIds": names },
    }));
    Ok(all)
}

#[derive(Deserialize)]
struct Node {
    state: String,
}

/// The live view: a bar on a terminal, otherwise a line for each change.
struct Show {
    bar: ProgressBar,
    tasks: u64,
    most_nodes: std::cell::Cell<usize>,
    last: std::cell::RefCell<String>,
}

impl Show {
    fn new(tasks: u64) -> Show {
        let bar = if is_terminal() { ProgressBar::new(tasks) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:32.cyan} {pos}/{len} tasks  {msg}  {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Show { bar: bar.with_style(style), tasks, most_nodes: 0.into(), last: String::new().into() }
    }

    async fn follow(&self, client: &Client, pool: &PoolId) -> anyhow::Result<Counts> {
        loop {
            let counts = work::counts(client, JOB).await?;
            self.draw(client, pool, &counts).await?;
            if counts.completed >= self.tasks {
                return Ok(counts);
            }
            tokio::time::sleep(work::COUNTS_POLL_PERIOD).await;
        }
    }

    /// Waits until the pool is empty again.
    async fn shrink(&self, client: &Client, pool: &PoolId) -> anyhow::Result<()> {
        let until = Instant::now() + SHRINK_MAX;
        while self.draw(client, pool, &work::counts(client, JOB).await?).await? > 0 {
            if Instant::now() > until {
                tracing::warn!("the pool still has nodes after {SHRINK_MAX:?}; ending the demo with them");
                break;
            }
            tokio::time::sleep(work::COUNTS_POLL_PERIOD).await;
        }
        Ok(())
    }

    async fn draw(&self, client: &Client, pool: &PoolId, counts: &Counts) -> anyhow::Result<usize> {
        let nodes: Vec<Node> = client.list(&path(&["pools", pool.as_str(), "nodes"]), &[("$select", "id,state")]).await?;
        let of = |states: &[&str]| nodes.iter().filter(|node| states.contains(&node.state.as_str())).count();
        let (work, idle) = (of(&["running"]), of(&["idle"]));
        let booting = of(&["creating", "starting", "waitingforstarttask"]);
        let leaving = nodes.len() - work - idle - booting;
        self.most_nodes.set(self.most_nodes.get().max(nodes.len()));
        let text = format!(
            "{} waiting, {} running, {} done   nodes: {} ({booting} booting, {work} busy, {idle} idle, {leaving} leaving)",
            counts.active,
            counts.running,
            counts.completed,
            nodes.len()
        );
        self.bar.set_position(counts.completed);
        self.bar.set_message(text.clone());
        if self.bar.is_hidden() && *self.last.borrow() != text {
            eprintln!("{text}");
            self.last.replace(text);
        }
        Ok(nodes.len())
    }
}

async fn failed(client: &Client) -> anyhow::Result<u8> {
    for task in work::completed(client, JOB).await?.iter().filter(|task| !task.has_succeeded()) {
        eprintln!("{}: {}", task.id, task.reason());
    }
    Err(Failure::new(FAILED, "some tiles could not be rendered", "run with --log info to see what the parts say").into())
}

async fn size_below(blobs: &Blobs, bucket: &str, prefix: &str) -> anyhow::Result<u64> {
    Ok(blobs.list(bucket, prefix, None, 10_000).await?.blobs.iter().map(|blob| blob.length).sum())
}

async fn figures(client: &Client, out: &dyn Output, picture: &Path, wall: Duration, moved: u64, nodes: usize) -> anyhow::Result<()> {
    let tasks = work::completed(client, JOB).await?;
    // The merge task waits for the tiles, not for a slot, so it is not counted.
    let waits = Percentiles::of(tasks.iter().filter(|task| task.id != "merge").filter_map(queue_wait_ms));
    let rows = [
        ("picture", picture.display().to_string()),
        ("tasks", tasks.len().to_string()),
        ("nodes, at most", nodes.to_string()),
        ("wall time", format!("{:.1} s", wall.as_secs_f64())),
        ("queue wait p50", format!("{:.1} s", waits.at(50.0) / 1000.0)),
        ("queue wait p99", format!("{:.1} s", waits.at(99.0) / 1000.0)),
        ("moved through blobs", bytes(moved)),
    ];
    let rows: Vec<Value> = rows.iter().map(|(name, value)| json!({ "figure": name, "value": value })).collect();
    out.list(&[("FIGURE", "/figure"), ("VALUE", "/value")], &rows)?;
    Ok(())
}
