//! What the two connections of a link say about themselves, put together for whoever watches.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The state of a link as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// At least one of the connections is being mended.
    Connecting,
    /// Both stand.
    Connected {
        /// Grows with every mending.
        generation: u64,
    },
    /// Both stand, but the broker takes no messages for now.
    Blocked {
        /// Grows with every mending.
        generation: u64,
    },
    /// Closed on this side, for good.
    Closed,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publishing,
    Consuming,
}

impl Role {
    pub(super) fn word(self) -> &'static str {
        match self {
            Role::Publishing => "publishing",
            Role::Consuming => "consuming",
        }
    }
}

/// The state of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineState {
    Down,
    Up,
    Blocked,
}

struct Lines {
    states: [LineState; 2],
    generation: u64,
}

/// Where both connections report.
pub(super) struct Board {
    lines: Mutex<Lines>,
    state: watch::Sender<LinkState>,
}

impl Board {
    pub(super) fn new() -> Board {
        let lines = Lines { states: [LineState::Down; 2], generation: 0 };
        Board { lines: Mutex::new(lines), state: watch::Sender::new(LinkState::Connecting) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(super) fn close(&self) {
        self.state.send_replace(LinkState::Closed);
    }

    pub(super) fn report(&self, role: Role, line: LineState) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let was_up = !lines.states.contains(&LineState::Down);
        lines.states[role as usize] = line;
        let is_up = !lines.states.contains(&LineState::Down);
        if is_up && !was_up {
            lines.generation += 1;
        }
        let generation = lines.generation;
        let state = match (is_up, lines.states.contains(&LineState::Blocked)) {
            (false, _) => LinkState::Connecting,
            (true, false) => LinkState::Connected { generation },
            (true, true) => LinkState::Blocked { generation },
        };
        self.state.send_if_modified(|present| {
            let changes = *present != state && *present != LinkState::Closed;
            if changes {
                *present = state;
            }
            changes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_must_stand_and_every_mending_counts() {
        let board = Board::new();
        let state = board.watch();
        board.report(Role::Publishing, LineState::Up);
        assert_eq!(*state.borrow(), LinkState::Connecting);
        board.report(Role::Consuming, LineState::Up);
        assert_eq!(*state.borrow(), LinkState::Connected { generation: 1 });
        board.report(Role::Publishing, LineState::Blocked);
        assert_eq!(*state.borrow(), LinkState::Blocked { generation: 1 });
        board.report(Role::Consuming, LineState::Down);
        assert_eq!(*state.borrow(), LinkState::Connecting);
        board.report(Role::Consuming, LineState::Up);
        assert_eq!(*state.borrow(), LinkState::Blocked { generation: 2 });
        board.close();
        board.report(Role::Publishing, LineState::Up);
        assert_eq!(*state.borrow(), LinkState::Closed);
    }
}
