//! Refusals of options that this server does not support.
//! An option that would be ignored is answered with 501, so that no client relies on it.

use s3s::dto::{ObjectCannedACL, StorageClass};
use s3s::{S3Result, s3_error};

/// Refuses a request that uses the option `what`.
pub(super) fn unsupported(is_wanted: bool, what: &str) -> S3Result<()> {
    if is_wanted {
        return Err(s3_error!(NotImplemented, "{what} is not supported by this server."));
    }
    Ok(())
}

/// The version id of objects in a store without versions.
pub(super) const NULL_VERSION: &str = "null";

/// Objects have no versions, so only the null version may be named.
pub(super) fn version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some(NULL_VERSION) => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// All objects have one owner, so `private` is the only supported access list.
pub(super) fn acl(acl: Option<&ObjectCannedACL>) -> S3Result<()> {
    let is_private = |acl: &ObjectCannedACL| [ObjectCannedACL::PRIVATE, ObjectCannedACL::BUCKET_OWNER_FULL_CONTROL].contains(&acl.as_str());
    unsupported(acl.is_some_and(|acl| !is_private(acl)), "An access list other than private")
}

/// Only the standard storage class is supported.
pub(super) fn storage_class(class: Option<&StorageClass>) -> S3Result<()> {
    match class {
        Some(class) if class.as_str() != StorageClass::STANDARD => {
            Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"))
        }
        _ => Ok(()),
    }
}

/// Refuses the unsupported options that put, copy and create-upload share.
macro_rules! refuse_extras {
    ($input:expr) => {{
        let input = &$input;
        $crate::service::refuse::acl(input.acl.as_ref())?;
        $crate::service::refuse::storage_class(input.storage_class.as_ref())?;
        let has_grant = input.grant_full_control.is_some()
            || input.grant_read.is_some()
            || input.grant_read_acp.is_some()
            || input.grant_write_acp.is_some();
        $crate::service::refuse::unsupported(has_grant, "Granting access")?;
        let is_encrypted = input.server_side_encryption.is_some()
            || input.ssekms_key_id.is_some()
            || input.sse_customer_algorithm.is_some()
            || input.sse_customer_key.is_some();
        $crate::service::refuse::unsupported(is_encrypted, "Server-side encryption")?;
        let is_locked = input.object_lock_mode.is_some()
            || input.object_lock_retain_until_date.is_some()
            || input.object_lock_legal_hold_status.is_some();
        $crate::service::refuse::unsupported(is_locked, "Object lock")?;
        $crate::service::refuse::unsupported(input.website_redirect_location.is_some(), "Website redirection")?;
    }};
}

pub(super) use refuse_extras;
