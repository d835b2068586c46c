//! Applications: Azure's lists of them, and Piecework's own operations to add, upload, activate and remove packages.
//!
//! ```text
//! PUT version ──► a URL to upload the zip to, straight into the blob store ──► POST activate ──► nodes may download it
//! ```

use std::time::Duration;

use clients::blobs::BlobError;
use contract::{
    ids::{ApplicationId, PackageVersion},
    time::Timestamp,
};
use engine::command::Command;
use model::{
    application::{ApplicationChange, ApplicationRow, PackageRow, Upload},
    condition::etag,
    refusal::{Code, Refusal},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Iso},
    body::Object,
    call::Call,
    error::{not_found, store_failed},
    lists::{Paging, ROWS_MAX},
    state::ApiState,
};

/// How long the upload URL is valid.
const UPLOAD_TIME: Duration = Duration::from_secs(4 * 3600);
/// Largest package: the limit of S3 for one request.
const PACKAGE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// First bytes of a zip, and of one without files.
const MAGICS: [&[u8; 4]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
/// Time limit of a request to the blob store.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);
/// Blobs of one application that one request removes at most.
const REMOVED_MAX: usize = 1_000;

/// An application as Azure shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    id: &'a str,
    display_name: &'a str,
    versions: Vec<&'a str>,
}

/// An application in Piecework's own operations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    allow_updates: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_version: Option<&'a str>,
    e_tag: String,
    creation_time: Iso,
    last_modified: Iso,
    versions: Vec<PackageView<'a>>,
}

/// A package in Piecework's own operations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PackageView<'a> {
    version: &'a str,
    state: &'static str,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activation_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url_expiry: Option<Iso>,
}

fn summary(row: &ApplicationRow) -> Vec<u8> {
    let active = row.packages.iter().filter(|package| package.active.is_some());
    let id = row.id.as_str();
    let versions = active.map(|package| package.version.as_str()).collect();
    json(&Summary { id, display_name: row.display_name.as_deref().unwrap_or(id), versions })
}

fn package_view(package: &PackageRow) -> PackageView<'_> {
    PackageView {
        version: package.version.as_str(),
        state: if package.active.is_some() { "active" } else { "pending" },
        format: "zip",
        bytes: package.active.as_ref().map(|active| active.bytes),
        last_activation_time: package.active.as_ref().map(|active| Iso(active.at)),
        upload_url: None,
        upload_url_expiry: None,
    }
}

fn view(row: &ApplicationRow) -> Vec<u8> {
    json(&View {
        id: row.id.as_str(),
        display_name: row.display_name.as_deref(),
        allow_updates: row.allow_updates,
        default_version: row.default_version.as_ref().map(PackageVersion::as_str),
        e_tag: etag(row.version),
        creation_time: Iso(row.created_at),
        last_modified: Iso(row.modified_at),
        versions: row.packages.iter().map(package_view).collect(),
    })
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views have a JSON form")
}

fn id(call: &Call) -> Result<ApplicationId, Refusal> {
    call.application()
}

/// Blob prefix of all uploads of an application or version.
fn prefix(application: &ApplicationId, version: Option<&PackageVersion>) -> String {
    let version = version.map(|version| format!("{version}/")).unwrap_or_default();
    format!("applications/{application}/{version}").to_ascii_lowercase()
}

async fn find(api: &ApiState, application: &ApplicationId) -> Result<ApplicationRow, Refusal> {
    let row = api.read.application(application).await.map_err(store_failed)?;
    row.ok_or_else(|| not_found(Code::ApplicationNotFound, application))
}

async fn page(api: &ApiState, call: &Call, kind: &str, show: fn(&ApplicationRow) -> Vec<u8>) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = api.read.applications(paging.all()).await.map_err(store_failed)?;
    Ok(paging.answer(call, kind, &rows, |row| row.id.as_str(), show))
}

/// A page of applications, as Azure shows them.
pub async fn summaries(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    page(api, call, "applications", summary).await
}

/// Handles `GET /applications/{id}`, which shows an application with its versions.
pub async fn get_summary(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = find(api, &id(call)?).await?;
    Ok(Answer::json(summary(&row)).changed(row.version, row.modified_at))
}

/// A page of applications with their packages.
pub async fn views(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    page(api, call, "piecework/applications", view).await
}

/// Handles the `GET` of Piecework's own resource, which shows the packages too.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = find(api, &id(call)?).await?;
    Ok(Answer::own_json(200, view(&row)).changed(row.version, row.modified_at))
}

/// Reads a change. With `is_whole` (PUT), properties that are not given go back to their defaults.
fn change(body: Object<'_>, is_whole: bool) -> ApplicationChange {
    let default: Option<PackageVersion> = body.id("defaultVersion");
    ApplicationChange {
        may_create: is_whole,
        display_name: body.owned("displayName").map(Some).or(is_whole.then_some(None)),
        allow_updates: body.flag("allowUpdates").or(is_whole.then_some(true)),
        default_version: default.map(Some).or(is_whole.then_some(None)),
    }
}

async fn put_or_patch(api: &ApiState, call: &Call, is_whole: bool) -> Result<Answer, Refusal> {
    let application = id(call)?;
    let change = change(call.optional_json()?.root(), is_whole);
    let is_there = api.read.application(&application).await.map_err(store_failed)?.is_some();
    api.change(Command::PutApplication(application.clone(), Box::new(change), call.condition.clone())).await?;
    let row = find(api, &application).await?;
    Ok(Answer::own_json(if is_there { 200 } else { 201 }, view(&row)).changed(row.version, row.modified_at))
}

/// Adds an application or replaces its properties.
pub async fn put(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    put_or_patch(api, call, true).await
}

/// Changes the given properties of an application.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    put_or_patch(api, call, false).await
}

/// Removes an application with its packages.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let application = find(api, &id(call)?).await?.id;
    let keys = keys(api, &prefix(&application, None)).await;
    api.change(Command::DeleteApplication(application, call.condition.clone())).await?;
    remove_blobs(api, &keys).await;
    Ok(Answer::empty(204))
}

/// Begins the upload of a version; the answer contains the upload URL.
pub async fn begin(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (application, version) = (id(call)?, call.package_version()?);
    let key = format!("{}{:016x}.zip", prefix(&application, Some(&version)), rand::random::<u64>());
    let url = api.blobs.presign_put(&api.blobs.settings().own_bucket, &key, UPLOAD_TIME).await.map_err(|error| failed(&error))?;
    let (tag, at) = api.change(Command::BeginPackage(application.clone(), version.clone(), key)).await?;
    let row = find(api, &application).await?;
    let package = row.package(&version).ok_or_else(|| not_found(Code::ResourceNotFound, &version))?;
    let expiry = Timestamp::now().plus_ms(UPLOAD_TIME.as_millis() as i64);
    let shown = PackageView { upload_url: Some(url), upload_url_expiry: Some(Iso(expiry)), ..package_view(package) };
    Ok(Answer::own_json(201, json(&shown)).changed(tag, at))
}

/// Activates an uploaded version after checking that it is a zip.
pub async fn activate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (application, version) = (id(call)?, call.package_version()?);
    let becomes_default = call.optional_json()?.root().flag("isDefault").unwrap_or(false);
    let row = find(api, &application).await?;
    let package = row.package(&version).ok_or_else(|| not_found(Code::ResourceNotFound, &version))?;
    let Some(key) = package.pending.clone() else {
        let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "No upload of this version has begun.");
        return Err(refusal.with("Version", &version).hint("Begin with PUT on the version; its answer says where to upload."));
    };
    let bytes = examine(api, &key).await?;
    let upload = Upload { key, bytes, becomes_default };
    let (tag, at) = api.change(Command::ActivatePackage(application.clone(), version.clone(), upload)).await?;
    let row = find(api, &application).await?;
    let package = row.package(&version).ok_or_else(|| not_found(Code::ResourceNotFound, &version))?;
    Ok(Answer::own_json(200, json(&package_view(package))).changed(tag, at))
}

/// The length of an upload; refuses one that is missing, too large or not a zip.
async fn examine(api: &ApiState, key: &str) -> Result<u64, Refusal> {
    let bucket = &api.blobs.settings().own_bucket;
    let late = |_| Refusal::new(Code::OperationTimedOut, "The blob store did not answer in time.");
    let info = tokio::time::timeout(BLOB_TIMEOUT, api.blobs.head(bucket, key)).await.map_err(late)?.map_err(|error| match error {
        BlobError::NotFound { .. } => Refusal::new(Code::OperationInvalidForCurrentState, "Nothing has been uploaded yet.")
            .hint("PUT the zip to the uploadUrl that the begin answered, then activate."),
        error => failed(&error),
    })?;
    if info.length > PACKAGE_BYTES_MAX {
        return Err(Refusal::new(Code::RequestBodyTooLarge, "The package is too large.").with("MaxLimit", PACKAGE_BYTES_MAX));
    }
    let length = info.length.min(MAGICS[0].len() as u64);
    let start = tokio::time::timeout(BLOB_TIMEOUT, api.blobs.get(bucket, key, Some(0..length), MAGICS[0].len())).await.map_err(late)?;
    let start = start.map_err(|error| failed(&error))?;
    if MAGICS.iter().any(|magic| start[..] == magic[..]) {
        return Ok(info.length);
    }
    Err(Refusal::new(Code::InvalidInput, "What was uploaded is not a zip.").with("Bytes", info.length))
}

/// Removes one version of an application.
pub async fn delete_version(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (application, version) = (id(call)?, call.package_version()?);
    let keys = keys(api, &prefix(&application, Some(&version))).await;
    api.change(Command::DeletePackage(application, version)).await?;
    remove_blobs(api, &keys).await;
    Ok(Answer::empty(204))
}

fn failed(error: &BlobError) -> Refusal {
    tracing::warn!(%error, "the blob store failed a request about an application package; the client is asked to try again");
    Refusal::new(Code::ServerBusy, "The blob store did not answer as expected.").hint("Try again; the dispatcher's log names the cause.")
}

/// Blob keys of all uploads below a prefix. Read before the rows are deleted, so that uploads begun later are kept.
async fn keys(api: &ApiState, prefix: &str) -> Vec<String> {
    let listing = api.blobs.list(&api.blobs.settings().own_bucket, prefix, None, REMOVED_MAX);
    match tokio::time::timeout(BLOB_TIMEOUT, listing).await {
        Ok(Ok(page)) => page.blobs.into_iter().map(|blob| blob.key).collect(),
        Ok(Err(error)) => {
            tracing::warn!(%error, prefix, "blobs of a removed package cannot be listed and stay in the bucket");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(prefix, "blobs of a removed package are left behind: the blob store is slow");
            Vec::new()
        }
    }
}

/// Deletes blobs whose rows are gone. Failures only leave unused blobs behind.
async fn remove_blobs(api: &ApiState, keys: &[String]) {
    let bucket = &api.blobs.settings().own_bucket;
    let removing = async {
        for key in keys {
            api.blobs.delete(bucket, key).await?;
        }
        Ok::<(), BlobError>(())
    };
    match tokio::time::timeout(BLOB_TIMEOUT, removing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "blobs of a removed package cannot be listed and stay in the bucket"),
        Err(_) => tracing::warn!("blobs of a removed package are left behind: the blob store is slow"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::tried;

    #[test]
    fn a_put_resets_what_it_leaves_out_and_a_post_does_not() {
        let read = |body: serde_json::Value, is_whole| tried("ApplicationParameter", &body, |body| Ok(change(body, is_whole))).unwrap();
        let put = read(json!({"displayName": "d"}), true);
        assert_eq!((put.display_name, put.allow_updates, put.default_version), (Some(Some("d".to_owned())), Some(true), Some(None)));
        let post = read(json!({"allowUpdates": "false"}), false);
        assert_eq!((post.display_name, post.allow_updates, post.default_version), (None, Some(false), None));
        assert!(tried("ApplicationParameter", &json!({"defaultVersion": "../1"}), |_| Ok(())).is_err());
    }

    #[test]
    fn uploads_lie_where_nodes_unpack_them() {
        let (application, version) = ("My-App".parse().unwrap(), "1.0-B".parse().unwrap());
        assert_eq!(prefix(&application, Some(&version)), "applications/my-app/1.0-b/");
    }
}
