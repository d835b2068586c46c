//! Publishers: users of the broker that may add work to a pool. The broker keeps them; nothing of them is stored here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use broker_config::{
    publisher::{FUNCTIONS_MAX, Publisher, PublisherName},
    settings::Secret,
};
use clients::broker_users::{BrokerUsersError, Tagged, url_for, vhost};
use model::refusal::{Code, Refusal};
use rand::RngExt;
use serde::Serialize;

use crate::{answer::Answer, call::Call, error::store_failed, lists::list, state::ApiState};

/// Random bytes of a password.
const PASSWORD_BYTES: usize = 32;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    pool_id: &'a str,
    submit: bool,
    functions: Vec<&'a str>,
    /// The beginning of the names of its queues for answers.
    answers: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
}

fn view(publisher: &Publisher, url: Option<String>, commands: Vec<String>) -> Vec<u8> {
    let functions = publisher.functions.iter().map(PublisherName::as_str).collect();
    json(&View {
        name: publisher.name.as_str(),
        pool_id: publisher.pool.as_str(),
        submit: publisher.submits,
        functions,
        answers: publisher.answers(),
        url,
        commands,
    })
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views have a JSON form")
}

fn failed(error: BrokerUsersError) -> Refusal {
    let message = "The users of the broker could not be read or changed.";
    let code = match error {
        BrokerUsersError::Unreachable { .. } => Code::ServerBusy,
        _ => Code::OperationInvalidForCurrentState,
    };
    Refusal::new(code, message).with("Reason", &error).hint("Look whether the broker runs, and whether its administrator's URL is right.")
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::ResourceNotFound, "There is no such publisher.")
        .with("Publisher", name.chars().take(64).collect::<String>())
        .hint("GET /piecework/publishers lists all.")
}

/// Adds a publisher; its URL with the password is in this answer alone.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let body = call.json()?;
    let body = body.root();
    let name = body.required_text("name").parse::<PublisherName>().map_err(|reason| body.invalid("name", reason))?;
    let submits = body.flag("submit").unwrap_or(false);
    let functions: Vec<String> = body.list("functions").texts();
    let functions = functions.iter().map(|text| text.parse::<PublisherName>()).collect::<Result<Vec<_>, _>>();
    let functions = functions.map_err(|reason| body.invalid("functions", reason))?;
    if functions.len() > FUNCTIONS_MAX {
        return Err(body.invalid("functions", format!("A publisher has up to {FUNCTIONS_MAX} functions.")));
    }
    if !submits && functions.is_empty() {
        return Err(body.invalid("submit", "A publisher that neither submits nor names a function could do nothing."));
    }
    let pool = body.required_id("poolId");
    let pool = api.read.pool(&pool).await.map_err(store_failed)?.ok_or_else(|| {
        Refusal::new(Code::PoolNotFound, "The specified pool does not exist.").with("PoolId", &pool).hint("Add the pool first.")
    })?;
    let publisher = Publisher { name, pool: pool.id, submits, functions };
    let name = publisher.name.as_str();
    let password = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; PASSWORD_BYTES]>());
    let url = url_for(&api.publishers.broker, name, &password);
    let Some(users) = &api.publishers.users else {
        let commands = publisher.commands(&vhost(&api.publishers.broker), &password);
        return Ok(Answer::own_json(201, view(&publisher, Some(url), commands)));
    };
    if users.list().await.map_err(failed)?.iter().any(|(known, _)| known == name) {
        return Err(Refusal::new(Code::OperationInvalidForCurrentState, "The broker has a user of this name already.")
            .with("Publisher", name)
            .hint("Choose another name, or remove the publisher first; it gets a new password then."));
    }
    users.put(publisher.user(), Secret::new(password)).await.map_err(failed)?;
    tracing::info!(publisher = name, pool = %publisher.pool, "a publisher was added");
    Ok(Answer::own_json(201, view(&publisher, Some(url), vec![])))
}

/// All publishers, without their passwords.
pub async fn all(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let Some(users) = &api.publishers.users else {
        return Err(Refusal::new(Code::OperationInvalidForCurrentState, "This dispatcher does not administer the users of its broker.")
            .hint("`rabbitmqctl list_users` shows publishers by their tags; start the dispatcher with --broker-admin-file to have them listed here."));
    };
    let listed = users.list().await.map_err(failed)?;
    let mut publishers: Vec<Publisher> = listed.iter().filter_map(|(name, tags)| Publisher::of(name, tags)).collect();
    publishers.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Ok(list(call, "piecework/publishers", publishers.iter().map(|publisher| view(publisher, None, vec![])), None))
}

/// Removes a publisher; its connections are closed.
pub async fn remove(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let name: PublisherName = call.value(0).parse().map_err(|_| unknown(call.value(0)))?;
    let name = name.as_str();
    let Some(users) = &api.publishers.users else {
        return Ok(Answer::own_json(200, json(&Removed { commands: vec![format!("rabbitmqctl delete_user {name}")] })));
    };
    // Other users of the broker are none of ours, whatever their name.
    let is_ours = |(known, tags): &Tagged| known == name && Publisher::of(known, tags).is_some();
    if !users.list().await.map_err(failed)?.iter().any(is_ours) {
        return Err(unknown(name));
    }
    match users.remove(name.to_owned()).await {
        Ok(()) | Err(BrokerUsersError::Unknown { .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    tracing::info!(publisher = name, "a publisher was removed");
    Ok(Answer::own_json(200, json(&Removed { commands: vec![] })))
}
