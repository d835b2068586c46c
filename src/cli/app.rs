//! `piecework app …`: application packages, from a zip on this machine to the nodes that use it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use contract::ids::{ApplicationId, PackageVersion};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{
    client::{Client, path},
    exit_codes::{Failure, OK},
    output::{self, Column, Output},
    settings::ServerArgs,
};

/// How long the bytes of a package may take to the blob store.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How every zip begins.
const ZIP: &[u8] = b"PK";

const COLUMNS: &[Column] = &[("APPLICATION", "/id"), ("DEFAULT", "/defaultVersion"), ("VERSIONS", "/versionNames")];

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Upload a zip as a version of an application, which is created when it is not there
    Upload(UploadArgs),
    /// List applications with the versions that nodes can get
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show an application with all its packages
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the application
        application: ApplicationId,
    },
    /// Delete an application with its packages, or one version of it
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the application
        application: ApplicationId,
        /// Only this version
        #[arg(long)]
        version: Option<PackageVersion>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The zip
    file: PathBuf,
    /// The application's name
    #[arg(long)]
    id: ApplicationId,
    /// The version's name
    #[arg(long)]
    version: PackageVersion,
    /// Make it the version that references without one mean
    #[arg(long)]
    default: bool,
}

pub(crate) async fn run(command: AppCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        AppCommand::Upload(args) => upload(&args, out).await?,
        AppCommand::List { server } => {
            let mut applications = server.open()?.client.list::<Value>("/piecework/applications", &[]).await?;
            applications.iter_mut().for_each(name_versions);
            out.list(COLUMNS, &applications)?;
        }
        AppCommand::Show { server, application } => out.one(&server.open()?.client.get(&place(&application, None), &[]).await?)?,
        AppCommand::Delete { server, application, version } => {
            server.open()?.client.delete(&place(&application, version.as_ref())).await?;
            match version {
                Some(version) => out.done(&format!("version {version} of {application} deleted"))?,
                None => out.done(&format!("application {application} deleted"))?,
            }
        }
    }
    Ok(OK)
}

/// Path of an application, or of one version of it.
fn place(application: &ApplicationId, version: Option<&PackageVersion>) -> String {
    let mut segments = vec!["piecework", "applications", application.as_str()];
    segments.extend(version.into_iter().flat_map(|version| ["versions", version.as_str()]));
    path(&segments)
}

/// Adds the names of the versions to an application; one that nodes cannot get yet is marked as pending.
fn name_versions(application: &mut Value) {
    let name = |package: &Value| {
        let version = package["version"].as_str().unwrap_or_default();
        if package["state"] == "active" { version.to_owned() } else { format!("{version} (pending)") }
    };
    let names: Vec<String> = application["versions"].as_array().into_iter().flatten().map(name).collect();
    application["versionNames"] = json!(names.join(", "));
}

async fn upload(args: &UploadArgs, out: &dyn Output) -> anyhow::Result<()> {
    let UploadArgs { server, file, id, version, default } = args;
    let bytes = check(file).await?;
    let client = server.open()?.client;
    create(&client, id).await?;
    let at = place(id, Some(version));
    let begun: Value = serde_json::from_slice(&client.put(&at, &json!({})).await?)?;
    let url = begun["uploadUrl"].as_str().ok_or_else(|| anyhow::anyhow!("the server did not say where to upload {id} {version} to"))?;
    client.upload(url, tokio::fs::File::open(file).await?, bytes, UPLOAD_TIMEOUT).await?;
    let package = client.post(&format!("{at}/activate"), Some(&json!({"format": "zip", "isDefault": default}))).await?;
    let package: Value = serde_json::from_slice(&package)?;
    out.done(&format!("{id} {version} uploaded, {}", output::bytes(bytes)))?;
    out.summary(&package)?;
    Ok(())
}

/// The length of a zip; a file of another format is refused before the upload.
async fn check(file: &PathBuf) -> anyhow::Result<u64> {
    let shown = file.display();
    let failure = |error: std::io::Error| Failure::usage(format!("cannot read {shown}: {error}"));
    let is_zip = async {
        let mut start = [0; ZIP.len()];
        let mut open = tokio::fs::File::open(file).await?;
        let length = open.metadata().await?.len();
        let is_read = length >= ZIP.len() as u64 && open.read_exact(&mut start).await.is_ok();
        Ok((is_read && start == ZIP).then_some(length))
    };
    is_zip.await.map_err(failure)?.ok_or_else(|| Failure::usage(format!("{shown} is not a zip")).into())
}

/// Creates an application unless it exists.
async fn create(client: &Client, id: &ApplicationId) -> anyhow::Result<()> {
    let at = place(id, None);
    match client.get::<Value>(&at, &[]).await {
        Err(error) if error.is_not_found() => client.put(&at, &json!({})).await.map(drop)?,
        found => drop(found?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_listed_by_name_and_pending_ones_are_said_to_be() {
        let mut application = json!({"id": "a", "versions": [{"version": "1.0", "state": "active"}, {"version": "2", "state": "pending"}]});
        name_versions(&mut application);
        assert_eq!(application["versionNames"], "1.0, 2 (pending)");
        assert_eq!(place(&"a".parse().unwrap(), Some(&"1.0".parse().unwrap())), "/piecework/applications/a/versions/1.0");
    }
}
