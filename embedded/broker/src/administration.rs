//! Administration of users while the server runs: a handle for any thread, and the task that carries changes out on
//! the state's thread, one after another: written to disk first, then in force.

use std::{cell::RefCell, rc::Rc};

use amq_protocol::protocol::{AMQPClass, connection};
use tokio::sync::{mpsc, oneshot};

use crate::{
    codec::short,
    connection::Phase,
    core::Core,
    permissions::{Permissions, Rights},
    refusal::Refusal,
    user_error::UserError,
    users::{self, Change, Record, User},
};

/// Changes that wait for the one before.
const COMMANDS_MAX: usize = 64;

/// Adds, changes and removes the users of a running server. The user of the settings is none of them.
#[derive(Clone, Debug)]
pub struct Users(mpsc::Sender<Command>);

pub(crate) enum Command {
    List(oneshot::Sender<Vec<User>>),
    Change(Change, oneshot::Sender<Result<(), UserError>>),
}

/// A handle, and the commands that come from it.
pub(crate) fn channel() -> (Users, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    (Users(sender), receiver)
}

impl Users {
    /// All users by name.
    pub async fn list(&self) -> Result<Vec<User>, UserError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Command::List(answer)).await.map_err(|_| UserError::Stopped)?;
        answered.await.map_err(|_| UserError::Stopped)
    }

    /// Adds a user, or replaces the one of that name, whose connections are closed.
    pub async fn put(&self, user: User, password: &str) -> Result<(), UserError> {
        self.change(Change::Put(Record::new(user, password)?)).await
    }

    /// Changes what a user may do, from its next operation on.
    pub async fn permit(&self, name: &str, permissions: Permissions) -> Result<(), UserError> {
        Rights::compile(name, &permissions)?;
        self.change(Change::Permit { name: name.to_owned(), permissions }).await
    }

    /// Removes a user and closes its connections.
    pub async fn remove(&self, name: &str) -> Result<(), UserError> {
        self.change(Change::Remove { name: name.to_owned() }).await
    }

    async fn change(&self, change: Change) -> Result<(), UserError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Command::Change(change, answer)).await.map_err(|_| UserError::Stopped)?;
        answered.await.map_err(|_| UserError::Stopped)?
    }
}

/// Carries out commands until the server stops.
pub(crate) async fn administer(core: Rc<RefCell<Core>>, mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::List(answer) => {
                if answer.send(core.borrow().users.shown()).is_err() {
                    tracing::debug!("nobody waits for the list of users any more");
                }
            }
            Command::Change(change, answer) => {
                if answer.send(carry_out(&core, &change).await).is_err() {
                    tracing::debug!(user = change.name(), "a user was changed, and nobody waits for the answer any more");
                }
            }
        }
    }
    // Without handles there is nothing to do; the end of a task would be the end of the server.
    std::future::pending::<()>().await;
}

async fn carry_out(core: &RefCell<Core>, change: &Change) -> Result<(), UserError> {
    let records = core.borrow().users.plan(change)?;
    let data = core.borrow().settings.data.clone();
    let written = tokio::task::spawn_blocking(move || users::write(&data, records)).await;
    written.map_err(|_| UserError::Stopped)?.map_err(UserError::File)?;
    core.borrow_mut().on_user_changed(change)
}

impl Core {
    fn on_user_changed(&mut self, change: &Change) -> Result<(), UserError> {
        self.users.apply(change)?;
        let name = change.name();
        match change {
            Change::Put(_) => self.close_connections_of(name, &format!("user '{name}' has another password")),
            Change::Remove { .. } => self.close_connections_of(name, &format!("user '{name}' is deleted")),
            Change::Permit { .. } => {
                let account = self.users.account(name);
                for (_, connection) in self.connections.values_mut() {
                    if connection.user.as_ref().is_some_and(|user| *user.name == *name) {
                        connection.user = account.clone();
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes back what a user's connections hold, and closes them.
    fn close_connections_of(&mut self, name: &str, text: &str) {
        let of_user = |connection: &crate::connection::Connection| connection.user.as_ref().is_some_and(|user| *user.name == *name);
        let ids: Vec<_> = self.connections.values_mut().filter(|(_, connection)| of_user(connection)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.phase != Phase::Open {
                connection.break_off();
                continue;
            }
            connection.enter(Phase::Closing);
            let channels: Vec<_> = connection.channels.keys().copied().collect();
            for channel in channels {
                self.forget_channel(id, channel);
            }
            let refusal = Refusal::connection_forced(text);
            let close = connection::Close { reply_code: refusal.code, reply_text: short(&refusal.text), class_id: 0, method_id: 0 };
            self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
        }
        self.turn.notify_one();
    }
}
