//! `piecework run -- COMMAND`: one task, its output streamed, its exit code returned.

use std::io::{self, Write};

use clap::Args;
use contract::ids::PoolId;
use serde_json::json;

use crate::{
    client::{Client, ClientError, path},
    command_line,
    exit_codes::{FAILED, INTERRUPTED},
    interrupts::Interrupts,
    session::Session,
    settings::ServerArgs,
    tail::Tail,
    work::{self, Task},
};

const TASK: &str = "task";

/// Runs one command as a task, streams its output, and ends with its exit code
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The pool; `default` is made on first use, follows its queue, and stays for the next use
    #[arg(long, default_value = "default")]
    pool: PoolId,
    /// Keep the job afterwards
    #[arg(long)]
    keep: bool,
    /// Program and arguments; a single argument with spaces is given to a shell
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::listen()?;
    let Some(session) = Session::open(&args.server, &mut interrupts).await? else { return Ok(INTERRUPTED) };
    let job = work::new_name("run");
    let result = interrupts.unless(run_task(&session.client, &args, &job)).await;
    let cleaned = match args.keep {
        true => {
            eprintln!("job {job} is kept");
            Some(Ok(()))
        }
        false => interrupts.finish(|| format!("job {job}"), delete(&session.client, &job)).await,
    };
    session.close().await;
    let (Some(result), Some(cleaned)) = (result, cleaned) else { return Ok(INTERRUPTED) };
    let code = result?;
    cleaned?;
    Ok(code)
}

/// Deletes the job, which may not exist yet.
async fn delete(client: &Client, job: &str) -> Result<(), ClientError> {
    match client.delete(&path(&["jobs", job])).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

async fn run_task(client: &Client, args: &RunArgs, job: &str) -> anyhow::Result<u8> {
    if args.pool == "default".parse()? {
        work::ensure_pool(client, &args.pool, &work::default_pool(None)).await?;
    }
    work::create_job(client, job, &args.pool, None).await?;
    let body = json!({ "id": TASK, "commandLine": command_line::of(&args.command) });
    client.post(&path(&["jobs", job, "tasks"]), Some(&body)).await?;
    follow(client, job).await
}

async fn follow(client: &Client, job: &str) -> anyhow::Result<u8> {
    let (mut stdout, mut stderr) = (Tail::new(job, TASK, "stdout.txt"), Tail::new(job, TASK, "stderr.txt"));
    loop {
        let task: Task = client.get(&work::task_path(job, TASK), &[]).await?;
        let mut is_quiet = true;
        if task.state != "active" {
            for (tail, is_stderr) in [(&mut stdout, false), (&mut stderr, true)] {
                let more = tail.next(client).await?;
                is_quiet &= more.is_empty();
                let mut to: Box<dyn Write> = if is_stderr { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
                to.write_all(&more)?;
                to.flush()?;
            }
        }
        if is_quiet {
            if task.is_completed() {
                return Ok(end(&task));
            }
            tokio::time::sleep(work::POLL_PERIOD).await;
        }
    }
}

/// The task's own exit code, where a shell could have it.
fn end(task: &Task) -> u8 {
    match task.execution_info.exit_code {
        Some(code) if task.has_succeeded() || code != 0 => u8::try_from(code).unwrap_or(FAILED),
        _ if task.has_succeeded() => 0,
        _ => {
            eprintln!("error: {}", task.reason());
            FAILED
        }
    }
}
