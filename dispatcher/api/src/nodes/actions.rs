//! Requests for nodes: scheduling, reboot, reimage, deallocate, start, remote login, logs; and refused user management.

use contract::{
    message::{FileReply, FileRequest},
    state::DeallocationOption,
};
use engine::command::Command;
use model::{
    node::NodeActionKind,
    refusal::{Code, Refusal},
};

use crate::{
    answer::{Answer, Fields},
    call::Call,
    nodes::place::unexpected,
    shared_body::place,
    state::ApiState,
};

/// Port of the machine's own sshd.
const SSH_PORT: u16 = 22;

const OWN_ACCOUNTS: &str = "Nodes are processes of the machine they run on; add users to that machine and log in there.";

fn url(call: &Call) -> String {
    format!("{}/pools/{}/nodes/{}", call.base, call.value(0), call.value(1))
}

fn option(call: &Call, name: &str) -> Result<DeallocationOption, Refusal> {
    let word = call.optional_json()?.root().word(name);
    Ok(word.and_then(DeallocationOption::parse).unwrap_or(DeallocationOption::Requeue))
}

async fn action(api: &ApiState, call: &Call, kind: NodeActionKind, name: &str) -> Result<Answer, Refusal> {
    let (pool, node) = (call.pool()?, call.node()?);
    let option = option(call, name)?;
    api.change(Command::ActOnNode { pool, node, kind, option }).await?;
    Ok(Answer::empty(202).about(&url(call)))
}

/// Reboots a node: restarts its agent.
pub async fn reboot(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    action(api, call, NodeActionKind::Reboot, "nodeRebootOption").await
}

/// Reimages a node: restarts its agent with empty folders.
pub async fn reimage(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    action(api, call, NodeActionKind::Reimage, "nodeReimageOption").await
}

/// Deallocates a node: stops it and keeps it.
pub async fn deallocate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    action(api, call, NodeActionKind::Deallocate, "nodeDeallocateOption").await
}

/// Starts a deallocated node.
pub async fn start(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (pool, node) = (call.pool()?, call.node()?);
    let command = Command::ActOnNode { pool, node, kind: NodeActionKind::Start, option: DeallocationOption::Requeue };
    api.change(command).await?;
    Ok(Answer::empty(202).about(&url(call)))
}

async fn switch(api: &ApiState, call: &Call, enabled: bool, option: DeallocationOption) -> Result<Answer, Refusal> {
    api.change(Command::SwitchScheduling { pool: call.pool()?, node: call.node()?, enabled, option }).await?;
    Ok(Answer::empty(200).about(&url(call)))
}

/// Disables scheduling: the node gets no more tasks.
pub async fn disable_scheduling(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let option = option(call, "nodeDisableSchedulingOption")?;
    switch(api, call, false, option).await
}

/// Enables scheduling again.
pub async fn enable_scheduling(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    switch(api, call, true, DeallocationOption::TaskCompletion).await
}

/// Address and port of the machine's sshd.
pub async fn remote_login(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = api.node(&call.pool()?, &call.node()?).await?;
    let Some(address) = row.properties.address else {
        return Err(Refusal::new(Code::NodeBeingCreated, "The specified node is being created.").with("NodeId", &row.id));
    };
    let fields = Fields::new(None, &[])
        .always("odata.metadata", &format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.RemoteLoginSettings", call.base));
    Ok(Answer::json(fields.add("remoteLoginIPAddress", &address).add("remoteLoginPort", &SSH_PORT).finish()))
}

/// Makes a node upload its agent's log.
pub async fn upload_logs(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let body = call.json()?;
    let body = body.root();
    let (container, _) = place(&body, "containerUrl")?.ok_or_else(|| body.missing("containerUrl"))?;
    let from = body.time("startTime").ok_or_else(|| body.missing("startTime"))?;
    let until = body.time("endTime");
    if until.is_some_and(|until| until < from) {
        return Err(body.invalid("endTime", "It must not be before startTime."));
    }
    let row = api.node(&call.pool()?, &call.node()?).await?;
    let directory = format!("{}/{}/{}", row.pool, row.id, call.id);
    let request = FileRequest::UploadLogs { container_url: container.to_owned(), directory: directory.clone(), from, until };
    let files = match api.files.ask(&row.pool, &row.id, request).await? {
        FileReply::Uploading { files } => files,
        reply => return Err(unexpected(&reply)),
    };
    let fields = Fields::new(None, &[])
        .always("odata.metadata", &format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.UploadBatchServiceLogs", call.base));
    Ok(Answer::json(fields.add("virtualDirectoryName", &directory).add("numberOfFilesUploaded", &files).finish()))
}

fn no_users() -> Refusal {
    Refusal::new(Code::OperationNotValidOnNode, "The specified operation is not valid on the node.").hint(OWN_ACCOUNTS)
}

/// Refused: users of nodes are those of their machine.
pub async fn add_user(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    call.json()?;
    api.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}

/// Refused: users of nodes are those of their machine.
pub async fn update_user(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    call.json()?;
    api.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}

/// Refused: users of nodes are those of their machine.
pub async fn delete_user(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.node(&call.pool()?, &call.node()?).await?;
    Err(no_users())
}
