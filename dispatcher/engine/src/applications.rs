//! Changes of applications that clients request, and the packages that references resolve to.
//!
//! ```text
//! begin (a blob key for the upload) ──► pending ──activate──► active: nodes may download it
//! ```

use std::cmp::Ordering;

use contract::{
    ids::{ApplicationId, PackageVersion},
    spec::{Package, PackageReference, TaskSpec},
    time::Timestamp,
};
use model::{
    application::{ActivePackage, ApplicationChange, ApplicationRow, PackageRow, Upload},
    condition::Condition,
    refusal::{Code, Refusal},
};

use crate::{command::Done, command_error::CommandError, world::World};

/// Applications of an account at most, as in Azure.
const APPLICATIONS_MAX: usize = 20;
/// Versions of one application at most, as in Azure.
const VERSIONS_MAX: usize = 40;

fn missing(application: &ApplicationId) -> Refusal {
    Refusal::new(Code::ApplicationNotFound, "The specified application does not exist.").with("ApplicationId", application)
}

fn missing_version(version: &PackageVersion) -> Refusal {
    Refusal::new(Code::ResourceNotFound, "The application has no such version.").with("Version", version)
}

fn too_many(what: &str, most: usize) -> Refusal {
    let refusal = Refusal::new(Code::OperationInvalidForCurrentState, format!("There are as many {what} as there may be."));
    refusal.with("MaxLimit", most).hint("Delete one that is not needed any more.")
}

impl World {
    fn open_application(&self, id: &ApplicationId, condition: &Condition) -> Result<&ApplicationRow, Refusal> {
        let row = self.applications.get(id).ok_or_else(|| missing(id))?;
        condition.check(row.version, row.modified_at)?;
        Ok(row)
    }

    fn keep_application(&mut self, mut row: ApplicationRow, now: Timestamp) -> Result<Done, CommandError> {
        (row.version, row.modified_at) = (self.next_version(), now);
        self.store.put_application(&row)?;
        let done = Done::Changed { version: row.version, at: now };
        self.applications.insert(row.id.clone(), row);
        Ok(done)
    }

    pub(super) fn put_application(
        &mut self,
        id: ApplicationId,
        change: ApplicationChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let mut row = match self.open_application(&id, condition) {
            Ok(row) => row.clone(),
            Err(refusal) if refusal.code != Code::ApplicationNotFound || !change.may_create => return Err(refusal.into()),
            Err(_) if self.applications.len() >= APPLICATIONS_MAX => return Err(too_many("applications", APPLICATIONS_MAX).into()),
            Err(_) => ApplicationRow {
                id,
                version: 0,
                display_name: None,
                allow_updates: true,
                default_version: None,
                packages: Vec::new(),
                created_at: now,
                modified_at: now,
            },
        };
        row.display_name = change.display_name.unwrap_or(row.display_name);
        row.allow_updates = change.allow_updates.unwrap_or(row.allow_updates);
        if let Some(default) = change.default_version {
            if let Some(version) = &default {
                is_active(&row, version)?;
            }
            row.default_version = default;
        }
        self.keep_application(row, now)
    }

    pub(super) fn delete_application(&mut self, id: &ApplicationId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        self.open_application(id, condition)?;
        self.store.delete_application(id)?;
        self.applications.remove(id);
        Ok(Done::Changed { version: self.version, at: now })
    }

    pub(super) fn begin_package(
        &mut self,
        id: &ApplicationId,
        version: PackageVersion,
        key: String,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let mut row = self.open_application(id, &Condition::default())?.clone();
        let count = row.packages.len();
        let allow_updates = row.allow_updates;
        match row.packages.iter_mut().find(|package| package.version == version) {
            Some(package) if package.active.is_some() && !allow_updates => {
                let refusal =
                    Refusal::new(Code::OperationInvalidForCurrentState, "The version exists, and its application allows no updates.");
                return Err(refusal.with("Version", &version).hint("Upload it as another version, or set allowUpdates to true.").into());
            }
            Some(package) => package.pending = Some(key),
            None if count >= VERSIONS_MAX => return Err(too_many("versions of this application", VERSIONS_MAX).into()),
            None => row.packages.push(PackageRow { version, active: None, pending: Some(key) }),
        }
        self.keep_application(row, now)
    }

    pub(super) fn activate_package(
        &mut self,
        id: &ApplicationId,
        version: &PackageVersion,
        upload: Upload,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let mut row = self.open_application(id, &Condition::default())?.clone();
        let Some(package) = row.packages.iter_mut().find(|package| package.version == *version) else {
            return Err(missing_version(version).into());
        };
        if package.pending.as_ref() != Some(&upload.key) {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "Another upload of this version has begun or was activated.");
            return Err(refusal.with("Version", version).hint("Begin again: PUT the version, upload, activate.").into());
        }
        package.pending = None;
        package.active = Some(ActivePackage { key: upload.key, bytes: upload.bytes, at: now });
        if upload.becomes_default {
            row.default_version = Some(version.clone());
        }
        self.keep_application(row, now)
    }

    pub(super) fn delete_package(&mut self, id: &ApplicationId, version: &PackageVersion, now: Timestamp) -> Result<Done, CommandError> {
        let mut row = self.open_application(id, &Condition::default())?.clone();
        if row.package(version).is_none() {
            return Err(missing_version(version).into());
        }
        row.packages.retain(|package| package.version != *version);
        row.default_version = row.default_version.filter(|default| default.cmp(version) != Ordering::Equal);
        self.keep_application(row, now)
    }

    /// Refuses references to packages that do not exist or are not activated.
    pub(super) fn check_packages(&self, references: &[PackageReference]) -> Result<(), Refusal> {
        let is_bad = |reference: &&PackageReference| {
            self.applications.get(&reference.application_id).is_none_or(|row| row.active(reference.version.as_ref()).is_none())
        };
        let mut bad = references.iter().filter(is_bad).peekable();
        if bad.peek().is_none() {
            return Ok(());
        }
        let mut refusal =
            Refusal::new(Code::InvalidApplicationPackageReferences, "One or more application package references could not be satisfied.");
        for reference in bad {
            let (id, what) = (&reference.application_id, "The specified application package does not exist.");
            refusal = match &reference.version {
                None => refusal.with(id.as_str(), what),
                Some(version) => refusal.with(&format!("{id}:{version}"), what),
            };
        }
        Err(refusal.hint("Upload the package first (piecework app upload), and give the application a default version."))
    }

    /// The packages that references resolve to. A package that was deleted since has no blob, and the node reports it
    /// missing.
    pub(super) fn packages(&self, references: &[PackageReference]) -> Vec<Package> {
        let resolve = |reference: &PackageReference| {
            let found = self.applications.get(&reference.application_id).and_then(|row| row.active(reference.version.as_ref()));
            Package {
                application: reference.application_id.clone(),
                version: found.map(|(version, _)| version.clone()).or(reference.version.clone()),
                is_default: reference.version.is_none(),
                blob: found.map(|(_, active)| active.key.clone()),
            }
        };
        references.iter().map(resolve).collect()
    }

    /// Resolves the package references of a task in its spec.
    pub(super) fn equip(&self, spec: &mut TaskSpec) {
        spec.packages = self.packages(&std::mem::take(&mut spec.application_package_references));
    }
}

fn is_active(row: &ApplicationRow, version: &PackageVersion) -> Result<(), Refusal> {
    if row.active(Some(version)).is_some() {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidPropertyValue, "The value provided for one of the properties in the request body is invalid.")
        .with("PropertyName", "defaultVersion")
        .with("PropertyValue", version)
        .with("Reason", "The application has no active package of this version."))
}
