//! Asks whether a connection's user may do what it wants, before anything is looked up: who may not use a name does
//! not learn either whether something has it.

use crate::{
    core::Core,
    ids::ConnectionId,
    permissions::Right,
    refusal::{Outcome, Refusal},
};

/// The name of the default exchange in permissions.
const DEFAULT_EXCHANGE: &str = "amq.default";

impl Core {
    pub(crate) fn check_queue(&mut self, id: ConnectionId, right: Right, name: &str) -> Outcome {
        self.check_resource(id, right, "queue", name)
    }

    pub(crate) fn check_exchange(&mut self, id: ConnectionId, right: Right, name: &str) -> Outcome {
        self.check_resource(id, right, "exchange", if name.is_empty() { DEFAULT_EXCHANGE } else { name })
    }

    /// Checks the exchange and the key of a binding.
    pub(crate) fn check_source(&mut self, id: ConnectionId, exchange: &str, key: &str) -> Outcome {
        if exchange.is_empty() {
            return Err(Refusal::access_refused("operation not permitted on the default exchange"));
        }
        self.check_exchange(id, Right::Read, exchange)?;
        self.check_key(id, Right::Read, exchange, key)
    }

    /// Checks a routing key. RabbitMQ limits keys of topic exchanges only; here those of direct ones as well.
    pub(crate) fn check_key(&mut self, id: ConnectionId, right: Right, exchange: &str, key: &str) -> Outcome {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        match &connection.user {
            Some(user) if user.may_key(right, exchange, key) => Ok(()),
            user => {
                let user = user.as_ref().map_or("", |user| &user.name);
                Err(Refusal::access_refused(format!(
                    "access to topic '{key}' in exchange '{exchange}' in vhost '/' refused for user '{user}'"
                )))
            }
        }
    }

    fn check_resource(&mut self, id: ConnectionId, right: Right, kind: &str, name: &str) -> Outcome {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        match &connection.user {
            Some(user) if user.may(right, name) => Ok(()),
            user => {
                let user = user.as_ref().map_or("", |user| &user.name);
                Err(Refusal::access_refused(format!("access to {kind} '{name}' in vhost '/' refused for user '{user}'")))
            }
        }
    }
}
