//! Joining the pool: by the kept credential or the token, again and again while the dispatcher is away.

use std::time::Duration;

use broker_config::{
    amqp::Caller,
    ids::Epoch,
    message::{Join, Joined, Reply, ReplyMessage, Request, RequestKind, VERSION},
    topology,
};
use tokio::time::sleep;

use crate::{error::AgentError, root::Root, settings::Settings};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Joins; with the epoch it has, a process that goes on keeps its runs.
pub async fn join(caller: Caller, settings: Settings, root: Root, epoch: Option<Epoch>) -> Result<Joined, AgentError> {
    let mut pause = PAUSE_FIRST;
    let mut credential = root.credential();
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
                    let path = root.path().join("credential");
                    root.keep_credential(&joined.credential).map_err(|source| AgentError::Root { path, source })?;
                }
                return Ok(joined);
            }
            // The credential of an earlier life of this name; the token may still do.
            Ok(Reply::Refused(_)) if credential.take().is_some_and(|old| old != settings.token.expose()) => {}
            Ok(Reply::Refused(fault)) => return Err(AgentError::Refused(fault)),
            Ok(other) => tracing::warn!(?other, "no answer to a join"),
            Err(error) => tracing::info!(%error, "cannot join yet"),
        }
        // A quarter up or down, so that a whole pool does not knock at once.
        sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
