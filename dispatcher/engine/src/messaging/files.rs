//! Requests files from a node's agent over the broker.

use std::time::Duration;

use broker_config::topology;
use clients::amqp::{AmqpError, Caller, Link};
use contract::{
    ids::{NodeId, PoolId},
    message::{Control, ControlKind, FileReply, FileRequest, VERSION},
};
use model::refusal::{Code, Refusal};

/// How long an agent may take to answer; uploads that it makes may take longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// Client for file requests to nodes.
#[derive(Clone)]
pub struct Files {
    caller: Caller,
}

impl Files {
    /// Opens the reply consumer.
    pub async fn open(link: &Link) -> Result<Files, AmqpError> {
        Ok(Files { caller: link.caller().await? })
    }

    /// Sends a request to one node and waits for its answer.
    pub async fn ask(&self, pool: &PoolId, node: &NodeId, request: FileRequest) -> Result<FileReply, Refusal> {
        let timeout = if matches!(request, FileRequest::Upload { .. }) { UPLOAD_TIMEOUT } else { ASK_TIMEOUT };
        let control = Control { v: VERSION, what: ControlKind::File(request) };
        let gone = |error: AmqpError| {
            Refusal::new(Code::TaskFilesUnavailable, "The node that holds the files does not answer.")
                .with("NodeId", node)
                .with("Reason", error)
                .hint("Try again; if the node is gone, its files are, too.")
        };
        match self.caller.call(topology::CONTROL, topology::node_key(pool, node), &control, timeout).await.map_err(gone)? {
            FileReply::Refused(fault) => Err(Refusal::new(Code::InvalidInput, fault.message).with("Reason", fault.code)),
            reply => Ok(reply),
        }
    }
}
