//! Operations that Azure Batch has retired or has on Windows only: certificates, remote desktop, single extensions.

use model::refusal::{Code, Refusal};

use crate::{answer::Answer, call::Call, state::ApiState};

/// Characters of an extension's name that an error repeats.
const NAME_MAX: usize = 1_024;

const INSTEAD: &str = "Certificates are retired; hand secrets to tasks by their environmentSettings or resourceFiles.";

/// Refused: certificates are not supported.
pub async fn add_certificate(_api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let thumbprint = call.json()?.root().required_text("thumbprint");
    Err(Refusal::new(Code::InvalidInput, "Certificates cannot be added.").with("Thumbprint", thumbprint).hint(INSTEAD))
}

/// Not found: there are no certificates.
pub async fn no_certificate(_api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    Err(Refusal::new(Code::CertificateNotFound, "The specified certificate does not exist.").with("Path", &call.path).hint(INSTEAD))
}

/// Refused: nodes run Linux; their login settings lead to SSH.
pub async fn remote_desktop(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.node(&call.pool()?, &call.node()?).await?;
    Err(Refusal::new(Code::OperationNotValidOnNode, "The specified operation is not valid on the node.")
        .with("Reason", "Remote desktop is a service of Windows nodes.")
        .hint("Use the node's remote login settings."))
}

/// Not found: nodes have no extensions.
pub async fn extension(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.node(&call.pool()?, &call.node()?).await?;
    Err(Refusal::new(Code::ResourceNotFound, "The specified resource does not exist.")
        .with("ExtensionName", call.value(2).chars().take(NAME_MAX).collect::<String>())
        .hint("Nodes have no extensions; listing them is empty."))
}
