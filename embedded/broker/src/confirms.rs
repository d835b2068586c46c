//! The publishes of a channel that wait for their confirm. Settled ones leave as one `multiple` ack where possible.

use std::collections::VecDeque;

use crate::encode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Taken,
    Refused,
    Told,
}

/// Confirm state of one channel.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// Sequence number of the front of `states`.
    front: u64,
    states: VecDeque<State>,
    /// True when settled publishes wait to be confirmed.
    pub is_dirty: bool,
}

impl Default for Confirms {
    fn default() -> Confirms {
        Confirms { front: 1, states: VecDeque::new(), is_dirty: false }
    }
}

impl Confirms {
    /// Numbers the next publish.
    pub fn next(&mut self) -> u64 {
        self.states.push_back(State::Waiting);
        self.front + self.states.len() as u64 - 1
    }

    /// Records that a publish is safe (`is_taken`) or refused; returns false when it was settled before.
    pub fn settle(&mut self, sequence: u64, is_taken: bool) -> bool {
        let Some(index) = sequence.checked_sub(self.front) else { return false };
        match self.states.get_mut(index as usize) {
            Some(state @ State::Waiting) => {
                *state = if is_taken { State::Taken } else { State::Refused };
                !std::mem::replace(&mut self.is_dirty, true)
            }
            _ => false,
        }
    }

    /// Writes the confirms of settled publishes.
    pub fn write(&mut self, out: &mut Vec<u8>, channel: u16) {
        self.is_dirty = false;
        let mut last_taken = None;
        let mut run = 0;
        while let Some(state) = self.states.front() {
            match state {
                State::Waiting => break,
                State::Taken => {
                    last_taken = Some(self.front);
                    run += 1;
                }
                // A multiple ack covers all publishes before it; it must not cover a refused one.
                State::Refused => {
                    if let Some(tag) = last_taken.take() {
                        encode::ack(out, channel, tag, run > 1);
                    }
                    run = 0;
                    encode::nack(out, channel, self.front);
                }
                State::Told => {}
            }
            self.states.pop_front();
            self.front += 1;
        }
        if let Some(tag) = last_taken {
            encode::ack(out, channel, tag, run > 1);
        }
        for (index, state) in self.states.iter_mut().enumerate() {
            match state {
                State::Taken => encode::ack(out, channel, self.front + index as u64, false),
                State::Refused => encode::nack(out, channel, self.front + index as u64),
                State::Waiting | State::Told => continue,
            }
            *state = State::Told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(confirms: &mut Confirms) -> Vec<(u16, u64, u8)> {
        let mut out = Vec::new();
        confirms.write(&mut out, 1);
        let mut seen = Vec::new();
        while let Ok(Some((frame, total))) = crate::frame::next_frame(&out, 4096) {
            let (_, method) = crate::codec::method_number(frame.payload).unwrap();
            let (tag, flags) = crate::codec::parse_tag(frame.payload).unwrap();
            seen.push((method, tag, flags));
            out.drain(..total);
        }
        seen
    }

    #[test]
    fn a_run_leaves_as_one_multiple_ack() {
        let mut confirms = Confirms::default();
        for expected in 1..=4 {
            assert_eq!(confirms.next(), expected);
        }
        for sequence in [1, 2, 4] {
            confirms.settle(sequence, true);
        }
        assert_eq!(written(&mut confirms), [(80, 2, 1), (80, 4, 0)]);
        confirms.settle(3, true);
        assert_eq!(written(&mut confirms), [(80, 3, 0)]);
        assert!(confirms.states.is_empty());
    }

    #[test]
    fn a_refusal_is_never_covered_by_an_ack() {
        let mut confirms = Confirms::default();
        for _ in 0..3 {
            confirms.next();
        }
        confirms.settle(1, true);
        confirms.settle(2, false);
        confirms.settle(3, true);
        assert_eq!(written(&mut confirms), [(80, 1, 0), (120, 2, 0), (80, 3, 0)]);
    }
}
