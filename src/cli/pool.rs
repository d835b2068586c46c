//! `piecework pool …`.

use clap::{Args, Subcommand};
use contract::ids::PoolId;
use serde_json::{Value, json};

use crate::{
    client::{Client, path},
    exit_codes::OK,
    output::{Column, Output},
    settings::ServerArgs,
    work::{self, PoolShape},
};

const COLUMNS: &[Column] = &[
    ("POOL", "/id"),
    ("STATE", "/state"),
    ("ALLOCATION", "/allocationState"),
    ("NODES", "/currentDedicatedNodes"),
    ("TARGET", "/targetDedicatedNodes"),
    ("SLOTS", "/taskSlotsPerNode"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Create a pool, of a fixed size or following its queue
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the pool
        pool: PoolId,
        /// Task slots of each node; one for each processor when absent
        #[arg(long)]
        slots: Option<u32>,
        #[command(flatten)]
        size: SizeArgs,
    },
    /// List pools
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a pool, its policy and what was decided last
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the pool
        pool: PoolId,
    },
    /// Change how many nodes a pool has, or its policy
    Resize {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the pool
        pool: PoolId,
        #[command(flatten)]
        size: SizeArgs,
        /// Fate of the running tasks when the pool shrinks
        #[arg(long, value_parser = ["requeue", "terminate", "taskcompletion"], default_value = "requeue")]
        tasks: String,
    },
    /// Delete a pool and its nodes
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the pool
        pool: PoolId,
    },
}

/// How large a pool is.
#[derive(Debug, Args)]
#[group(multiple = true)]
pub(crate) struct SizeArgs {
    /// Nodes, kept until told otherwise
    #[arg(long, conflicts_with_all = ["min", "max", "idle_seconds"])]
    nodes: Option<u32>,
    /// Follow the queue: never fewer nodes
    #[arg(long, requires = "max")]
    min: Option<u32>,
    /// Follow the queue: never more nodes
    #[arg(long)]
    max: Option<u32>,
    /// Follow the queue: a node must be empty this long before it goes
    #[arg(long, value_name = "SECONDS", requires = "max")]
    idle_seconds: Option<u64>,
}

impl SizeArgs {
    fn policy(&self) -> Option<Value> {
        let max = self.max?;
        let idle_ms = self.idle_seconds.unwrap_or(60).saturating_mul(1000);
        Some(work::policy(self.min.unwrap_or(0), max, idle_ms))
    }
}

pub(crate) async fn run(command: PoolCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        PoolCommand::Create { server, pool, slots, size } => create(&server.open()?.client, &pool, slots, &size, out).await?,
        PoolCommand::List { server } => out.list(COLUMNS, &server.open()?.client.list::<Value>("/pools", &[]).await?)?,
        PoolCommand::Show { server, pool } => show(&server.open()?.client, &pool, out).await?,
        PoolCommand::Resize { server, pool, size, tasks } => resize(&server.open()?.client, &pool, &size, &tasks, out).await?,
        PoolCommand::Delete { server, pool } => {
            server.open()?.client.delete(&path(&["pools", pool.as_str()])).await?;
            out.done(&format!("pool {pool} is being deleted"))?;
        }
    }
    Ok(OK)
}

async fn create(client: &Client, pool: &PoolId, slots: Option<u32>, size: &SizeArgs, out: &dyn Output) -> anyhow::Result<()> {
    let shape = PoolShape { slots: slots.unwrap_or_else(work::processors), nodes: size.nodes.unwrap_or(0), policy: size.policy() };
    work::create_pool(client, pool, &shape).await?;
    out.done(&format!("pool {pool} created"))?;
    Ok(())
}

async fn show(client: &Client, pool: &PoolId, out: &dyn Output) -> anyhow::Result<()> {
    let mut value: Value = client.get(&path(&["pools", pool.as_str()]), &[]).await?;
    value["piecework"] = client.get(&path(&["piecework", "pools", pool.as_str()]), &[]).await?;
    out.one(&value)?;
    Ok(())
}

async fn resize(client: &Client, pool: &PoolId, size: &SizeArgs, tasks: &str, out: &dyn Output) -> anyhow::Result<()> {
    let policy_path = path(&["piecework", "pools", pool.as_str(), "policy"]);
    match (size.policy(), size.nodes) {
        (Some(mut policy), _) => {
            policy["deallocation"] = json!(tasks);
            client.put(&policy_path, &policy).await?;
            out.done(&format!("pool {pool} follows its queue"))?;
        }
        (None, Some(nodes)) => {
            match client.delete(&policy_path).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
            let body = json!({ "targetDedicatedNodes": nodes, "nodeDeallocationOption": tasks });
            client.post(&path(&["pools", pool.as_str(), "resize"]), Some(&body)).await?;
            out.done(&format!("pool {pool} goes to {nodes} nodes"))?;
        }
        (None, None) => return Err(crate::exit_codes::Failure::usage("give --nodes, or --max with --min").into()),
    }
    Ok(())
}
