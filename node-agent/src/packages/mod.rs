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

use broker_config::{private, removal};
use contract::{
    function,
    outcome::{DISK_FULL, Fault},
    spec::Package,
};

use crate::{
    beneath::Folder,
    context::NodeContext,
    off_loop::{off_loop, try_off_loop},
    packages::deployed::Deployed,
    path::RelativePath,
    root::{Root, SHARED_MODE},
    shortage::{blame, is_disk_full, is_shortage, retry_on_shortage},
};

const INCOMING: &str = "volatile/incoming";
/// Prefix of package keys, and the folder that they are unpacked to.
const APPLICATIONS: &str = "applications/";
const ENDING: &str = ".zip";
/// The folder of function packages; no application's name has a dot.
const FUNCTIONS: &str = "applications/.functions/";

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
    let path = target(key).ok_or_else(|| fault(package, "the package's key is no path"))?;
    let folder = context.root.path().join(path.as_str());
    // One at a time: several tasks that need the same package fetch it once.
    let _turn = context.deploying.lock().await;
    let (root, place) = (context.root.clone(), path.clone());
    if try_off_loop(move || stands(&root, &place)).await.map_err(|error| io_fault(package, &error))? {
        return Ok(folder);
    }
    let blobs = context.blobs.as_ref().ok_or_else(|| fault(package, "this node has no blob store"))?;
    let root = context.root.clone();
    let incoming = try_off_loop(move || open_incoming(&root)).await.map_err(|error| io_fault(package, &error))?;
    let name = format!("{:016x}", rand::random::<u64>());
    // These paths are valid while the folder is open, whatever tasks put in its place.
    let (zip, unpacked) = (incoming.path_of(&format!("{name}{ENDING}")), incoming.path_of(&name));
    let bucket = &blobs.settings().own_bucket;
    let fetched = blobs.download_file(bucket, key, &zip).await.map_err(|error| blame_node(fault(package, error.to_string()), &error));
    let root = context.root.clone();
    let made = match fetched {
        Err(fault) => Err(fault),
        Ok(_) => {
            let made = off_loop(move || {
                let done = unpack::unpack(&zip, &unpacked).and_then(|()| {
                    settle(&root, &incoming, &name, &path).map_err(|source| unpack::UnpackError::Write { name: String::new(), source })
                });
                if let Err(error) = remove(&root, &zip, &name) {
                    tracing::warn!(%error, name, "cannot remove the temporary files of a package; they stay until the agent starts again");
                }
                done
            });
            match made.await {
                Ok(result) => result.map_err(|error| unpack_fault(package, &error)),
                Err(error) => Err(io_fault(package, &error)),
            }
        }
    };
    made.map(|()| folder)
}

/// Whether a package is deployed. A link in the place of its folder, or on the way to it, leads to none.
fn stands(root: &Root, path: &RelativePath) -> io::Result<bool> {
    match Folder::open(root.path())?.enter(path) {
        Ok(_) => Ok(true),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

fn open_incoming(root: &Root) -> io::Result<Folder> {
    root.own_folder(&root.path().join(INCOMING), private::FOLDER_MODE)?;
    let incoming = RelativePath::parse(INCOMING).map_err(io::Error::other)?;
    Folder::open(root.path())?.enter(&incoming)
}

fn remove(root: &Root, zip: &Path, name: &str) -> io::Result<()> {
    for removed in [std::fs::remove_file(zip), removal::folder(&root.path().join(INCOMING).join(name))] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The folder of a package with this key, below the node's root.
fn target(key: &str) -> Option<RelativePath> {
    if let Some(hash) = key.strip_prefix(function::PACKAGES).and_then(|rest| rest.strip_suffix(function::PACKAGE_ENDING)) {
        let is_hash = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        return RelativePath::parse(&format!("{FUNCTIONS}{hash}")).ok().filter(|_| is_hash);
    }
    let path = key.strip_prefix(APPLICATIONS)?.strip_suffix(ENDING).and_then(|rest| RelativePath::parse(rest).ok())?;
    RelativePath::parse(&format!("{APPLICATIONS}{path}")).ok()
}

/// Moves an unpacked package to its place; links on the way to it are removed and not followed.
fn settle(root: &Root, incoming: &Folder, name: &str, path: &RelativePath) -> io::Result<()> {
    let (parent, last) = path.split_last();
    let parent = parent.ok_or(io::ErrorKind::InvalidInput)?;
    root.own_folder(&root.path().join(parent.as_str()), SHARED_MODE)?;
    incoming.move_folder(name, &Folder::open(root.path())?.enter(&parent)?, last)
}

fn fault(package: &Package, reason: impl Into<String>) -> Fault {
    let mut details = vec![("ApplicationId".to_owned(), package.application.to_string())];
    details.extend(package.version.as_ref().map(|version| ("Version".to_owned(), version.to_string())));
    details.push(("Reason".to_owned(), reason.into()));
    Fault { code: "ApplicationPackageError".to_owned(), message: "the application package cannot be deployed".to_owned(), details }
}

fn io_fault(package: &Package, error: &io::Error) -> Fault {
    blame_node(fault(package, error.to_string()), error)
}

/// Tells faults of the node apart, a full disk among them: whoever filled it, the package was not to blame.
fn blame_node(fault: Fault, error: &(dyn Error + 'static)) -> Fault {
    if is_disk_full(error) { Fault { code: DISK_FULL.to_owned(), ..fault } } else { blame(fault, error) }
}

fn unpack_fault(package: &Package, error: &unpack::UnpackError) -> Fault {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    blame_node(fault(package, reason), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_that_tasks_make_lead_no_package_astray() {
        let (scratch, victim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(&scratch.path().join("node")).await.unwrap();
        let path = target("applications/a/1.0/ff.zip").unwrap();
        std::fs::create_dir_all(victim.path().join("1.0/ff")).unwrap();
        let place = root.path().join(path.as_str());
        for link in ["volatile/incoming", "applications/a", "applications/a/1.0", "applications/a/1.0/ff"] {
            let link = root.path().join(link);
            std::fs::remove_dir_all(&link).ok();
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(victim.path(), &link).unwrap();
            assert!(!stands(&root, &path).unwrap(), "{link:?}");
            let incoming = open_incoming(&root).unwrap();
            std::fs::create_dir(incoming.path_of("new")).unwrap();
            std::fs::write(incoming.path_of("new").join("program"), "x").unwrap();
            settle(&root, &incoming, "new", &path).unwrap();
            assert!(stands(&root, &path).unwrap() && place.join("program").exists());
            assert!(!std::fs::symlink_metadata(&link).unwrap().is_symlink());
            std::fs::remove_dir_all(&place).unwrap();
        }
        let left = std::fs::read_dir(victim.path()).unwrap().count();
        assert!(left == 1 && std::fs::read_dir(victim.path().join("1.0/ff")).unwrap().next().is_none());
    }

    #[test]
    fn a_key_leads_into_applications_and_nowhere_else() {
        assert_eq!(target("applications/a/1.0/ff.zip").unwrap().as_str(), "applications/a/1.0/ff");
        assert_eq!(target("functions/0af.zip").unwrap().as_str(), "applications/.functions/0af");
        for key in [
            "functions/../x.zip",
            "functions/.zip",
            "functions/a/b.zip",
            "applications/../x.zip",
            "applications/a/../../x.zip",
            "applications/.zip",
            "logs/a.zip",
            "applications/a",
        ] {
            assert!(target(key).is_none(), "{key}");
        }
    }
}
