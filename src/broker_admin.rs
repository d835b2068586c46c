//! Who administers the users of the broker: the embedded broker itself, or an administrator of RabbitMQ by its URL.

use std::{path::PathBuf, sync::Arc};

use broker_config::{publisher::BrokerUser, settings::Secret};
use clap::Args;
use clients::broker_users::{BrokerUsers, BrokerUsersError, ManagementApi, Tagged};
use embedded_broker::{Permissions, TopicPermission, User, UserError, Users};
use futures::future::BoxFuture;

use crate::{exit_codes::Failure, secrets};

/// The broker's administrator
#[derive(Clone, Default, Args)]
pub(crate) struct BrokerAdminArgs {
    /// RabbitMQ's management API, as http(s)://USER:PASSWORD@HOST:PORT of an administrator, who adds and removes publishers
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER_ADMIN", hide_env_values = true)]
    broker_admin_url: Option<String>,
    /// A file that holds this URL
    #[arg(long, value_name = "FILE", env = "PIECEWORK_BROKER_ADMIN_FILE")]
    broker_admin_file: Option<PathBuf>,
}

impl std::fmt::Debug for BrokerAdminArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerAdminArgs").finish_non_exhaustive()
    }
}

impl BrokerAdminArgs {
    /// The URL, if it is given.
    pub(crate) fn given(&self) -> anyhow::Result<Option<Secret>> {
        let url = self
            .broker_admin_file
            .as_deref()
            .map_or_else(|| Ok(self.broker_admin_url.clone()), |file| secrets::read_file(file).map(Some))?;
        Ok(url.map(Secret::new))
    }
}

/// The users of a RabbitMQ that an administrator's URL is given for.
pub(crate) fn of_rabbitmq(admin: Option<&Secret>, broker: &str) -> anyhow::Result<Option<Arc<dyn BrokerUsers>>> {
    let Some(admin) = admin else { return Ok(None) };
    let api = ManagementApi::new(admin, &Secret::new(broker)).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some(Arc::new(api)))
}

/// The users of the embedded broker.
pub(crate) fn of_embedded(users: Users) -> Arc<dyn BrokerUsers> {
    Arc::new(Embedded(users))
}

#[derive(Debug)]
struct Embedded(Users);

fn failed(error: UserError) -> BrokerUsersError {
    match error {
        UserError::Unknown { name } => BrokerUsersError::Unknown { name },
        other => BrokerUsersError::Refused { reason: other.to_string() },
    }
}

impl BrokerUsers for Embedded {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Tagged>, BrokerUsersError>> {
        Box::pin(async {
            let users = self.0.list().await.map_err(failed)?;
            Ok(users.into_iter().map(|user| (user.name, user.tags)).collect())
        })
    }

    fn put(&self, user: BrokerUser, password: Secret) -> BoxFuture<'_, Result<(), BrokerUsersError>> {
        let BrokerUser { name, tags, configure, write, read, keys } = user;
        let topic = |(exchange, key)| TopicPermission { exchange, write: key, read: String::new() };
        let topics = keys.into_iter().map(topic).collect();
        let user = User { name, tags, permissions: Permissions { configure, write, read, topics } };
        Box::pin(async move { self.0.put(user, password.expose()).await.map_err(failed) })
    }

    fn remove(&self, name: String) -> BoxFuture<'_, Result<(), BrokerUsersError>> {
        Box::pin(async move { self.0.remove(&name).await.map_err(failed) })
    }
}
