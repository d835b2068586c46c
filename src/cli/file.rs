//! `piecework file …`.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::Subcommand;
use contract::ids::{JobId, TaskId};
use serde_json::Value;

use crate::{
    client::path,
    exit_codes::OK,
    output::{Column, Output, bytes},
    settings::ServerArgs,
    tail::Tail,
};

const COLUMNS: &[Column] =
    &[("FILE", "/name"), ("DIRECTORY", "/isDirectory"), ("BYTES", "/properties/contentLength"), ("MODIFIED", "/properties/lastModified")];

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// List a task's files
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
        /// Directories with what is in them
        #[arg(short, long)]
        recursive: bool,
    },
    /// Fetch a file of a task
    Download {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
        /// The file, such as stdout.txt or wd/result.csv
        file: String,
        /// Where to write it; `-` is stdout
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Delete a file of a task
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
        /// The file
        file: String,
    },
}

pub(crate) async fn run(command: FileCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        FileCommand::List { server, job, task, recursive } => {
            let query = [("recursive", if recursive { "true" } else { "false" })];
            let files: Vec<Value> =
                server.open()?.client.list(&path(&["jobs", job.as_str(), "tasks", task.as_str(), "files"]), &query).await?;
            out.list(COLUMNS, &files)?;
        }
        FileCommand::Download { server, job, task, file, output } => {
            let client = server.open()?.client;
            let mut tail = Tail::new(job.as_str(), task.as_str(), &file).must_exist();
            let mut to: Box<dyn Write> = if output.as_os_str() == "-" {
                Box::new(io::stdout())
            } else {
                Box::new(File::create(&output).with_context(|| format!("cannot write {}", output.display()))?)
            };
            let mut total = 0;
            loop {
                let more = tail.next(&client).await?;
                if more.is_empty() {
                    break;
                }
                total += more.len() as u64;
                to.write_all(&more)?;
            }
            to.flush()?;
            out.done(&format!("{file}: {}", bytes(total)))?;
        }
        FileCommand::Delete { server, job, task, file } => {
            server.open()?.client.delete(&path(&["jobs", job.as_str(), "tasks", task.as_str(), "files", &file])).await?;
            out.done(&format!("{file} deleted"))?;
        }
    }
    Ok(OK)
}
