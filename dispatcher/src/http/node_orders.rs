//! What people order of a node: to take tasks or not, to start again, to rest; and what nodes here do not do.

use broker_config::{
    message::{FileReply, FileRequest},
    state::DeallocationOption,
};

use crate::{
    command::{Command, TurnKind},
    http::{
        answer::{Answer, Fields},
        call::Call,
        entrance::Door,
        node_files::unexpected,
        validate::Object,
    },
    refusal::{Code, Refusal},
};

/// Characters of a user's name and secrets.
const USER_NAME_MAX: usize = 20;
const PASSWORD_MAX: usize = 256;
const KEY_MAX: usize = 32_768;
/// Where the machine's own sshd listens.
const SSH_PORT: u16 = 22;

const OWN_ACCOUNTS: &str = "Nodes are processes of the machine they run on; add users to that machine and log in there.";

fn url(call: &Call) -> String {
    format!("{}/pools/{}/nodes/{}", call.base, call.value(0), call.value(1))
}

fn option(call: &Call, name: &str, words: &[&'static str]) -> Result<DeallocationOption, Refusal> {
    let body = call.optional_json()?;
    let body = Object::root(&body);
    // `az batch node scheduling disable` wraps its body into a property of the same name.
    let is_wrapped = body.value(name).is_some_and(|value| value.get(name).is_some());
    let word = if is_wrapped { body.required_object(name)?.choice(name, words)? } else { body.choice(name, words)? };
    Ok(word.and_then(DeallocationOption::parse).unwrap_or(DeallocationOption::Requeue))
}

async fn turn(door: &Door, call: &Call, kind: TurnKind, name: &str) -> Result<Answer, Refusal> {
    let (pool, node) = (call.pool()?, call.node()?);
    let option = option(call, name, &["requeue", "terminate", "taskcompletion", "retaineddata"])?;
    door.change(Command::TurnNode { pool, node, kind, option }).await?;
    Ok(Answer::empty(202).about(&url(call)))
}

/// Lets a node start again.
pub async fn reboot(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    turn(door, call, TurnKind::Reboot, "nodeRebootOption").await
}

/// Lets a node start again with empty folders.
pub async fn reimage(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    turn(door, call, TurnKind::Reimage, "nodeReimageOption").await
}

/// Stops a node and keeps it.
pub async fn deallocate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    turn(door, call, TurnKind::Deallocate, "nodeDeallocateOption").await
}

/// Starts a deallocated node.
pub async fn start(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let (pool, node) = (call.pool()?, call.node()?);
    let command = Command::TurnNode { pool, node, kind: TurnKind::Start, option: DeallocationOption::Requeue };
    door.change(command).await?;
    Ok(Answer::empty(202).about(&url(call)))
}

async fn switch(door: &Door, call: &Call, enabled: bool, option: DeallocationOption) -> Result<Answer, Refusal> {
    door.change(Command::SwitchScheduling { pool: call.pool()?, node: call.node()?, enabled, option }).await?;
    Ok(Answer::empty(200).about(&url(call)))
}

/// Gives a node no more tasks.
pub async fn disable_scheduling(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let option = option(call, "nodeDisableSchedulingOption", &["requeue", "terminate", "taskcompletion"])?;
    switch(door, call, false, option).await
}

/// Gives a node tasks again.
pub async fn enable_scheduling(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    switch(door, call, true, DeallocationOption::TaskCompletion).await
}

/// Where to log in: the machine's own address, and its own sshd.
pub async fn remote_login(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let row = door.node(&call.pool()?, &call.node()?).await?;
    let Some(address) = row.address else {
        return Err(Refusal::new(Code::NodeBeingCreated, "The specified node is being created.").with("NodeId", &row.id));
    };
    let fields = Fields::new(None)
        .always("odata.metadata", &format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.RemoteLoginSettings", call.base));
    Ok(Answer::json(fields.add("remoteLoginIPAddress", &address).add("remoteLoginPort", &SSH_PORT).finish()))
}

/// Lets a node upload its agent's log.
pub async fn upload_logs(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let body = call.json()?;
    let body = Object::root(&body);
    body.unsupported(&["identityReference"], "The configured blob store's credentials are used.")?;
    let container = body.required_text("containerUrl", KEY_MAX)?;
    if let Err(reason) = door.blobs.locate(container) {
        return Err(body.invalid("containerUrl", reason));
    }
    let from = body.time("startTime")?.ok_or_else(|| body.missing("startTime"))?;
    let until = body.time("endTime")?;
    if until.is_some_and(|until| until < from) {
        return Err(body.invalid("endTime", "It must not be before startTime."));
    }
    let row = door.node(&call.pool()?, &call.node()?).await?;
    let directory = format!("{}/{}/{}", row.pool, row.id, call.id);
    let request = FileRequest::UploadLogs { container_url: container.to_owned(), directory: directory.clone(), from, until };
    let files = match door.files.ask(&row.pool, &row.id, request).await? {
        FileReply::Uploading { files } => files,
        reply => return Err(unexpected(&reply)),
    };
    let fields = Fields::new(None)
        .always("odata.metadata", &format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.UploadBatchServiceLogs", call.base));
    Ok(Answer::json(fields.add("virtualDirectoryName", &directory).add("numberOfFilesUploaded", &files).finish()))
}

fn no_users() -> Refusal {
    Refusal::new(Code::OperationNotValidOnNode, "The specified operation is not valid on the node.").hint(OWN_ACCOUNTS)
}

fn credentials(body: &Object<'_>) -> Result<(), Refusal> {
    let password = body.text("password", PASSWORD_MAX)?;
    let key = body.text("sshPublicKey", KEY_MAX)?;
    if password.is_some() && key.is_some() {
        return Err(body.invalid("sshPublicKey", "It and password exclude each other."));
    }
    body.time("expiryTime").map(|_| ())
}

/// Users of nodes are those of their machine.
pub async fn add_user(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let body = call.json()?;
    let body = Object::root(&body);
    body.required_text("name", USER_NAME_MAX)?;
    body.flag("isAdmin")?;
    credentials(&body)?;
    door.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}

/// Users of nodes are those of their machine.
pub async fn update_user(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    credentials(&Object::root(&call.json()?))?;
    door.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}

/// Users of nodes are those of their machine.
pub async fn delete_user(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    door.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}
