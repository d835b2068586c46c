//! An application and the versions of its package.

use contract::{
    ids::{ApplicationId, PackageVersion},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// A change of an application; `None` leaves a part as it is, `Some(None)` clears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationChange {
    /// Whether the application is created when it does not exist (PUT), or the request is refused (PATCH).
    pub may_create: bool,
    pub display_name: Option<Option<String>>,
    /// Whether a package version that exists may be uploaded again.
    pub allow_updates: Option<bool>,
    /// The version that a reference without a version means.
    pub default_version: Option<Option<PackageVersion>>,
}

/// An uploaded package that was found in the blob store and is to be activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub key: String,
    pub bytes: u64,
    /// Whether this version becomes the application's default version.
    pub becomes_default: bool,
}

/// An application with its packages. The engine keeps all of them in memory; API handlers read them from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationRow {
    pub id: ApplicationId,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub display_name: Option<String>,
    /// Whether a package version that exists may be uploaded again.
    pub allow_updates: bool,
    /// The version that a reference without a version means.
    pub default_version: Option<PackageVersion>,
    /// The packages, sorted by version.
    pub packages: Vec<PackageRow>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// A version of an application's package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRow {
    pub version: PackageVersion,
    /// The zip that nodes download; `None` until an upload was activated.
    pub active: Option<ActivePackage>,
    /// Blob key of an upload that is not activated yet.
    pub pending: Option<String>,
}

/// An activated zip, which nodes may download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePackage {
    /// Key in Piecework's own bucket; each upload gets a new one, so nodes never see a zip change.
    pub key: String,
    pub bytes: u64,
    pub at: Timestamp,
}

impl ApplicationRow {
    /// The package of this version.
    pub fn package(&self, version: &PackageVersion) -> Option<&PackageRow> {
        self.packages.iter().find(|package| package.version == *version)
    }

    /// The activated zip of a version, or of the default version when `version` is `None`.
    pub fn active(&self, version: Option<&PackageVersion>) -> Option<(&PackageVersion, &ActivePackage)> {
        let package = self.package(version.or(self.default_version.as_ref())?)?;
        package.active.as_ref().map(|active| (&package.version, active))
    }
}
