//! `piecework dead …`: messages that were refused, or failed for good.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Client, path},
    exit_codes::{FAILED, Failure, OK},
    output::{Column, Output},
    settings::ServerArgs,
};

const COLUMNS: &[Column] = &[
    ("DEAD LETTER", "/id"),
    ("KIND", "/kind"),
    ("POOL", "/poolId"),
    ("FUNCTION", "/function"),
    ("REASON", "/reason"),
    ("TIME", "/time"),
    ("MESSAGE ID", "/messageId"),
    ("BYTES", "/bytes"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, from the oldest
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: Filter,
        /// How many, up to 1,000
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        count: u16,
    },
    /// Show a dead letter with its body
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Its name in the list
        letter: String,
    },
    /// Publish dead letters again where they first came from
    ///
    /// Each keeps its message id, body and properties and begins with its first attempt. It leaves the dead letters once
    /// the broker has the new message.
    Replay(Chosen),
    /// Remove dead letters for good
    Discard(Chosen),
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Those for this pool
    #[arg(long)]
    pool: Option<String>,
    /// Invocations of this function
    #[arg(long)]
    function: Option<String>,
    /// Those with this code, such as FunctionTimedOut or expired
    #[arg(long)]
    reason: Option<String>,
    /// submission, function or other
    #[arg(long)]
    kind: Option<String>,
    /// Those that died this long ago or longer, such as PT1H
    #[arg(long, value_name = "PERIOD")]
    older_than: Option<String>,
    /// Those that died later than this long ago
    #[arg(long, value_name = "PERIOD")]
    newer_than: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Chosen {
    #[command(flatten)]
    server: ServerArgs,
    /// One by its name in the list, instead of a filter
    letter: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Filter {
    fn query(&self) -> Vec<(&str, &str)> {
        let given = [
            ("pool", &self.pool),
            ("function", &self.function),
            ("reason", &self.reason),
            ("kind", &self.kind),
            ("olderthan", &self.older_than),
            ("newerthan", &self.newer_than),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

pub(crate) async fn run(command: DeadCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        DeadCommand::List { server, filter, count } => {
            let count = count.to_string();
            let query = [filter.query(), vec![("count", count.as_str())]].concat();
            let listed: Value = server.open()?.client.get("/piecework/dead", &query).await?;
            out.list(COLUMNS, listed["value"].as_array().map_or(&[], Vec::as_slice))?;
            if let Some(left) = listed["left"].as_u64().filter(|left| *left > 0) {
                out.done(&format!("{left} more lie behind these and were not looked at"))?;
            }
            Ok(OK)
        }
        DeadCommand::Show { server, letter } => {
            out.one(&server.open()?.client.get(&path(&["piecework", "dead", &letter]), &[]).await?)?;
            Ok(OK)
        }
        DeadCommand::Replay(chosen) => replay(&chosen, out).await,
        DeadCommand::Discard(chosen) => discard(&chosen, out).await,
    }
}

async fn replay(chosen: &Chosen, out: &dyn Output) -> anyhow::Result<u8> {
    let client = chosen.server.open()?.client;
    let (replayed, unreplayed) = match chosen.letter()? {
        Some(letter) => {
            let answer = client.post(&path(&["piecework", "dead", letter, "replay"]), None).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            (answer["replayed"].as_u64().unwrap_or_default(), told(&answer))
        }
        None => repeat(&client, "replay", chosen, "replayed").await?,
    };
    out.done(&format!("{replayed} replayed, {} not", unreplayed.len()))?;
    for letter in &unreplayed {
        out.done(&format!("  {}: {}", letter["id"].as_str().unwrap_or_default(), letter["reason"].as_str().unwrap_or_default()))?;
    }
    let is_whole = unreplayed.is_empty();
    out.summary(&json!({"replayed": replayed, "unreplayed": unreplayed}))?;
    Ok(if is_whole { OK } else { FAILED })
}

async fn discard(chosen: &Chosen, out: &dyn Output) -> anyhow::Result<u8> {
    let client = chosen.server.open()?.client;
    let discarded = match chosen.letter()? {
        Some(letter) => client.delete(&path(&["piecework", "dead", letter])).await.map(|()| 1)?,
        None => repeat(&client, "discard", chosen, "discarded").await?.0,
    };
    out.done(&format!("{discarded} discarded"))?;
    out.summary(&json!({"discarded": discarded}))?;
    Ok(OK)
}

fn told(answer: &Value) -> Vec<Value> {
    answer["unreplayed"].as_array().cloned().unwrap_or_default()
}

impl Chosen {
    /// The one that was named; nothing when a filter is meant.
    fn letter(&self) -> Result<Option<&str>, Failure> {
        match (&self.letter, self.filter.query().is_empty(), self.all) {
            (Some(letter), true, false) => Ok(Some(letter)),
            (None, false, false) | (None, true, true) => Ok(None),
            _ => Err(Failure::usage("name one dead letter, or filters, or --all".to_owned())),
        }
    }
}

/// Repeats an operation until the dead letters that there were at first have been looked at: each request has a bound.
async fn repeat(client: &Client, what: &str, chosen: &Chosen, count: &str) -> anyhow::Result<(u64, Vec<Value>)> {
    let mut query = chosen.filter.query();
    if chosen.all {
        query.push(("all", "true"));
    }
    let target = format!("/piecework/dead/{what}");
    let (mut done, mut unreplayed, mut at_first) = (0, Vec::new(), None);
    loop {
        let answer: Value = serde_json::from_slice(&client.post_with(&target, &query).await?)?;
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        done += number(count);
        unreplayed = if unreplayed.is_empty() { told(&answer) } else { unreplayed };
        // What was replayed and failed again lies at the end, and is not meant.
        let at_first = *at_first.get_or_insert(number("looked") + number("left"));
        if number("left") == 0 || number(count) == 0 || done >= at_first {
            return Ok((done, unreplayed));
        }
    }
}
