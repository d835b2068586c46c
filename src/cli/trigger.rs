//! `piecework trigger …`: rules that start work when objects or messages come.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use contract::ids::{FunctionId, JobId, PoolId, TriggerId};
use serde_json::{Map, Value, json};

use crate::{
    client::path,
    exit_codes::{Failure, OK},
    output::{Column, Output},
    settings::ServerArgs,
};

const COLUMNS: &[Column] = &[
    ("TRIGGER", "/id"),
    ("STATE", "/state"),
    ("BUCKET", "/bucket/name"),
    ("EXCHANGE", "/exchange/name"),
    ("SCHEDULE", "/schedule/expression"),
    ("FUNCTION", "/function/id"),
    ("FIRED", "/eventsFired"),
    ("FAILED", "/eventsFailed"),
    ("LAST EVENT", "/lastEventTime"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerCommand {
    /// Add a trigger
    ///
    /// It watches a bucket, follows an exchange, has a schedule or is a webhook, and starts a function or a task of a pool.
    Add(Box<AddArgs>),
    /// List triggers
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a trigger and what became of its events
    Show(Named),
    /// Leave events where they wait
    Pause(Named),
    /// End a pause
    Resume(Named),
    /// List the bucket of a trigger now, or let its schedule be due now
    Run(Named),
    /// Delete a trigger with the events that wait
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    server: ServerArgs,
    /// Its name
    trigger: TriggerId,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["bucket", "exchange", "cron", "webhook"])))]
#[command(group(ArgGroup::new("target").required(true).args(["function", "task"])))]
pub(crate) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Its name
    trigger: TriggerId,
    /// Watch the objects of this bucket
    #[arg(long)]
    bucket: Option<String>,
    /// Only keys that begin with it
    #[arg(long, requires = "bucket")]
    prefix: Option<String>,
    /// Only keys that end with it
    #[arg(long, requires = "bucket")]
    suffix: Option<String>,
    /// Only objects of at least so many bytes
    #[arg(long, requires = "bucket")]
    min_bytes: Option<u64>,
    /// Only objects of at most so many bytes
    #[arg(long, requires = "bucket")]
    max_bytes: Option<u64>,
    /// The exchange to which the bucket's store sends its events
    #[arg(long, requires = "bucket", value_name = "EXCHANGE")]
    events: Option<String>,
    /// Time between two listings of the bucket, such as PT15M; PT0S lists on request alone
    #[arg(long, requires = "bucket", value_name = "PERIOD")]
    listing: Option<String>,
    /// Objects that are there already count, too
    #[arg(long, requires = "bucket")]
    include_existing: bool,
    /// Follow the messages of this exchange
    #[arg(long)]
    exchange: Option<String>,
    /// The routing key of the events
    #[arg(long)]
    pattern: Option<String>,
    /// A placeholder and where in a JSON body its value is, such as file=$.data.path; may be given several times
    #[arg(long = "value", value_name = "NAME=PATH", requires = "exchange")]
    values: Vec<String>,
    /// Start when this is due: minute, hour, day, month, day of the week
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// The time zone of the expression, such as Europe/Berlin; UTC when left out
    #[arg(long, requires = "cron")]
    zone: Option<String>,
    /// Start with requests that are signed; the secret is shown this once
    #[arg(long)]
    webhook: bool,
    #[arg(long)]
    pool: PoolId,
    /// Invoke this function
    #[arg(long)]
    function: Option<FunctionId>,
    /// Add a task made from this template, a JSON file
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// The job of the tasks; the pool's standing job when left out
    #[arg(long, requires = "task")]
    job: Option<JobId>,
    /// Events of one invocation, or tasks of one submission, at most
    #[arg(long, value_name = "COUNT")]
    batch: Option<u32>,
    /// Time that an event waits for others of its batch, such as PT1S
    #[arg(long, value_name = "PERIOD")]
    batch_time: Option<String>,
}

impl Named {
    async fn act(&self, verb: &str, done: &str, out: &dyn Output) -> anyhow::Result<()> {
        let at = path(&["piecework", "triggers", self.trigger.as_str(), verb]);
        let answer: Value = serde_json::from_slice(&self.server.open()?.client.post(&at, None).await?)?;
        out.done(&format!("trigger {} {done}", self.trigger))?;
        out.summary(&answer)?;
        Ok(())
    }
}

pub(crate) async fn run(command: TriggerCommand, out: &dyn Output) -> anyhow::Result<u8> {
    let at = |named: &Named| path(&["piecework", "triggers", named.trigger.as_str()]);
    match command {
        TriggerCommand::Add(args) => {
            let body = body(&args)?;
            let answer: Value = serde_json::from_slice(&args.server.open()?.client.post("/piecework/triggers", Some(&body)).await?)?;
            out.done(&format!("trigger {} added", args.trigger))?;
            if let Some(warning) = answer.pointer("/lastError/message").and_then(Value::as_str) {
                out.done(warning)?;
            }
            if let Some(secret) = answer.pointer("/webhook/secret").and_then(Value::as_str) {
                out.done(&format!("requests go to {}", answer["webhook"]["url"].as_str().unwrap_or_default()))?;
                out.ready(secret, &answer)?;
                return Ok(OK);
            }
            out.summary(&answer)?;
        }
        TriggerCommand::List { server } => out.list(COLUMNS, &server.open()?.client.list::<Value>("/piecework/triggers", &[]).await?)?,
        TriggerCommand::Show(named) => out.one(&named.server.open()?.client.get(&at(&named), &[]).await?)?,
        TriggerCommand::Pause(named) => named.act("pause", "paused", out).await?,
        TriggerCommand::Resume(named) => named.act("resume", "resumed", out).await?,
        TriggerCommand::Run(named) => named.act("run", "runs", out).await?,
        TriggerCommand::Delete(named) => {
            named.server.open()?.client.delete(&at(&named)).await?;
            out.done(&format!("trigger {} deleted", named.trigger))?;
        }
    }
    Ok(OK)
}

fn body(args: &AddArgs) -> anyhow::Result<Value> {
    let mut body = Map::new();
    body.insert("id".to_owned(), args.trigger.as_str().into());
    let given = |pairs: Vec<(&str, Option<Value>)>| {
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect())
    };
    let text = |value: &Option<String>| value.clone().map(Value::from);
    if let Some(name) = &args.bucket {
        let bucket = given(vec![
            ("name", Some(name.as_str().into())),
            ("prefix", text(&args.prefix)),
            ("suffix", text(&args.suffix)),
            ("minBytes", args.min_bytes.map(Value::from)),
            ("maxBytes", args.max_bytes.map(Value::from)),
            ("exchange", text(&args.events)),
            ("pattern", text(&args.pattern)),
            ("listingInterval", text(&args.listing)),
            ("includeExisting", args.include_existing.then_some(Value::Bool(true))),
        ]);
        body.insert("bucket".to_owned(), bucket);
    }
    if let Some(name) = &args.exchange {
        let mut values = Map::new();
        for value in &args.values {
            let (name, path) = value.split_once('=').ok_or_else(|| Failure::usage(format!("--value {value} is not NAME=PATH")))?;
            values.insert(name.to_owned(), path.into());
        }
        let values = (!values.is_empty()).then_some(Value::Object(values));
        let exchange = given(vec![("name", Some(name.as_str().into())), ("pattern", text(&args.pattern)), ("values", values)]);
        body.insert("exchange".to_owned(), exchange);
    }
    if let Some(expression) = &args.cron {
        body.insert("schedule".to_owned(), given(vec![("expression", Some(expression.as_str().into())), ("timeZone", text(&args.zone))]));
    }
    if args.webhook {
        body.insert("webhook".to_owned(), json!({}));
    }
    if let Some(function) = &args.function {
        body.insert("function".to_owned(), json!({"poolId": args.pool, "id": function}));
    }
    if let Some(file) = &args.task {
        let shown = file.display();
        let template = std::fs::read(file).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
        let template: Value = serde_json::from_slice(&template).map_err(|error| Failure::usage(format!("{shown} is not JSON: {error}")))?;
        let job = args.job.as_ref().map(|job| job.as_str().into());
        body.insert(
            "task".to_owned(),
            given(vec![("poolId", Some(args.pool.as_str().into())), ("jobId", job), ("template", Some(template))]),
        );
    }
    if let Some(batch) = args.batch {
        body.insert("batchSize".to_owned(), batch.into());
    }
    if let Some(time) = &args.batch_time {
        body.insert("batchTime".to_owned(), time.as_str().into());
    }
    Ok(Value::Object(body))
}
