//! Packages of functions: uploaded, checked against their names, and kept under them.
//!
//! ```text
//! PUT functionpackages/{sha256} ──► a URL to upload the zip to, or that it is there
//! POST or PATCH of a function names its hash ──► copied to where no URL reaches ──► hashed ──► kept under its hash
//! ```

use std::time::Duration;

use clients::blobs::BlobError;
use contract::{
    function::{PACKAGE_ENDING, PACKAGES},
    ids::RunId,
    time::Timestamp,
};
use model::refusal::{Code, Refusal};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    answer::{Answer, Iso},
    body::Object,
    call::Call,
    digest::hex,
    state::ApiState,
};

/// How long an upload may be begun with its URL.
const UPLOAD_TIME: Duration = Duration::from_secs(4 * 3600);
/// How long the blob store may take for one question.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);
/// Digits of a package's name.
const HASH_DIGITS: usize = 64;
/// Where packages wait for their check; the sweep removes blobs below `transfer/` after a while.
const UPLOADS: &str = "transfer/functions/";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PackageView<'a> {
    sha256: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url_expiry: Option<Iso>,
}

fn hash(text: &str) -> Option<String> {
    let is_hash = text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

fn key(hash: &str) -> String {
    format!("{PACKAGES}{hash}{PACKAGE_ENDING}")
}

fn upload_key(hash: &str) -> String {
    format!("{UPLOADS}{hash}{PACKAGE_ENDING}")
}

fn failed(error: &BlobError) -> Refusal {
    tracing::warn!(%error, "the blob store failed with the package of a function");
    Refusal::new(Code::ServerBusy, "The blob store did not answer as expected.").hint("Try again; the dispatcher's log names the cause.")
}

/// The length of a blob in Piecework's own bucket: a package that was checked has the key `key`.
async fn length(api: &ApiState, key: &str) -> Result<Option<u64>, Refusal> {
    let bucket = &api.blobs.settings().own_bucket;
    match tokio::time::timeout(BLOB_TIMEOUT, api.blobs.head(bucket, key)).await {
        Ok(Ok(info)) => Ok(Some(info.length)),
        Ok(Err(BlobError::NotFound { .. })) => Ok(None),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The blob store did not answer in time.")),
    }
}

/// The SHA-256 of a blob in Piecework's own bucket.
async fn digest(api: &ApiState, key: &str) -> Result<String, BlobError> {
    let mut stream = api.blobs.open(&api.blobs.settings().own_bucket, key, None).await?;
    let mut digest = Sha256::new();
    while let Some(chunk) = stream.next().await {
        digest.update(&chunk?);
    }
    Ok(hex(&digest.finalize()))
}

/// Moves what was uploaded under a hash to where nodes get it, if that is its hash; returns the hash that it has, or
/// nothing where nothing was uploaded.
async fn take(api: &ApiState, hash: &str) -> Result<Option<String>, BlobError> {
    let (blobs, bucket) = (&api.blobs, api.blobs.settings().own_bucket.as_str());
    // What was uploaded may be replaced as long as its URL is valid, so a copy is checked that no URL reaches.
    let (uploaded, held) = (upload_key(hash), format!("{UPLOADS}{}", RunId::random()));
    match blobs.copy(bucket, &uploaded, bucket, &held).await {
        Err(BlobError::NotFound { .. }) => return Ok(None),
        other => other?,
    }
    let found = digest(api, &held).await?;
    if found == hash {
        blobs.copy(bucket, &held, bucket, &key(hash)).await?;
    }
    blobs.delete_keys(bucket, &[held.as_str(), uploaded.as_str()]).await?;
    Ok(Some(found))
}

/// Refuses a package that no node could get, or that is not what its name says.
pub async fn check(api: &ApiState, call: &Call, body: &Object<'_>) -> Result<(), Refusal> {
    let Some(text) = body.text("package") else { return Ok(()) };
    let hash = hash(text).ok_or_else(|| body.invalid("package", "It is the SHA-256 of the zip, 64 hexadecimal digits."))?;
    if length(api, &key(&hash)).await?.is_some() {
        return Ok(());
    }
    // Whoever named a wrong hash is told so, however little patience the request has.
    let nothing = || {
        let hint = "PUT /piecework/functionpackages/{sha256} says where to upload the zip.";
        body.invalid("package", "Nothing has been uploaded under this hash.").hint(hint)
    };
    if length(api, &upload_key(&hash)).await?.is_none() {
        return Err(nothing());
    }
    match tokio::time::timeout(call.patience_with_others(), take(api, &hash)).await {
        Ok(Ok(Some(found))) if found == hash => Ok(()),
        Ok(Ok(Some(found))) => Err(body
            .invalid("package", format!("What was uploaded under this hash has another one, {found}; it is removed."))
            .hint("Upload it again; PUT /piecework/functionpackages/{sha256} says where.")),
        Ok(Ok(None)) => Err(nothing()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The package could not be checked in time.")
            .hint("Deploy it again; a smaller package takes less time.")),
    }
}

/// Says whether a package is there, and where to upload it.
pub async fn begin(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let hash = hash(call.value(0)).ok_or_else(|| {
        let refusal = Refusal::new(Code::InvalidUri, "The requested URI does not represent any resource on the server.");
        refusal.with("Reason", "A package is named by the SHA-256 of its zip, 64 hexadecimal digits.")
    })?;
    let bytes = length(api, &key(&hash)).await?;
    let mut view = PackageView { sha256: &hash, state: "active", bytes, upload_url: None, upload_url_expiry: None };
    if bytes.is_none() {
        let url = api.blobs.presign_put(&api.blobs.settings().own_bucket, &upload_key(&hash), UPLOAD_TIME).await;
        let url = url.map_err(|error| failed(&error))?;
        let expiry = Timestamp::now().plus_ms(UPLOAD_TIME.as_millis() as i64);
        view = PackageView { state: "pending", upload_url: Some(url), upload_url_expiry: Some(Iso(expiry)), ..view };
    }
    let text = serde_json::to_vec(&view).map_err(|_| Refusal::new(Code::InternalError, "The answer has no JSON form."))?;
    Ok(Answer::own_json(200, text))
}
