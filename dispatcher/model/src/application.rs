//! An application and the versions of its package.

use contract::{
    ids::{ApplicationId, PackageVersion},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// What to change of an application; absent parts stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationChange {
    /// Whether it is added when there is none.
    pub may_create: bool,
    /// What people call it.
    pub display_name: Option<Option<String>>,
    /// Whether a version that is there may be uploaded again.
    pub allow_updates: Option<bool>,
    /// What references without a version mean.
    pub default_version: Option<Option<PackageVersion>>,
}

/// An upload that was seen in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// Whether references without a version mean it from now on.
    pub becomes_default: bool,
}

/// An application; the engine keeps it in memory, API handlers read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationRow {
    /// Its name.
    pub id: ApplicationId,
    /// For the ETag.
    pub version: u64,
    /// What people call it.
    pub display_name: Option<String>,
    /// Whether a version that is there may be uploaded again.
    pub allow_updates: bool,
    /// What references without a version mean.
    pub default_version: Option<PackageVersion>,
    /// Its packages, by version.
    pub packages: Vec<PackageRow>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it changed.
    pub modified_at: Timestamp,
}

/// One version of an application's package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRow {
    /// The version.
    pub version: PackageVersion,
    /// The zip that nodes get, once one was activated.
    pub active: Option<ActivePackage>,
    /// The key of an upload that is not activated yet.
    pub pending: Option<String>,
}

/// A zip that nodes may get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePackage {
    /// Its key in Piecework's own bucket; each upload has its own.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// When it was activated.
    pub at: Timestamp,
}

impl ApplicationRow {
    /// One of its packages.
    pub fn package(&self, version: &PackageVersion) -> Option<&PackageRow> {
        self.packages.iter().find(|package| package.version == *version)
    }

    /// The zip of a version, or of the default version when none is named.
    pub fn active(&self, version: Option<&PackageVersion>) -> Option<(&PackageVersion, &ActivePackage)> {
        let package = self.package(version.or(self.default_version.as_ref())?)?;
        package.active.as_ref().map(|active| (&package.version, active))
    }
}
