//! `piecework node …`.

use clap::Subcommand;
use contract::ids::{NodeId, PoolId};
use serde_json::{Value, json};

use crate::{
    client::path,
    exit_codes::OK,
    output::{Column, Output},
    settings::ServerArgs,
};

const COLUMNS: &[Column] = &[
    ("NODE", "/id"),
    ("STATE", "/state"),
    ("SCHEDULING", "/schedulingState"),
    ("RUNNING", "/runningTasksCount"),
    ("TASKS RUN", "/totalTasksRun"),
    ("ADDRESS", "/ipAddress"),
    ("SINCE", "/stateTransitionTime"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List a pool's nodes
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// The pool
        pool: PoolId,
    },
    /// Show a node
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// The pool
        pool: PoolId,
        /// The node
        node: NodeId,
    },
    /// Remove nodes from their pool, which gets smaller by them
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// The pool
        pool: PoolId,
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<NodeId>,
        /// Fate of the running tasks
        #[arg(long, value_parser = ["requeue", "terminate", "taskcompletion"], default_value = "requeue")]
        tasks: String,
    },
}

pub(crate) async fn run(command: NodeCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        NodeCommand::List { server, pool } => {
            let nodes: Vec<Value> = server.open()?.client.list(&path(&["pools", pool.as_str(), "nodes"]), &[]).await?;
            out.list(COLUMNS, &nodes)?;
        }
        NodeCommand::Show { server, pool, node } => {
            let node: Value = server.open()?.client.get(&path(&["pools", pool.as_str(), "nodes", node.as_str()]), &[]).await?;
            out.one(&node)?;
        }
        NodeCommand::Delete { server, pool, nodes, tasks } => {
            let body = json!({ "nodeList": nodes, "nodeDeallocationOption": tasks });
            server.open()?.client.post(&path(&["pools", pool.as_str(), "removenodes"]), Some(&body)).await?;
            out.done(&format!("{} nodes leave pool {pool}", nodes.len()))?;
        }
    }
    Ok(OK)
}
