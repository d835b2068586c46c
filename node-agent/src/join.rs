//! Joins the pool with the stored credential or the join token; tries again while the dispatcher is away.

use std::time::Duration;

use broker_config::topology;
use clients::amqp::Caller;
use contract::{
    ids::Epoch,
    message::{Join, Joined, Reply, ReplyMessage, Request, RequestKind, VERSION},
};
use tokio::time::sleep;

use crate::{
    error::AgentError,
    off_loop::{off_loop, try_off_loop},
    root::Root,
    settings::Settings,
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Joins; a running agent passes its present epoch and keeps its runs.
pub async fn join(caller: Caller, settings: Settings, root: Root, epoch: Option<Epoch>) -> Result<Joined, AgentError> {
    let mut pause = PAUSE_FIRST;
    let kept = root.clone();
    let failed = |source| AgentError::Root { path: root.path().join("credential"), source };
    let mut credential = off_loop(move || kept.credential()).await.map_err(failed)?;
    loop {
        let join = Join {
            pool: settings.pool.clone(),
            node: settings.node.clone(),
            token: credential.clone().unwrap_or_else(|| settings.token.expose().to_owned()),
            epoch,
            address: settings.address.clone(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let question = Request { v: VERSION, what: RequestKind::Join(join) };
        match caller.call::<_, ReplyMessage>(topology::REQUESTS, "asks".to_owned(), &question, ANSWER_TIMEOUT).await.map(|reply| reply.what)
        {
            Ok(Reply::Joined(joined)) => {
                if credential.as_deref() != Some(&joined.credential) {
                    let (root, credential) = (root.clone(), joined.credential.clone());
                    try_off_loop(move || root.keep_credential(&credential)).await.map_err(failed)?;
                }
                return Ok(joined);
            }
            // The stored credential belongs to an earlier node of this name; the token may still be valid.
            Ok(Reply::Refused(_)) if credential.take().is_some_and(|old| old != settings.token.expose()) => {}
            Ok(Reply::Refused(fault)) => return Err(AgentError::Refused(fault)),
            Ok(other) => tracing::warn!(?other, "the dispatcher's reply to the join request is unexpected; trying again"),
            Err(error) => tracing::info!(%error, "cannot join the pool: the dispatcher does not answer; trying again"),
        }
        // Varies by a quarter, so that the nodes of a pool do not all join at the same moment.
        sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
