//! Tasks that come by message: consumed here, read by the API's rules, added by the engine, and answered.
//!
//! ```text
//! piecework.submit ─► [ read ] ─► engine ─commit─► ack        refused ─► reply_to, or piecework.dead ─confirmed─► ack
//!                                    └─ row of an answer ─► [ written, published ] ─confirmed─► row goes
//! ```

mod answers;
mod inbound;
mod parts;

use broker_config::topology;
use clients::amqp::{AmqpError, Subscription};
use model::submission::Answer;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub(crate) use self::parts::Parts;

/// Messages in hand at most: they share the engine's transactions.
const PREFETCH: u16 = 64;

/// Starts to take messages and to send answers.
pub(crate) async fn run(
    loops: &mut JoinSet<()>,
    parts: Parts,
    waiting: mpsc::Receiver<Vec<(u64, Answer)>>,
    stop: watch::Receiver<bool>,
) -> Result<(), AmqpError> {
    let consumer = parts.link.subscribe(Subscription::plain(topology::SUBMIT_QUEUE, PREFETCH)).await?;
    loops.spawn(answers::run(parts.clone(), waiting));
    loops.spawn(inbound::run(consumer, parts, stop));
    Ok(())
}
