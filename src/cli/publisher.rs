//! `piecework publisher …`: users of the broker that may add work to a pool and read their own answers.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    client::path,
    exit_codes::OK,
    output::{Column, Output},
    settings::ServerArgs,
};

const COLUMNS: &[Column] =
    &[("PUBLISHER", "/name"), ("POOL", "/poolId"), ("SUBMIT", "/submit"), ("FUNCTIONS", "/functions"), ("ANSWERS", "/answers")];

#[derive(Debug, Subcommand)]
pub(crate) enum PublisherCommand {
    /// Add a publisher and print its URL, which is shown this once
    ///
    /// It may publish to piecework.submit and piecework.invoke with the pool as routing key, and declare and read queues
    /// whose names begin with piecework.answers.NAME.
    Add {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the publisher and of its user at the broker
        name: String,
        /// The pool that it publishes for
        #[arg(long)]
        pool: String,
        /// Allow the publisher to add tasks
        #[arg(long, required_unless_present = "invoke")]
        submit: bool,
        /// Allow the publisher to invoke this function; may be given several times
        #[arg(long, value_name = "FUNCTION")]
        invoke: Vec<String>,
    },
    /// List publishers
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a publisher and close its connections
    Remove {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the publisher
        name: String,
    },
}

pub(crate) async fn run(command: PublisherCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        PublisherCommand::Add { server, name, pool, submit, invoke } => {
            let body = json!({"name": name, "poolId": pool, "submit": submit, "functions": invoke});
            let answer = server.open()?.client.post("/piecework/publishers", Some(&body)).await?;
            let added: Value = serde_json::from_slice(&answer)?;
            out.done(&format!("its queues for answers begin with {}", added["answers"].as_str().unwrap_or_default()))?;
            to_run(&added, out)?;
            out.ready(added["url"].as_str().unwrap_or_default(), &added)?;
        }
        PublisherCommand::List { server } => {
            out.list(COLUMNS, &server.open()?.client.list::<Value>("/piecework/publishers", &[]).await?)?;
        }
        PublisherCommand::Remove { server, name } => {
            let answer = server.open()?.client.delete_for(&path(&["piecework", "publishers", &name])).await?;
            let removed: Value = serde_json::from_slice(&answer)?;
            if to_run(&removed, out)? == 0 {
                out.done(&format!("{name} is removed, and its connections are closed"))?;
            }
            out.summary(&removed)?;
        }
    }
    Ok(OK)
}

/// Shows the commands that the broker's administrator must run; how many there are.
fn to_run(answer: &Value, out: &dyn Output) -> anyhow::Result<usize> {
    let commands: Vec<&str> = answer["commands"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !commands.is_empty() {
        out.done("the server has no administrator's URL of this broker, so run these where the broker runs:")?;
    }
    for command in &commands {
        out.done(&format!("  {command}"))?;
    }
    Ok(commands.len())
}
