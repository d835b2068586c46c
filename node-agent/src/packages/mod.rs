//! Application packages: fetched once, unpacked into `applications/`, named in the environment of tasks.
//!
//! ```text
//! blob ──► volatile/incoming/<random>.zip ──unpack──► volatile/incoming/<random> ──rename──► applications/<as the blob's key>
//! ```
//! Every upload has a key of its own, so a folder that exists is complete and current.
//! `agent::lifecycle` deploys the pool's packages before anything runs, `execution` those of a task.

pub mod deployed;
mod unpack;

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use broker_config::removal;
use contract::{
    outcome::{DISK_FULL, Fault},
    spec::Package,
};

use crate::{
    context::NodeContext,
    off_loop::{off_loop, try_off_loop},
    packages::deployed::Deployed,
    path::RelativePath,
    shortage::{blame, retry_on_shortage},
};

const INCOMING: &str = "volatile/incoming";
/// Prefix of package keys, and the folder that they are unpacked to.
const APPLICATIONS: &str = "applications/";
const ENDING: &str = ".zip";

/// Removes what a killed agent had begun to fetch.
pub fn clear_incoming(root: &Path) -> io::Result<()> {
    match removal::folder(&root.join(INCOMING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir(root.join(INCOMING)),
    }
}

/// Deploys these packages on this node; those that are deployed already cost nothing.
pub async fn deploy(context: &NodeContext, packages: &[Package]) -> Result<Vec<Deployed>, Fault> {
    let mut deployed = Vec::with_capacity(packages.len());
    for package in packages {
        let folder = retry_on_shortage(|| place(context, package)).await?;
        let Package { application, version, is_default, .. } = package.clone();
        deployed.push(Deployed { application, version, is_default, folder });
    }
    Ok(deployed)
}

async fn place(context: &NodeContext, package: &Package) -> Result<PathBuf, Fault> {
    let key = package.blob.as_deref().ok_or_else(|| fault(package, "the package does not exist any more"))?;
    let folder =
        target(key).map(|path| context.facts.root.join(path.as_str())).ok_or_else(|| fault(package, "the package's key is no path"))?;
    // One at a time: several tasks that need the same package fetch it once.
    let _turn = context.deploying.lock().await;
    let place = folder.clone();
    let stands = off_loop(move || place.is_dir()).await.map_err(|error| io_fault(package, &error))?;
    if stands {
        return Ok(folder);
    }
    let blobs = context.blobs.as_ref().ok_or_else(|| fault(package, "this node has no blob store"))?;
    let incoming = context.facts.root.join(INCOMING).join(format!("{:016x}", rand::random::<u64>()));
    let zip = incoming.with_extension("zip");
    let bucket = &blobs.settings().own_bucket;
    let fetched = blobs.download_file(bucket, key, &zip).await.map_err(|error| blame(fault(package, error.to_string()), &error));
    let made = match fetched {
        Ok(_) => {
            let (zip, incoming, folder) = (zip.clone(), incoming.clone(), folder.clone());
            let unpacked = off_loop(move || {
                unpack::unpack(&zip, &incoming)?;
                settle(&incoming, &folder).map_err(|source| unpack::UnpackError::Write { name: String::new(), source })
            });
            match unpacked.await {
                Ok(result) => result.map_err(|error| unpack_fault(package, &error)),
                Err(error) => Err(io_fault(package, &error)),
            }
        }
        Err(fault) => Err(fault),
    };
    if let Err(error) = try_off_loop(move || remove(&zip, &incoming)).await {
        tracing::warn!(%error, key, "cannot remove the temporary files of a package; they stay until the agent starts again");
    }
    made.map(|()| folder)
}

fn remove(zip: &Path, incoming: &Path) -> io::Result<()> {
    for removed in [std::fs::remove_file(zip), removal::folder(incoming)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The folder of a package with this key, below the node's root.
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

fn io_fault(package: &Package, error: &io::Error) -> Fault {
    blame(fault(package, error.to_string()), error)
}

fn unpack_fault(package: &Package, error: &unpack::UnpackError) -> Fault {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let fault = blame(fault(package, reason), error);
    if error.is_disk_full() { Fault { code: DISK_FULL.to_owned(), ..fault } } else { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_into_applications_and_nowhere_else() {
        assert_eq!(target("applications/a/1.0/ff.zip").unwrap().as_str(), "applications/a/1.0/ff");
        for key in ["applications/../x.zip", "applications/a/../../x.zip", "applications/.zip", "logs/a.zip", "applications/a"] {
            assert!(target(key).is_none(), "{key}");
        }
    }
}
