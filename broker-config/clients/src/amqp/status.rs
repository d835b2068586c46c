//! Combines the states of a link's two connections into one state that callers can watch.

use std::sync::{Mutex, PoisonError};

use broker_config::metrics::{BROKER_BLOCKED, BROKER_CONNECTED, BROKER_LOST};
use tokio::sync::watch;

/// The state of a link as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// At least one of the connections is down and reconnects.
    Connecting,
    /// Both connections are up.
    Connected {
        /// Grows each time the link is up again after an outage.
        generation: u64,
    },
    /// Both connections are up, but the broker accepts no messages for now.
    Blocked {
        /// Grows each time the link is up again after an outage.
        generation: u64,
    },
    /// The application closed the link; it does not reconnect.
    Closed,
}

/// The purpose of a connection.
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
pub(super) enum ConnectionState {
    Down,
    Up,
    Blocked,
}

struct Roles {
    states: [ConnectionState; 2],
    generation: u64,
}

/// Both connections report their states here.
pub(super) struct Status {
    /// The part that the connections belong to, for metrics.
    part: String,
    roles: Mutex<Roles>,
    state: watch::Sender<LinkState>,
}

impl Status {
    /// `name` is the name of the connections; its second word names the part.
    pub(super) fn new(name: &str) -> Status {
        let part = name.split_whitespace().nth(1).unwrap_or(name).to_owned();
        let roles = Roles { states: [ConnectionState::Down; 2], generation: 0 };
        Status { part, roles: Mutex::new(roles), state: watch::Sender::new(LinkState::Connecting) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(super) fn close(&self) {
        self.state.send_replace(LinkState::Closed);
        for role in [Role::Publishing, Role::Consuming] {
            self.record(role, ConnectionState::Down);
        }
    }

    fn record(&self, role: Role, connection: ConnectionState) {
        let labels = || [self.part.clone(), role.word().to_owned()];
        BROKER_CONNECTED.of(labels()).set(if connection == ConnectionState::Down { 0.0 } else { 1.0 });
        BROKER_BLOCKED.of(labels()).set(if connection == ConnectionState::Blocked { 1.0 } else { 0.0 });
    }

    /// Reports a connection that broke and is made anew.
    pub(super) fn lost(&self, role: Role) {
        self.report(role, ConnectionState::Down);
        BROKER_LOST.of([self.part.clone(), role.word().to_owned()]).increment(1);
    }

    pub(super) fn report(&self, role: Role, connection: ConnectionState) {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let was_up = !roles.states.contains(&ConnectionState::Down);
        roles.states[role as usize] = connection;
        let is_up = !roles.states.contains(&ConnectionState::Down);
        if is_up && !was_up {
            roles.generation += 1;
        }
        let generation = roles.generation;
        if *self.state.borrow() != LinkState::Closed {
            self.record(role, connection);
        }
        let state = match (is_up, roles.states.contains(&ConnectionState::Blocked)) {
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
    fn both_must_be_up_and_every_outage_counts() {
        let status = Status::new("piecework test");
        let state = status.watch();
        status.report(Role::Publishing, ConnectionState::Up);
        assert_eq!(*state.borrow(), LinkState::Connecting);
        status.report(Role::Consuming, ConnectionState::Up);
        assert_eq!(*state.borrow(), LinkState::Connected { generation: 1 });
        status.report(Role::Publishing, ConnectionState::Blocked);
        assert_eq!(*state.borrow(), LinkState::Blocked { generation: 1 });
        status.report(Role::Consuming, ConnectionState::Down);
        assert_eq!(*state.borrow(), LinkState::Connecting);
        status.report(Role::Consuming, ConnectionState::Up);
        assert_eq!(*state.borrow(), LinkState::Blocked { generation: 2 });
        status.close();
        status.report(Role::Publishing, ConnectionState::Up);
        assert_eq!(*state.borrow(), LinkState::Closed);
    }

    #[test]
    fn metrics_show_which_connection_is_up_and_none_after_the_link_is_closed() {
        broker_config::metrics::install();
        let status = Status::new("piecework status pool/node");
        let page = || broker_config::metrics::page(|| ());
        let line = |metric: &str, value: u8| format!("{metric}{{part=\"status\",role=\"publishing\"}} {value}\n");
        status.report(Role::Publishing, ConnectionState::Up);
        assert!(page().contains(&line("piecework_broker_connected", 1)));
        status.report(Role::Publishing, ConnectionState::Blocked);
        assert!(page().contains(&line("piecework_broker_connected", 1)) && page().contains(&line("piecework_broker_blocked", 1)));
        status.lost(Role::Publishing);
        assert!(page().contains(&line("piecework_broker_connected", 0)));
        assert!(page().contains(&line("piecework_broker_connections_lost_total", 1)));
        status.report(Role::Publishing, ConnectionState::Up);
        status.close();
        status.report(Role::Publishing, ConnectionState::Up);
        assert!(page().contains(&line("piecework_broker_connected", 0)), "a closed link is not up");
    }
}
