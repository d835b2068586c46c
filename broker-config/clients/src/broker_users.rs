//! Administration of a broker's users: one seam for the embedded broker, whose handle `src` adapts, and for RabbitMQ's
//! management API, whose client is here.

use std::{fmt, time::Duration};

use broker_config::{publisher::BrokerUser, settings::Secret};
use futures::future::BoxFuture;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest part of an answer that an error repeats, in characters.
const REASON_CHARS_MAX: usize = 300;
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The reason why a broker's users could not be read or changed.
#[derive(Debug, Error)]
pub enum BrokerUsersError {
    /// The URL of the management API cannot be used; it is not repeated, as it holds a password.
    #[error("the URL of the broker's management API is not http(s)://USER:PASSWORD@HOST:PORT")]
    Url,
    /// The management API does not answer.
    #[error("the broker's management API does not answer: {reason}")]
    Unreachable { reason: String },
    /// The broker refused the request.
    #[error("the broker refused: {reason}")]
    Refused { reason: String },
    /// There is no such user.
    #[error("the broker has no user {name}")]
    Unknown { name: String },
}

/// The name and the tags of a user.
pub type Tagged = (String, Vec<String>);

/// The users of one broker.
pub trait BrokerUsers: fmt::Debug + Send + Sync {
    /// All users.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Tagged>, BrokerUsersError>>;
    /// Adds a user, or replaces the one of that name.
    fn put(&self, user: BrokerUser, password: Secret) -> BoxFuture<'_, Result<(), BrokerUsersError>>;
    /// Removes a user and closes its connections.
    fn remove(&self, name: String) -> BoxFuture<'_, Result<(), BrokerUsersError>>;
}

/// The virtual host that a broker's URL names.
pub fn vhost(broker: &Secret) -> String {
    let rest = broker.expose().split_once("://").map_or(broker.expose(), |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path.split('?').next().unwrap_or_default());
    if path.is_empty() { "/".to_owned() } else { percent_decode_str(path).decode_utf8_lossy().into_owned() }
}

/// The URL of a broker for another user.
pub fn url_for(broker: &Secret, user: &str, password: &str) -> String {
    let (scheme, rest) = broker.expose().split_once("://").unwrap_or(("amqp", broker.expose()));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{user}:{password}@{host}{path}")
}

/// RabbitMQ's management API, as an administrator.
pub struct ManagementApi {
    http: Client,
    base: String,
    user: String,
    password: Secret,
    vhost: String,
}

impl fmt::Debug for ManagementApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementApi").field("base", &self.base).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    tags: Tags,
}

/// RabbitMQ before 3.9 joins tags by commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Joined(String),
}

impl ManagementApi {
    /// Reads `http(s)://USER:PASSWORD@HOST:PORT`; users get rights in the virtual host of the broker's URL.
    pub fn new(admin: &Secret, broker: &Secret) -> Result<ManagementApi, BrokerUsersError> {
        let mut url = Url::parse(admin.expose()).map_err(|_| BrokerUsersError::Url)?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decode(url.username()), Secret::new(decode(url.password().ok_or(BrokerUsersError::Url)?)));
        let is_http = matches!(url.scheme(), "http" | "https") && url.host().is_some();
        if !is_http || url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(BrokerUsersError::Url);
        }
        let http = Client::builder().timeout(REQUEST_TIMEOUT).build().map_err(|_| BrokerUsersError::Url)?;
        Ok(ManagementApi { http, base: url.as_str().trim_end_matches('/').to_owned(), user, password, vhost: vhost(broker) })
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Vec<u8>, BrokerUsersError> {
        let path: String = path.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect();
        let request = self.http.request(method, format!("{}/api{path}", self.base));
        let request = request.basic_auth(&self.user, Some(self.password.expose()));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let unreachable = |error: reqwest::Error| BrokerUsersError::Unreachable { reason: error.without_url().to_string() };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let said: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        match status {
            StatusCode::NOT_FOUND => Err(BrokerUsersError::Unknown { name: path }),
            status => Err(BrokerUsersError::Refused { reason: format!("{status} {said}") }),
        }
    }

    async fn make(&self, user: &BrokerUser, password: &Secret) -> Result<(), BrokerUsersError> {
        let (name, tags) = (user.name.as_str(), user.tags.join(","));
        self.send(Method::PUT, &["users", name], Some(json!({"password": password.expose(), "tags": tags}))).await?;
        for (exchange, key) in &user.keys {
            let topic = json!({"exchange": exchange, "write": key, "read": "^$"});
            self.send(Method::PUT, &["topic-permissions", &self.vhost, name], Some(topic)).await?;
        }
        // Last: only this lets the user into the virtual host.
        let permissions = json!({"configure": user.configure, "write": user.write, "read": user.read});
        self.send(Method::PUT, &["permissions", &self.vhost, name], Some(permissions)).await.map(drop)
    }
}

impl BrokerUsers for ManagementApi {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Tagged>, BrokerUsersError>> {
        Box::pin(async {
            let answer = self.send(Method::GET, &["users"], None).await?;
            let users: Vec<Listed> = serde_json::from_slice(&answer)
                .map_err(|error| BrokerUsersError::Refused { reason: format!("its list of users cannot be read: {error}") })?;
            let tags = |tags| match tags {
                Tags::List(tags) => tags,
                Tags::Joined(text) => text.split(',').map(str::to_owned).collect(),
            };
            Ok(users.into_iter().map(|user| (user.name, tags(user.tags))).collect())
        })
    }

    fn put(&self, user: BrokerUser, password: Secret) -> BoxFuture<'_, Result<(), BrokerUsersError>> {
        Box::pin(async move {
            let made = self.make(&user, &password).await;
            if made.is_err()
                && let Err(error) = self.remove(user.name.clone()).await
            {
                tracing::warn!(user = user.name, %error, "a user that was made by half could not be removed again; remove it by hand");
            }
            made
        })
    }

    fn remove(&self, name: String) -> BoxFuture<'_, Result<(), BrokerUsersError>> {
        Box::pin(async move {
            match self.send(Method::DELETE, &["users", &name], None).await {
                Err(BrokerUsersError::Unknown { .. }) => Err(BrokerUsersError::Unknown { name }),
                other => other.map(drop),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publishers_url_has_the_brokers_host_and_virtual_host() {
        let broker = Secret::new("amqps://admin:p%40ss@broker.example:5671/it-1?heartbeat=5");
        assert_eq!(url_for(&broker, "web", "secret"), "amqps://web:secret@broker.example:5671/it-1?heartbeat=5");
        assert_eq!(vhost(&broker), "it-1");
        for default in ["amqp://u:p@h:1/%2f", "amqp://u:p@h:1", "amqp://u:p@h:1/"] {
            assert_eq!(vhost(&Secret::new(default)), "/", "{default}");
        }
    }

    #[test]
    fn an_admin_url_without_a_password_is_refused_and_none_shows_in_debug_output() {
        let broker = Secret::new("amqp://u:p@h:1/%2f");
        for wrong in ["http://host:1", "ftp://u:p@host", "nonsense"] {
            assert!(matches!(ManagementApi::new(&Secret::new(wrong), &broker), Err(BrokerUsersError::Url)), "{wrong}");
        }
        let api = ManagementApi::new(&Secret::new("http://admin:hidden@host:1/prefix/"), &broker).unwrap();
        assert_eq!(api.base, "http://host:1/prefix");
        assert!(!format!("{api:?}").contains("hidden"));
    }
}
