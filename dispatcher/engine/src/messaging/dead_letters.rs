//! Looks through the queue of dead letters for people: leaves, removes, or publishes again where a message came from.
//!
//! ```text
//! get ─► left alone ──────────────────────────────► back to its place
//!    └─► replayed: published, confirmed by the broker ─► removed      └─► not taken: back to its place
//! ```
//! A dispatcher that is killed in between has removed nothing that was not published, and may publish it once more.

use std::sync::Arc;

use broker_config::topology;
use clients::amqp::{AmqpError, Browser, Delivery, Link, Outgoing};
use model::refusal::{Code, Refusal};
use sha2::{Digest, Sha256};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

/// Messages of one look at most; they are held until its end.
pub const LOOKED_MAX: u32 = 20_000;
/// Messages that are published together at most.
const BATCH_MAX: usize = 64;
/// They are published earlier when their bodies have this many bytes together.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Bytes of the digest that names a dead letter.
const ID_BYTES: usize = 8;

/// Names a dead letter: a digest of what it is, the same each time it is looked at. Letters that are alike in everything,
/// the time included, share one.
pub fn letter_id(letter: &Delivery) -> String {
    let burial = letter.burial();
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    for text in [&burial.reason, &burial.message, &burial.exchange, &burial.routing_key] {
        add(text.as_bytes());
    }
    add(&burial.at.map_or(0, |at| at.0).to_be_bytes());
    for text in [&letter.message_id, &letter.correlation_id, &letter.kind, &burial.reply_to, &burial.expiration] {
        add(text.as_deref().unwrap_or_default().as_bytes());
    }
    for (name, value) in letter.plain_headers() {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(&letter.body);
    hash.finalize()[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Leave,
    Remove,
    Replay,
    /// It is left, and no further one is looked at.
    Stop,
}

/// A dead letter that could not be replayed and is left.
#[derive(Debug)]
pub struct Unreplayed {
    /// Its name, as [`letter_id`] gives it.
    pub id: String,
    pub reason: String,
}

/// Dead letters that could not be replayed and are told one by one.
const TOLD_MAX: usize = 20;

/// What came of one look.
#[derive(Debug, Default)]
pub struct Look {
    /// Messages that were looked at.
    pub looked: u32,
    /// Messages that lie behind those.
    pub left: u32,
    pub removed: u32,
    pub replayed: u32,
    /// [`TOLD_MAX`] at most.
    pub unreplayed: Vec<Unreplayed>,
    pub unreplayed_count: u32,
}

/// The dead letters of all pools. One look at a time: a second one would not see what the first one holds.
#[derive(Clone)]
pub struct DeadLetters {
    link: Link,
    alone: Arc<Mutex<()>>,
}

impl DeadLetters {
    pub fn new(link: Link) -> DeadLetters {
        DeadLetters { link, alone: Arc::default() }
    }

    /// Looks at each dead letter that lies there now, from the oldest, until `deadline` or [`LOOKED_MAX`].
    ///
    /// What comes meanwhile, such as a replayed message that fails again, is not looked at.
    pub async fn look(&self, deadline: Instant, choose: impl FnMut(&Delivery) -> Choice + Send) -> Result<Look, Refusal> {
        let Ok(_alone) = timeout_at(deadline, self.alone.lock()).await else {
            return Err(Refusal::new(Code::ServerBusy, "The dead letters are in other hands.")
                .hint("Somebody lists, replays or discards them; try again in a moment."));
        };
        let mut browser = self.link.browse(topology::DEAD_QUEUE).await.map_err(failed)?;
        let mut sweep = Sweep { link: &self.link, look: Look::default(), batch: Vec::new() };
        sweep.run(&mut browser, deadline, choose).await.map_err(failed)?;
        browser.finish().await.map_err(failed)?;
        Ok(sweep.look)
    }
}

struct Sweep<'a> {
    link: &'a Link,
    look: Look,
    batch: Vec<(String, Delivery, Outgoing)>,
}

impl Sweep<'_> {
    async fn run(
        &mut self,
        browser: &mut Browser,
        deadline: Instant,
        mut choose: impl FnMut(&Delivery) -> Choice + Send,
    ) -> Result<(), AmqpError> {
        let (mut most, mut bytes) = (LOOKED_MAX, 0);
        while self.look.looked < most && Instant::now() < deadline {
            let Some((mut letter, left)) = browser.next().await? else {
                self.look.left = 0;
                break;
            };
            if self.look.looked == 0 {
                most = most.min(left.saturating_add(1));
            }
            self.look.looked += 1;
            self.look.left = left;
            match choose(&letter) {
                Choice::Leave => {}
                Choice::Remove => {
                    browser.remove(&letter).await?;
                    self.look.removed += 1;
                }
                Choice::Replay => match letter.revived() {
                    Some(outgoing) => {
                        bytes += outgoing.body.len();
                        let id = letter_id(&letter);
                        // The copy has it.
                        letter.body = Vec::new();
                        self.batch.push((id, letter, outgoing));
                    }
                    None => self.unreplayed(
                        letter_id(&letter),
                        format!("it did not come from {} or {}, and goes nowhere else", topology::SUBMIT, topology::INVOKE),
                    ),
                },
                Choice::Stop => break,
            }
            if self.batch.len() >= BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                self.publish(browser).await?;
                bytes = 0;
            }
        }
        self.publish(browser).await
    }

    async fn publish(&mut self, browser: &mut Browser) -> Result<(), AmqpError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let (letters, messages): (Vec<_>, Vec<Outgoing>) = batch.into_iter().map(|(id, letter, outgoing)| ((id, letter), outgoing)).unzip();
        let results = self.link.publisher().publish_all(messages).await;
        for ((id, letter), result) in letters.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    browser.remove(&letter).await?;
                    self.look.replayed += 1;
                }
                Err(AmqpError::Returned { .. }) => self.unreplayed(id, "no queue takes it: there is no such pool any more".to_owned()),
                Err(error) => self.unreplayed(id, error.to_string()),
            }
        }
        Ok(())
    }

    fn unreplayed(&mut self, id: String, reason: String) {
        self.look.unreplayed_count += 1;
        if self.look.unreplayed.len() < TOLD_MAX {
            self.look.unreplayed.push(Unreplayed { id, reason });
        }
    }
}

fn failed(error: AmqpError) -> Refusal {
    tracing::warn!(%error, "a look through the dead letters broke off; those that were not removed are still there");
    Refusal::new(Code::ServerBusy, "The broker did not answer as expected.")
        .with("Reason", error)
        .hint("Dead letters that were not replayed or discarded are still there; try again.")
}
