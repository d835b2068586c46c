//! Confirms that wait for a batch. When all queues have settled a message before its batch is on disk, the message
//! need not be stored any more and its confirm need not wait.

use crate::message::ConfirmKey;

#[derive(Debug)]
struct Promise {
    slot: u32,
    /// Queues that still need the message.
    open: u32,
    key: ConfirmKey,
}

/// The confirms of one batch, in the order of their messages.
#[derive(Debug, Default)]
pub(crate) struct Promises(Vec<Promise>);

impl Promises {
    pub fn add(&mut self, slot: u32, open: u32, key: ConfirmKey) {
        self.0.push(Promise { slot, open, key });
    }

    /// Settles the message for one queue; returns the confirm if it was the last.
    pub fn settle(&mut self, slot: u32) -> Option<ConfirmKey> {
        let index = self.0.binary_search_by_key(&slot, |promise| promise.slot).ok()?;
        let promise = &mut self.0[index];
        promise.open = promise.open.saturating_sub(1);
        (promise.open == 0).then_some(promise.key)
    }

    /// The confirms that are still outstanding.
    pub fn owed(self) -> impl Iterator<Item = ConfirmKey> {
        self.0.into_iter().filter(|promise| promise.open > 0).map(|promise| promise.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirm_is_free_once_every_queue_has_let_go() {
        let key = |sequence| ConfirmKey { connection: 1, channel: 1, incarnation: 1, sequence };
        let mut promises = Promises::default();
        promises.add(3, 2, key(1));
        promises.add(7, 1, key(2));
        assert_eq!(promises.settle(5), None);
        assert_eq!(promises.settle(3), None);
        assert_eq!(promises.settle(3), Some(key(1)));
        assert_eq!(promises.owed().collect::<Vec<_>>(), [key(2)]);
    }
}
