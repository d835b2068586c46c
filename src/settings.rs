//! Addresses and credentials: flags win over `PIECEWORK_…` variables, those over the settings file.
//!
//! The file is TOML with the flags' names (`server`, `url`, `account`, `key`, `broker`, `s3`), at
//! `$PIECEWORK_CONFIG` or `~/.config/piecework/config.toml`; unknown names are an error.

use std::{env, fs, io, path::PathBuf};

use anyhow::Context;
use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use serde::Deserialize;

use crate::{client::Client, exit_codes::Failure, ready::Ready, secrets};

const REGION: &str = "us-east-1";
const BUCKET: &str = "piecework";

/// Help text about the URL of an S3 store.
pub(crate) const S3_HELP: &str = "S3 store as s3+http://KEY:SECRET@HOST:PORT/BUCKET?region=REGION (or s3+https://); without KEY:SECRET, \
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are used; AWS_REGION stands in for the region; Piecework's own files go to BUCKET-own, \
or to the bucket named by &own=";

/// Which server a command talks to.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArgs {
    /// The ready file of a running `piecework up`; it holds everything below
    #[arg(long, value_name = "FILE", env = "PIECEWORK_SERVER", help_heading = "Server")]
    pub(crate) server: Option<PathBuf>,
    /// The server's URL
    #[arg(long, value_name = "URL", env = "PIECEWORK_URL", help_heading = "Server")]
    pub(crate) url: Option<String>,
    /// The account's name
    #[arg(long, value_name = "NAME", env = "PIECEWORK_ACCOUNT", help_heading = "Server")]
    pub(crate) account: Option<String>,
    /// The account's key
    #[arg(long, value_name = "BASE64", env = "PIECEWORK_KEY", hide_env_values = true, help_heading = "Server")]
    pub(crate) key: Option<String>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP, help_heading = "Server")]
    pub(crate) s3: Option<String>,
}

/// A server, and its blob store if that is known.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) blobs: Option<BlobSettings>,
    pub(crate) broker: Option<BrokerSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    server: Option<PathBuf>,
    url: Option<String>,
    account: Option<String>,
    key: Option<String>,
    broker: Option<String>,
    s3: Option<String>,
}

impl File {
    fn read() -> anyhow::Result<File> {
        let given = env::var_os("PIECEWORK_CONFIG").map(PathBuf::from);
        let is_given = given.is_some();
        let Some(path) = given.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config/piecework/config.toml"))) else {
            return Ok(File::default());
        };
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())).into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_given => Ok(File::default()),
            Err(error) => Err(Failure::usage(format!("{}: {error}", path.display())).into()),
        }
    }
}

impl ServerArgs {
    /// The server that is configured, if any.
    pub(crate) fn find(&self) -> anyhow::Result<Option<Server>> {
        let file = File::read()?;
        let is_flagged = self.url.is_some() || self.account.is_some() || self.key.is_some();
        let ready = match self.server.clone().or(if is_flagged { None } else { file.server }) {
            Some(path) => Some(Ready::read(&path)?),
            None => None,
        };
        let from = |value: fn(&Ready) -> &String| ready.as_ref().map(|ready| value(ready).clone());
        let url = self.url.clone().or_else(|| from(|ready| &ready.url)).or(file.url);
        let account = self.account.clone().or_else(|| from(|ready| &ready.account)).or(file.account);
        let key = self.key.clone().or_else(|| from(|ready| &ready.key)).or(file.key);
        let Some(url) = url else {
            if account.is_some() || key.is_some() {
                return Err(Failure::usage("an account or key is given, but no --url").into());
            }
            return Ok(None);
        };
        let (Some(account), Some(key)) = (account, key) else {
            return Err(Failure::usage("a server needs --account and --key as well (or PIECEWORK_ACCOUNT and PIECEWORK_KEY)").into());
        };
        let blobs = match self.s3.clone().or_else(|| ready.as_ref().is_none().then(|| file.s3.clone()).flatten()) {
            Some(text) => Some(parse_s3(&text)?),
            None => ready.as_ref().map(Ready::blobs),
        };
        let broker = ready.as_ref().map(|ready| ready.broker.clone()).or(file.broker).map(|url| broker(&url));
        Ok(Some(Server { client: Client::new(&url, &account, &Secret::new(key))?, blobs, broker }))
    }

    /// The server that is configured; an error says how to configure one.
    pub(crate) fn open(&self) -> anyhow::Result<Server> {
        let hint = "start one with `piecework up`, then `export PIECEWORK_SERVER=DATA/ready.json`, or give --url, --account and --key";
        self.find()?.ok_or_else(|| Failure::new(crate::exit_codes::USAGE, "no server is configured", hint).into())
    }
}

/// Where a part finds its broker and its blob store. A file goes before a URL, which other users can see in the list of
/// processes.
#[derive(Clone, Default, Args)]
pub(crate) struct ServiceArgs {
    /// The broker, as amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
    /// A file that holds the broker's URL
    #[arg(long, value_name = "FILE", env = "PIECEWORK_BROKER_FILE")]
    broker_file: Option<PathBuf>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP)]
    s3: Option<String>,
    /// A file that holds the blob store's URL
    #[arg(long, value_name = "FILE", env = "PIECEWORK_S3_FILE")]
    s3_file: Option<PathBuf>,
}

impl std::fmt::Debug for ServiceArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceArgs").finish_non_exhaustive()
    }
}

impl ServiceArgs {
    /// The broker's URL, if it is given.
    pub(crate) fn given_broker(&self) -> anyhow::Result<Option<String>> {
        self.broker_file.as_deref().map_or_else(|| Ok(self.broker.clone()), |file| secrets::read_file(file).map(Some))
    }

    /// The blob store's URL, if it is given.
    pub(crate) fn given_s3(&self) -> anyhow::Result<Option<String>> {
        self.s3_file.as_deref().map_or_else(|| Ok(self.s3.clone()), |file| secrets::read_file(file).map(Some))
    }

    /// The broker's URL for a part that runs alone: given, or from the settings file.
    pub(crate) fn broker(&self) -> anyhow::Result<String> {
        let hint = "no broker is given: --broker-file, --broker, their variables, or `broker` in the settings file";
        self.given_broker()?
            .map_or_else(|| Ok(File::read()?.broker), |given| anyhow::Ok(Some(given)))?
            .ok_or_else(|| Failure::usage(hint).into())
    }

    /// The blob store's URL for a part that runs alone: given, or from the settings file.
    pub(crate) fn s3(&self) -> anyhow::Result<Option<String>> {
        self.given_s3()?.map_or_else(|| Ok(File::read()?.s3), |given| Ok(Some(given)))
    }
}

/// A broker by its URL.
pub(crate) fn broker(url: &str) -> BrokerSettings {
    BrokerSettings { url: Secret::new(url), name: "piecework".to_owned() }
}

/// Reads an S3 store's URL, as [`S3_HELP`] says.
pub(crate) fn parse_s3(text: &str) -> anyhow::Result<BlobSettings> {
    let wrong = |what: &str| Failure::usage(format!("{what}; expected s3+http://KEY:SECRET@HOST:PORT/BUCKET?region=REGION"));
    let plain = text.strip_prefix("s3+").unwrap_or(text);
    let url = Url::parse(plain).map_err(|error| wrong(&format!("the S3 URL cannot be read ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("the S3 URL is neither s3+http nor s3+https").into());
    }
    let host = url.host_str().ok_or_else(|| wrong("the S3 URL has no host"))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let or_env = |text: &str, name: &str| if text.is_empty() { secrets::variable(name) } else { Some(decode(text)) };
    let access_key =
        or_env(url.username(), "AWS_ACCESS_KEY_ID").ok_or_else(|| wrong("the S3 URL has no key and AWS_ACCESS_KEY_ID is not set"))?;
    let secret_key = or_env(url.password().unwrap_or_default(), "AWS_SECRET_ACCESS_KEY")
        .ok_or_else(|| wrong("the S3 URL has no secret and AWS_SECRET_ACCESS_KEY is not set"))?;
    let query = |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    if let Some((name, _)) = url.query_pairs().find(|(name, _)| name != "region" && name != "own") {
        return Err(wrong(&format!("the S3 URL has an unknown parameter {name:?}")).into());
    }
    let bucket = match url.path().trim_matches('/') {
        "" => BUCKET.to_owned(),
        path if path.contains('/') => return Err(wrong("the S3 URL names more than a bucket").into()),
        path => decode(path),
    };
    Ok(BlobSettings {
        endpoint: format!("{}://{host}{port}", url.scheme()),
        region: query("region").or_else(|| env::var("AWS_REGION").ok()).unwrap_or_else(|| REGION.to_owned()),
        access_key,
        secret_key: Secret::new(secret_key),
        own_bucket: query("own").unwrap_or_else(|| format!("{bucket}-own")),
        bucket,
    })
}

/// The URL that [`parse_s3`] reads as these settings.
pub(crate) fn format_s3(blobs: &BlobSettings) -> anyhow::Result<String> {
    let (scheme, rest) = blobs.endpoint.split_once("://").context("an endpoint without a scheme")?;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    Ok(format!(
        "s3+{scheme}://{}:{}@{}/{}?region={}&own={}",
        encode(&blobs.access_key),
        encode(blobs.secret_key.expose()),
        rest.trim_end_matches('/'),
        encode(&blobs.bucket),
        encode(&blobs.region),
        encode(&blobs.own_bucket),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_s3_url_survives_being_written_and_read() {
        let blobs = parse_s3("s3+http://key:se%2Fcret@127.0.0.1:9000/files?region=garage").unwrap();
        assert_eq!(
            (blobs.endpoint.as_str(), blobs.bucket.as_str(), blobs.own_bucket.as_str()),
            ("http://127.0.0.1:9000", "files", "files-own")
        );
        assert_eq!((blobs.region.as_str(), blobs.secret_key.expose()), ("garage", "se/cret"));
        assert_eq!(parse_s3(&format_s3(&blobs).unwrap()).unwrap(), blobs);
    }

    #[test]
    fn wrong_s3_urls_are_told_what_is_wrong() {
        for (text, what) in [
            ("ftp://k:s@h/b", "neither"),
            ("s3+http://k:s@h/b/c", "more than a bucket"),
            ("s3+http://k:s@h/b?x=1", "unknown parameter"),
            ("nonsense", "cannot be read"),
        ] {
            assert!(parse_s3(text).unwrap_err().to_string().contains(what), "{text}");
        }
    }
}
