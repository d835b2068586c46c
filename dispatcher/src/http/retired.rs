//! What Azure Batch has given up, or has on Windows only: certificates, remote desktop, and single extensions.

use crate::{
    http::{answer::Answer, call::Call, entrance::Door, error::not_found, error::store_failed, validate::Object},
    refusal::{Code, Refusal},
};

/// Characters of a thumbprint, of its algorithm, and of what is asked of a certificate.
const THUMBPRINT_MAX: usize = 1_024;
const DATA_MAX: usize = 1024 * 1024;

const INSTEAD: &str = "Certificates are retired; hand secrets to tasks by their environmentSettings or resourceFiles.";

/// No certificate can be added.
pub async fn add_certificate(_door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let body = call.json()?;
    let body = Object::root(&body);
    let thumbprint = body.required_text("thumbprint", THUMBPRINT_MAX)?;
    body.required_text("thumbprintAlgorithm", THUMBPRINT_MAX)?;
    body.required_text("data", DATA_MAX)?;
    body.choice("certificateFormat", &["pfx", "cer"])?;
    Err(Refusal::new(Code::InvalidInput, "Certificates cannot be added.").with("Thumbprint", thumbprint).hint(INSTEAD))
}

/// No certificate is there to be read, deleted, or kept from being deleted.
pub async fn no_certificate(_door: &Door, call: &Call) -> Result<Answer, Refusal> {
    Err(Refusal::new(Code::CertificateNotFound, "The specified certificate does not exist.").with("Path", &call.path).hint(INSTEAD))
}

async fn check_node(door: &Door, call: &Call) -> Result<(), Refusal> {
    let (pool, node) = (call.pool()?, call.node()?);
    if door.read.pool(&pool).await.map_err(store_failed)?.is_none() {
        return Err(not_found(Code::PoolNotFound, &pool));
    }
    match door.read.node(&pool, &node).await.map_err(store_failed)? {
        Some(_) => Ok(()),
        None => Err(not_found(Code::NodeNotFound, &node)),
    }
}

/// Nodes run Linux; their login settings lead to SSH.
pub async fn remote_desktop(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    check_node(door, call).await?;
    Err(Refusal::new(Code::OperationNotValidOnNode, "The specified operation is not valid on the node.")
        .with("Reason", "Remote desktop is a service of Windows nodes.")
        .hint("Use the node's remote login settings."))
}

/// No node has an extension.
pub async fn extension(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    check_node(door, call).await?;
    Err(Refusal::new(Code::ResourceNotFound, "The specified resource does not exist.")
        .with("ExtensionName", call.value(2).chars().take(THUMBPRINT_MAX).collect::<String>())
        .hint("Nodes have no extensions; listing them is empty."))
}
