//! `piecework queue …`: messages that wait in the broker, embedded or not.

use clap::Subcommand;
use serde_json::Value;

use crate::{
    client::path,
    exit_codes::OK,
    output::{Column, Output},
    settings::ServerArgs,
};

const COLUMNS: &[Column] =
    &[("QUEUE", "/name"), ("ROLE", "/role"), ("POOL", "/poolId"), ("MESSAGES", "/messages"), ("CONSUMERS", "/consumers")];

const MESSAGE_COLUMNS: &[Column] = &[
    ("#", "/position"),
    ("ID", "/messageId"),
    ("EXCHANGE", "/exchange"),
    ("KEY", "/routingKey"),
    ("TYPE", "/contentType"),
    ("BYTES", "/bytes"),
    ("REDELIVERED", "/redelivered"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List queues with what waits in them
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one queue
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the queue
        queue: String,
    },
    /// Look at the first messages; they stay, but count as redelivered from then on
    Peek {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the queue
        queue: String,
        /// How many messages, up to 100
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
        count: u8,
    },
    /// Remove all messages that wait
    ///
    /// Tasks are safe: the dispatcher releases them again within about a minute. What other programs published is gone.
    Purge {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the queue
        queue: String,
    },
}

pub(crate) async fn run(command: QueueCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        QueueCommand::List { server } => {
            out.list(COLUMNS, &server.open()?.client.list::<Value>("/piecework/queues", &[]).await?)?;
        }
        QueueCommand::Show { server, queue } => {
            out.one(&server.open()?.client.get(&path(&["piecework", "queues", &queue]), &[]).await?)?;
        }
        QueueCommand::Peek { server, queue, count } => {
            let messages = path(&["piecework", "queues", &queue, "messages"]);
            let count = count.to_string();
            out.list(MESSAGE_COLUMNS, &server.open()?.client.list::<Value>(&messages, &[("count", &count)]).await?)?;
        }
        QueueCommand::Purge { server, queue } => {
            let answer = server.open()?.client.post(&path(&["piecework", "queues", &queue, "purge"]), None).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            out.done(&format!("{} messages removed from {queue}", answer["purged"]))?;
            out.summary(&answer)?;
        }
    }
    Ok(OK)
}
