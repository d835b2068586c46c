//! Application packages: fetched once, unpacked into `applications/`, named in the environment of tasks.
//!
//! ```text
//! blob ──► volatile/incoming/<random>.zip ──unpack──► volatile/incoming/<random> ──rename──► applications/<as the blob's key>
//! ```
//! Every upload has a key of its own, so a folder that is there is whole and current.
//! `agent::lifecycle` deploys the pool's packages before anything runs, `execution` those of a task.

mod unpack;

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use broker_config::{
    ids::{ApplicationId, PackageVersion},
    message::Fault,
    spec::Package,
};

use crate::{path::RelativePath, room::Room};

const INCOMING: &str = "volatile/incoming";
/// Where keys of packages begin, and where they are unpacked to.
const APPLICATIONS: &str = "applications/";
const ENDING: &str = ".zip";

/// A package that stands on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    application: ApplicationId,
    version: Option<PackageVersion>,
    is_default: bool,
    folder: PathBuf,
}

impl Deployed {
    /// The variables that name its folder: in the spellings that scripts are known to use.
    pub fn variables(&self) -> Vec<(String, &Path)> {
        let plain = |text: &str| text.replace(['-', '.', '#'], "_");
        let name = plain(self.application.as_str());
        let versioned = self.version.as_ref().map(|version| format!("{name}_{}", plain(version.as_str())));
        let mut spellings: Vec<String> = versioned
            .into_iter()
            .chain(self.is_default.then_some(name))
            .flat_map(|name| [name.to_ascii_uppercase(), name.to_ascii_lowercase(), name])
            .map(|name| format!("AZ_BATCH_APP_PACKAGE_{name}"))
            .collect();
        spellings.sort();
        spellings.dedup();
        spellings.into_iter().map(|name| (name, self.folder.as_path())).collect()
    }
}

/// Forgets what an agent that was killed had begun to fetch.
pub fn clear_incoming(root: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(root.join(INCOMING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir(root.join(INCOMING)),
    }
}

/// Makes sure that all of them stand on this node.
pub async fn deploy(room: &Room, packages: &[Package]) -> Result<Vec<Deployed>, Fault> {
    let mut deployed = Vec::with_capacity(packages.len());
    for package in packages {
        let folder = place(room, package).await?;
        let Package { application, version, is_default, .. } = package.clone();
        deployed.push(Deployed { application, version, is_default, folder });
    }
    Ok(deployed)
}

async fn place(room: &Room, package: &Package) -> Result<PathBuf, Fault> {
    let key = package.blob.as_deref().ok_or_else(|| fault(package, "the package does not exist any more"))?;
    let folder =
        target(key).map(|path| room.facts.root.join(path.as_str())).ok_or_else(|| fault(package, "the package's key is no path"))?;
    // One at a time: several tasks that need the same package fetch it once.
    let _turn = room.deploying.lock().await;
    if folder.is_dir() {
        return Ok(folder);
    }
    let blobs = room.blobs.as_ref().ok_or_else(|| fault(package, "this node has no blob store"))?;
    let incoming = room.facts.root.join(INCOMING).join(format!("{:016x}", rand::random::<u64>()));
    let zip = incoming.with_extension("zip");
    let bucket = &blobs.settings().own_bucket;
    let fetched = blobs.download_file(bucket, key, &zip).await.map_err(|error| fault(package, error.to_string()));
    let made = match fetched {
        Ok(_) => {
            let (zip, incoming, folder) = (zip.clone(), incoming.clone(), folder.clone());
            let unpacked = tokio::task::spawn_blocking(move || {
                unpack::unpack(&zip, &incoming)?;
                settle(&incoming, &folder).map_err(|source| unpack::UnpackError::Write { name: String::new(), source })
            });
            match unpacked.await {
                Ok(result) => result.map_err(|error| unpack_fault(package, &error)),
                Err(error) => Err(fault(package, error.to_string())),
            }
        }
        Err(fault) => Err(fault),
    };
    for (path, removed) in [(&zip, std::fs::remove_file(&zip)), (&incoming, std::fs::remove_dir_all(&incoming))] {
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "what a package was unpacked from is left behind");
        }
    }
    made.map(|()| folder)
}

/// Where a package with this key stands, below the node's root.
fn target(key: &str) -> Option<RelativePath> {
    let path = key.strip_prefix(APPLICATIONS)?.strip_suffix(ENDING).and_then(|rest| RelativePath::parse(rest).ok())?;
    RelativePath::parse(&format!("{APPLICATIONS}{path}")).ok()
}

fn settle(from: &Path, folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::rename(from, folder)
}

fn fault(package: &Package, reason: impl Into<String>) -> Fault {
    let mut details = vec![("ApplicationId".to_owned(), package.application.to_string())];
    details.extend(package.version.as_ref().map(|version| ("Version".to_owned(), version.to_string())));
    details.push(("Reason".to_owned(), reason.into()));
    Fault { code: "ApplicationPackageError".to_owned(), message: "the application package cannot be deployed".to_owned(), details }
}

fn unpack_fault(package: &Package, error: &unpack::UnpackError) -> Fault {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let fault = fault(package, reason);
    if error.is_disk_full() { Fault { code: "DiskFull".to_owned(), ..fault } } else { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_in_every_spelling_and_without_its_version_when_it_is_the_default() {
        let mut deployed = Deployed {
            application: "Agent-linux".parse().unwrap(),
            version: Some("1.1.46-x".parse().unwrap()),
            is_default: false,
            folder: "/r/applications/a".into(),
        };
        let names = |deployed: &Deployed| deployed.variables().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(
            names(&deployed),
            [
                "AZ_BATCH_APP_PACKAGE_AGENT_LINUX_1_1_46_X",
                "AZ_BATCH_APP_PACKAGE_Agent_linux_1_1_46_x",
                "AZ_BATCH_APP_PACKAGE_agent_linux_1_1_46_x"
            ]
        );
        deployed.is_default = true;
        assert!(names(&deployed).contains(&"AZ_BATCH_APP_PACKAGE_agent_linux".to_owned()));
        assert_eq!(names(&deployed).len(), 6);
    }

    #[test]
    fn a_key_leads_into_applications_and_nowhere_else() {
        assert_eq!(target("applications/a/1.0/ff.zip").unwrap().as_str(), "applications/a/1.0/ff");
        for key in ["applications/../x.zip", "applications/a/../../x.zip", "applications/.zip", "logs/a.zip", "applications/a"] {
            assert!(target(key).is_none(), "{key}");
        }
    }
}
