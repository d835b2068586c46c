//! Reads what bodies of pools, jobs and tasks share: environment, resource files, identities, metadata.

use clients::blobs::{BlobError, Location};
use contract::spec::{EnvironmentSetting, PackageReference, ResourceFile};
use model::refusal::{Code, Refusal};
use serde_json::{Value, json};

use crate::body::Object;

/// Bytes of all metadata of one resource.
const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a path, and of one of its segments.
const PATH_MAX: usize = 4_096;
const PART_MAX: usize = 255;

const PLACES: &str = "Give s3://BUCKET/PREFIX, or the configured blob store's own URL of a bucket, without a query.";

/// Why a path does not lead below a task's directory.
pub fn path_fault(path: &str) -> Option<&'static str> {
    let is_drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    match path {
        _ if path.len() > PATH_MAX => Some("The path is longer than 4096 bytes."),
        _ if path.starts_with('/') || path.starts_with('\\') || is_drive => Some("The path must be relative."),
        _ if path.contains(|c: char| c.is_control()) => Some("The path may not hold control characters."),
        _ if path.split(['/', '\\']).any(|part| part == "..") => Some("The path may not hold '..'."),
        _ if path.split('/').any(|part| part.len() > PART_MAX) => Some("A part of the path is longer than 255 bytes."),
        _ => None,
    }
}

/// A command line that is not blank.
pub fn command_line(body: &Object<'_>) -> Result<String, Refusal> {
    let text = body.required_text("commandLine");
    if text.trim().is_empty() { Err(body.invalid("commandLine", "It may not be blank.")) } else { Ok(text) }
}

/// `metadata` as a list to store.
pub fn metadata(body: &Object<'_>) -> Result<Vec<Value>, Refusal> {
    let mut bytes = 0;
    body.list("metadata").each(|item| {
        let (name, value) = (item.required_text("name"), item.required_text("value"));
        if name.is_empty() {
            return Err(Refusal::new(Code::EmptyMetadataKey, "The key for one of the metadata key-value pairs is empty."));
        }
        bytes += name.len() + value.len();
        if bytes > METADATA_BYTES_MAX {
            return Err(Refusal::new(Code::MetadataTooLarge, "The size of the specified metadata exceeds the maximum size permitted.")
                .with("MaxLimit", METADATA_BYTES_MAX));
        }
        Ok(json!({"name": name, "value": value}))
    })
}

/// Environment settings in the property `name`.
pub fn environment(body: &Object<'_>, name: &str) -> Result<Vec<EnvironmentSetting>, Refusal> {
    body.list(name).each(|item| {
        let setting: EnvironmentSetting = item.plain();
        let is_variable = !setting.name.contains('=');
        is_variable.then_some(setting).ok_or_else(|| item.invalid("name", "A variable's name may not hold '='."))
    })
}

/// `applicationPackageReferences`, without repetitions.
pub fn packages(body: &Object<'_>) -> Result<Vec<PackageReference>, Refusal> {
    let mut packages: Vec<PackageReference> = Vec::new();
    body.list("applicationPackageReferences").each(|item| {
        let package: PackageReference = item.plain();
        if packages.contains(&package) {
            return Err(item.invalid("applicationId", "The same package is named twice."));
        }
        packages.push(package);
        Ok(())
    })?;
    Ok(packages)
}

/// A URL with one of these schemes, a host, and no spaces.
pub fn url<'a>(item: &Object<'a>, name: &str, schemes: &[&str]) -> Result<Option<&'a str>, Refusal> {
    let Some(text) = item.text(name) else { return Ok(None) };
    let scheme_of = |scheme: &&&str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = schemes.iter().find(scheme_of) else {
        return Err(item.invalid(name, format!("A URL with one of these beginnings is expected: {}.", schemes.join(", "))));
    };
    let host = text[scheme.len()..].split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(item.invalid(name, "The URL has no host, or holds white space."));
    }
    Ok(Some(text))
}

/// A container of the blob store that nodes access with their own credentials: as given, and as resolved.
pub fn place<'a>(item: &Object<'a>, name: &str) -> Result<Option<(&'a str, Location)>, Refusal> {
    let Some(text) = url(item, name, &["s3://", "http://", "https://"])? else { return Ok(None) };
    match item.places().locate(text) {
        Ok(location) => Ok(Some((text, location))),
        Err(error) => Err(item.invalid(name, place_fault(&error)).hint(PLACES)),
    }
}

fn place_fault(error: &BlobError) -> String {
    match error {
        BlobError::Url { why, .. } => format!("Nodes cannot use this place: {why}."),
        other => format!("Nodes cannot use this place: {other}."),
    }
}

/// `resourceFiles`: each has exactly one source and a path inside the working directory.
pub fn resource_files(body: &Object<'_>) -> Result<Vec<ResourceFile>, Refusal> {
    body.list("resourceFiles").each(|item| {
        // The name of httpUrl before 2018-12-01.
        let http_url = match url(&item, "httpUrl", &["http://", "https://"])? {
            None => url(&item, "blobSource", &["http://", "https://"])?,
            given => given,
        };
        let storage = place(&item, "storageContainerUrl")?.map(|(url, _)| url);
        let own = item.text("autoStorageContainerName");
        if own.is_some_and(|name| {
            name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.')
        }) {
            return Err(item.invalid("autoStorageContainerName", "A container's name has 3 to 63 lower-case letters, digits, '-' and '.'."));
        }
        if let Some(Err(error)) = own.map(|name| item.places().locate(&format!("s3://{name}"))) {
            return Err(item.invalid("autoStorageContainerName", place_fault(&error)));
        }
        let sources = [http_url.is_some(), storage.is_some(), own.is_some()].iter().filter(|is_given| **is_given).count();
        if sources != 1 {
            return Err(item.invalid("httpUrl", "Exactly one of httpUrl, storageContainerUrl and autoStorageContainerName is expected."));
        }
        if item.value("blobPrefix").is_some() && http_url.is_some() {
            return Err(item.invalid("blobPrefix", "It goes with a container only."));
        }
        let file_path = item.text("filePath");
        if let Some(reason) = file_path.and_then(path_fault) {
            return Err(item.invalid("filePath", reason));
        }
        if http_url.is_some() {
            match file_path {
                None => return Err(item.missing("filePath")),
                Some(path) if path.is_empty() || path.ends_with(['/', '\\']) || path == "." => {
                    return Err(item.invalid("filePath", "It must name a file."));
                }
                Some(_) => {}
            }
        }
        if item
            .text("fileMode")
            .is_some_and(|mode| !(3..=4).contains(&mode.len()) || !mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
        {
            return Err(item.invalid("fileMode", "An octal mode such as 0770 is expected."));
        }
        Ok(ResourceFile { http_url: http_url.map(str::to_owned), ..item.plain() })
    })
}

/// The identity of tasks for which none is given.
pub const DEFAULT_IDENTITY: &str = r#"{"autoUser":{"scope":"pool","elevationLevel":"nonadmin"}}"#;

/// `userIdentity`: the automatic user; tasks run as their agent's user, and named users are not supported.
pub fn user_identity(body: &Object<'_>) -> Option<Value> {
    let identity = body.object("userIdentity")?;
    let user = identity.object("autoUser")?;
    let (scope, level) = (user.word("scope").unwrap_or("pool"), user.word("elevationLevel").unwrap_or("nonadmin"));
    Some(json!({"autoUser": {"scope": scope, "elevationLevel": level}}))
}

/// `userIdentity` as GET shows it, also when none was given.
pub fn shown_identity(body: &Object<'_>) -> Value {
    user_identity(body).unwrap_or_else(|| serde_json::from_str(DEFAULT_IDENTITY).expect("the default identity is JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::tried;

    #[test]
    fn packages_are_named_once_and_there_are_few() {
        let read = |list: Value| tried("PoolPatchParameter", &json!({"applicationPackageReferences": list}), |body| packages(&body));
        let found = read(json!([{"applicationId": "a"}, {"applicationId": "a", "version": "1.0"}])).unwrap();
        assert_eq!((found[0].version.as_ref(), found[1].version.as_ref().unwrap().as_str()), (None, "1.0"));
        let many: Vec<Value> = (0..11).map(|n| json!({"applicationId": format!("a{n}")})).collect();
        for list in
            [json!([{"version": "1"}]), json!([{"applicationId": "a b"}]), json!([{"applicationId": "a", "version": ".."}]), json!(many)]
        {
            assert!(read(list.clone()).is_err(), "{list}");
        }
        let refusal = read(json!([{"applicationId": "a"}, {"applicationId": "A"}])).unwrap_err();
        assert_eq!(refusal.values[0].1, "applicationPackageReferences[1].applicationId");
    }

    fn files(file: Value) -> Result<Vec<ResourceFile>, Refusal> {
        tried("TaskAddParameter", &json!({"id": "t", "commandLine": "x", "resourceFiles": [file]}), |body| resource_files(&body))
    }

    #[test]
    fn a_resource_file_has_one_source_and_stays_below_its_directory() {
        assert!(files(json!({"httpUrl": "http://h/x?sig=1", "filePath": "in/x.txt", "fileMode": "0755"})).is_ok());
        assert!(files(json!({"storageContainerUrl": "s3://box/p", "blobPrefix": "a/"})).is_ok());
        let old = files(json!({"blobSource": "http://h/x", "filePath": "x"})).unwrap();
        assert_eq!(old[0].http_url.as_deref(), Some("http://h/x"));
        assert!(files(json!({"autoStorageContainerName": "inputs", "filePath": "dir"})).is_ok());
        for file in [
            json!({}),
            json!({"filePath": "x"}),
            json!({"httpUrl": "http://h/x"}),
            json!({"httpUrl": "ftp://h/x", "filePath": "x"}),
            json!({"httpUrl": "http:///x", "filePath": "x"}),
            json!({"httpUrl": "http://h/x", "storageContainerUrl": "s3://box", "filePath": "x"}),
            json!({"httpUrl": "http://h/x", "filePath": "../x"}),
            json!({"httpUrl": "http://h/x", "filePath": "a/../../x"}),
            json!({"httpUrl": "http://h/x", "filePath": "a\\..\\x"}),
            json!({"httpUrl": "http://h/x", "filePath": "/etc/passwd"}),
            json!({"httpUrl": "http://h/x", "filePath": "C:\\x"}),
            json!({"httpUrl": "http://h/x", "filePath": "a\u{0}b"}),
            json!({"httpUrl": "http://h/x", "filePath": "dir/"}),
            json!({"httpUrl": "http://h/x", "filePath": "x".repeat(300)}),
            json!({"httpUrl": "http://h/x", "filePath": "x", "fileMode": "0899"}),
            json!({"httpUrl": "http://h/x", "filePath": "x", "blobPrefix": "y"}),
            json!({"autoStorageContainerName": "Not Valid"}),
            json!({"autoStorageContainerName": "piecework-own"}),
            json!({"storageContainerUrl": "https://account.blob.core.windows.net/c?sig=1"}),
            json!({"storageContainerUrl": "s3://box?sig=1"}),
            json!({"storageContainerUrl": "s3://piecework-own/x"}),
        ] {
            assert!(files(file.clone()).is_err(), "{file}");
        }
    }
}
