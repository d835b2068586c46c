//! Bookkeeping of slots, pure: decides which consumers may deliver, so that never more arrives than can start.
//!
//! Every slot is one consumer with at most one unacknowledged delivery (its hand). A run takes units, and so does a
//! delivery that waits for an answer or its settlement; consumers are paused until open consumers and deliveries fit.
//!
//! ```text
//! open ──delivered──► waiting hand ──started──► hand of a run ──ended──► waiting hand ──settled──► open
//!   ⇅ paused / resumed by `balance`
//! ```

use clients::amqp::Tag;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    Empty,
    Waiting(Tag),
    Running(Tag),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    is_paused: bool,
    hand: Hand,
}

/// Slots of a node, and the units that runs and deliveries take.
#[derive(Debug)]
pub struct Capacity {
    slots: Vec<Slot>,
    free: u32,
    reserved: u32,
    open: u32,
    waiting: u32,
    is_accepting: bool,
}

impl Capacity {
    /// Makes slots that are all free and open.
    pub fn new(slots: u32) -> Capacity {
        let slots_free = vec![Slot { is_paused: false, hand: Hand::Empty }; slots as usize];
        Capacity { slots: slots_free, free: slots, reserved: 0, open: slots, waiting: 0, is_accepting: true }
    }

    /// Slots that no run takes.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// All slots of the node.
    pub fn total(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether any consumer may deliver.
    pub fn is_consuming(&self) -> bool {
        self.is_accepting
    }

    /// Opens or closes the node as a whole; takes effect with the next `balance`.
    pub fn accept(&mut self, is_accepting: bool) {
        self.is_accepting = is_accepting;
    }

    /// Records a delivery to a slot.
    pub fn delivered(&mut self, slot: u32, tag: Tag) {
        self.put(slot, Hand::Waiting(tag));
    }

    /// Whether a run of one slot may start.
    pub fn has_room(&self) -> bool {
        self.is_accepting && self.free > self.reserved
    }

    /// Whether every delivery in hand could become a run of one slot.
    pub fn fits(&self) -> bool {
        self.is_accepting && self.waiting <= self.free.saturating_sub(self.reserved)
    }

    /// Records the start of a run, with the delivery in this slot's hand if it has one.
    pub fn start(&mut self, hand: Option<(u32, Tag)>, units: u32) {
        self.free = self.free.saturating_sub(units);
        self.adopt(hand);
    }

    /// Records that the delivery of a live run came again to this slot.
    pub fn adopt(&mut self, hand: Option<(u32, Tag)>) {
        if let Some((slot, tag)) = hand.filter(|(slot, tag)| self.holds(*slot, *tag)) {
            self.put(slot, Hand::Running(tag));
        }
    }

    /// Records the end of a run; its delivery, if it has one, waits to be settled.
    pub fn end(&mut self, hand: Option<(u32, Tag)>, units: u32) {
        self.free = (self.free + units).min(self.total());
        if let Some((slot, tag)) = hand.filter(|(slot, tag)| self.holds(*slot, *tag)) {
            self.put(slot, Hand::Waiting(tag));
        }
    }

    /// Records a settled delivery; the tags of older channels change nothing.
    pub fn settled(&mut self, slot: u32, tag: Tag) {
        if self.holds(slot, tag) {
            self.put(slot, Hand::Empty);
        }
    }

    /// Empties every hand, because the broker delivers again on a new channel.
    pub fn lost_channel(&mut self) {
        for slot in 0..self.total() {
            self.put(slot, Hand::Empty);
        }
    }

    /// Reserves slots for a wide task; returns whether that many are free now.
    pub fn reserve(&mut self, units: u32) -> bool {
        self.reserved = units;
        self.free >= units && self.open + self.waiting + units <= self.free
    }

    /// Consumers to pause (true) and to resume (false), so that deliveries fit the free slots.
    pub fn balance(&mut self) -> Vec<(u32, bool)> {
        let context = if self.is_accepting { self.free.saturating_sub(self.reserved) } else { 0 };
        if self.open + self.waiting == context || (self.open == 0 && self.open + self.waiting > context) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for index in (0..self.slots.len()).rev() {
            if self.open + self.waiting <= context {
                break;
            }
            let slot = &mut self.slots[index];
            if !slot.is_paused && slot.hand == Hand::Empty {
                slot.is_paused = true;
                self.open -= 1;
                changes.push((index as u32, true));
            }
        }
        for index in 0..self.slots.len() {
            if self.open + self.waiting >= context {
                break;
            }
            let slot = &mut self.slots[index];
            if slot.is_paused {
                slot.is_paused = false;
                if slot.hand == Hand::Empty {
                    self.open += 1;
                }
                changes.push((index as u32, false));
            }
        }
        changes
    }

    fn holds(&self, slot: u32, tag: Tag) -> bool {
        self.slots.get(slot as usize).is_some_and(|slot| matches!(slot.hand, Hand::Waiting(held) | Hand::Running(held) if held == tag))
    }

    fn put(&mut self, slot: u32, hand: Hand) {
        let Some(slot) = self.slots.get_mut(slot as usize) else { return };
        match slot.hand {
            Hand::Empty if !slot.is_paused => self.open -= 1,
            Hand::Waiting(_) => self.waiting -= 1,
            _ => {}
        }
        slot.hand = hand;
        match slot.hand {
            Hand::Empty if !slot.is_paused => self.open += 1,
            Hand::Waiting(_) => self.waiting += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u64) -> Tag {
        Tag { generation: 1, number }
    }

    #[test]
    fn a_full_turn_of_a_slot_pauses_nothing() {
        let mut capacity = Capacity::new(2);
        capacity.delivered(0, tag(1));
        capacity.start(Some((0, tag(1))), 1);
        assert_eq!((capacity.free(), capacity.balance()), (1, vec![]));
        capacity.end(Some((0, tag(1))), 1);
        assert_eq!(capacity.balance(), vec![]);
        capacity.settled(0, tag(1));
        assert_eq!((capacity.free(), capacity.balance()), (2, vec![]));
    }

    #[test]
    fn after_a_lost_channel_only_free_slots_consume() {
        let mut capacity = Capacity::new(3);
        for slot in 0..2 {
            capacity.delivered(slot, tag(slot.into()));
            capacity.start(Some((slot, tag(slot.into()))), 1);
        }
        capacity.lost_channel();
        assert_eq!(capacity.balance(), vec![(2, true), (1, true)]);
        // The run's delivery is gone with its channel, so its slot opens again at once.
        capacity.end(Some((0, tag(0))), 1);
        assert_eq!(capacity.balance(), vec![(1, false)]);
    }

    #[test]
    fn a_redelivery_that_is_adopted_keeps_the_count() {
        let mut capacity = Capacity::new(1);
        capacity.delivered(0, tag(1));
        capacity.start(Some((0, tag(1))), 1);
        capacity.lost_channel();
        capacity.delivered(0, tag(2));
        assert!(!capacity.has_room());
        capacity.adopt(Some((0, tag(2))));
        capacity.end(Some((0, tag(2))), 1);
        capacity.settled(0, tag(2));
        assert_eq!((capacity.free(), capacity.balance()), (1, vec![]));
    }

    #[test]
    fn what_arrives_beside_a_wide_task_does_not_fit() {
        let mut capacity = Capacity::new(4);
        capacity.reserve(4);
        capacity.balance();
        assert!(capacity.reserve(4));
        capacity.start(None, 4);
        capacity.reserve(0);
        capacity.delivered(0, tag(1));
        assert!(!capacity.fits(), "it was on its way when its consumer was paused");
        capacity.settled(0, tag(1));
        capacity.end(None, 4);
        capacity.delivered(0, tag(2));
        assert!(capacity.fits());
    }

    #[test]
    fn a_wide_task_waits_until_its_slots_are_set_aside() {
        let mut capacity = Capacity::new(4);
        capacity.delivered(0, tag(1));
        capacity.start(Some((0, tag(1))), 1);
        assert!(!capacity.reserve(3));
        assert_eq!(capacity.balance(), vec![(3, true), (2, true), (1, true)]);
        assert!(capacity.reserve(3) && !capacity.has_room());
        capacity.start(None, 3);
        capacity.reserve(0);
        assert_eq!((capacity.free(), capacity.balance()), (0, vec![]));
        capacity.end(None, 3);
        assert_eq!(capacity.balance(), vec![(1, false), (2, false), (3, false)]);
    }

    #[test]
    fn a_closed_node_pauses_all_and_opens_again() {
        let mut capacity = Capacity::new(2);
        capacity.accept(false);
        assert_eq!(capacity.balance().len(), 2);
        capacity.delivered(1, tag(5));
        assert!(!capacity.has_room());
        capacity.settled(1, tag(5));
        capacity.accept(true);
        assert_eq!(capacity.balance(), vec![(0, false), (1, false)]);
    }

    proptest::proptest! {
        #[test]
        fn what_may_arrive_always_fits(steps in proptest::collection::vec((0u8..6, 0u32..4), 1..80)) {
            let mut capacity = Capacity::new(4);
            let mut number = 0;
            let mut hands: Vec<(u32, Tag)> = vec![];
            let mut runs: Vec<(u32, Tag)> = vec![];
            for (step, slot) in steps {
                match step {
                    0 if !capacity.slots[slot as usize].is_paused && capacity.slots[slot as usize].hand == Hand::Empty => {
                        number += 1;
                        capacity.delivered(slot, tag(number));
                        hands.push((slot, tag(number)));
                    }
                    1 if capacity.has_room() && !hands.is_empty() => {
                        let hand = hands.remove(0);
                        capacity.start(Some(hand), 1);
                        runs.push(hand);
                    }
                    2 if !runs.is_empty() => {
                        let hand = runs.remove(0);
                        capacity.end(Some(hand), 1);
                        capacity.settled(hand.0, hand.1);
                    }
                    3 => { capacity.lost_channel(); hands.clear(); }
                    4 => { capacity.accept(slot != 0); }
                    5 => { capacity.reserve(slot); }
                    _ => {}
                }
                capacity.balance();
                let open = capacity.slots.iter().filter(|slot| !slot.is_paused && slot.hand == Hand::Empty).count() as u32;
                let waiting = capacity.slots.iter().filter(|slot| matches!(slot.hand, Hand::Waiting(_))).count() as u32;
                proptest::prop_assert_eq!((capacity.open, capacity.waiting), (open, waiting));
                proptest::prop_assert!(open == 0 || open + waiting <= capacity.free);
                proptest::prop_assert_eq!(capacity.free, 4 - runs.len() as u32);
            }
        }
    }
}
