//! Fetching one file by HTTP: no other scheme, no metadata service, bounded in redirects, size, time and tries.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use clients::blobs::Partial;
use contract::{
    outcome::{DISK_FULL, Fault},
    url::user_of,
};
use reqwest::{
    Client, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use tokio::{fs::File, io::AsyncWriteExt, time::sleep};

use crate::shortage::{SHORTAGE, blame, is_shortage};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
const TRIES_MAX: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The largest file that is fetched.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;

/// A client restricted to what resource files need.
pub fn client() -> reqwest::Result<Client> {
    let policy = redirect::Policy::custom(|attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if !is_allowed(attempt.url()) {
            attempt.error("redirected to a forbidden address")
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(policy)
        .dns_resolver(Arc::new(Resolver))
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent("piecework-agent")
        .build()
}

/// Fetches a URL into a new file that gets its name once it is complete; returns its bytes.
pub async fn fetch(client: &Client, url: &str, path: &Path) -> Result<u64, Fault> {
    let refused = |message: &str| fault("BlobDownloadMiscError", message, url, None);
    let parsed = Url::parse(url).map_err(|_| refused("the URL cannot be read"))?;
    if !is_allowed(&parsed) {
        return Err(refused("only http and https URLs are fetched, and none of the machine's own services"));
    }
    let mut pause = PAUSE_FIRST;
    let mut tries = 1;
    loop {
        let partial = Partial::beside(path);
        match attempt(client, parsed.clone(), partial.path()).await {
            Ok(bytes) => match partial.rename(path).await {
                Ok(()) => return Ok(bytes),
                Err(error) => return Err(Failure::Local(error).into_fault(url)),
            },
            Err(failure) if failure.is_passing() && tries < TRIES_MAX => {
                tracing::debug!(tries, ?failure, "a download failed; trying again");
                sleep(pause).await;
                pause *= 2;
                tries += 1;
            }
            Err(failure) => return Err(failure.into_fault(url)),
        }
    }
}

#[derive(Debug)]
enum Failure {
    Status(StatusCode),
    TooLarge,
    Timeout,
    Transfer(String),
    /// The node lacks resources for a connection.
    Short(String),
    Local(io::Error),
}

impl Failure {
    fn is_passing(&self) -> bool {
        match self {
            Failure::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            Failure::Timeout | Failure::Transfer(_) => true,
            Failure::TooLarge | Failure::Short(_) | Failure::Local(_) => false,
        }
    }

    fn into_fault(self, url: &str) -> Fault {
        match self {
            Failure::Status(status) => {
                let code = match status.as_u16() {
                    404 | 410 => "BlobNotFound",
                    401 | 403 => "BlobAccessDenied",
                    408 | 504 => "BlobDownloadTimedOut",
                    _ => "BlobDownloadMiscError",
                };
                fault(code, "the server did not give the file", url, Some(("HttpStatus", status.as_u16().to_string())))
            }
            Failure::TooLarge => fault("BlobDownloadMiscError", "the file is too large", url, None),
            Failure::Timeout => fault("BlobDownloadTimedOut", "the server did not answer in time", url, None),
            Failure::Transfer(reason) => fault("BlobDownloadMiscError", "the transfer failed", url, Some(("Reason", reason))),
            Failure::Short(reason) => fault(SHORTAGE, "no connection can be made", url, Some(("Reason", reason))),
            Failure::Local(error) if error.kind() == io::ErrorKind::StorageFull => fault(DISK_FULL, "the node's disk is full", url, None),
            Failure::Local(error) => {
                let reason = Some(("Reason", error.to_string()));
                blame(fault("ResourceFileWriteFailed", "the file cannot be written", url, reason), &error)
            }
        }
    }
}

async fn attempt(client: &Client, url: Url, path: &Path) -> Result<u64, Failure> {
    let transfer = |error: reqwest::Error| {
        let (is_timeout, is_short, error) = (error.is_timeout(), is_shortage(&error), error.without_url());
        let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        match (is_timeout, is_short) {
            (_, true) => Failure::Short(reason),
            (true, _) => Failure::Timeout,
            _ => Failure::Transfer(reason),
        }
    };
    let mut response = client.get(url).send().await.map_err(transfer)?;
    if !response.status().is_success() {
        return Err(Failure::Status(response.status()));
    }
    if response.content_length().is_some_and(|length| length > FILE_BYTES_MAX) {
        return Err(Failure::TooLarge);
    }
    let mut file = File::options().write(true).create_new(true).open(path).await.map_err(Failure::Local)?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.map_err(transfer)? {
        bytes += chunk.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        file.write_all(&chunk).await.map_err(Failure::Local)?;
    }
    file.flush().await.map_err(Failure::Local)?;
    Ok(bytes)
}

/// A fault that names the URL without its query, which may hold a signature, and without its user and password.
pub fn fault(code: &str, message: &str, url: &str, more: Option<(&str, String)>) -> Fault {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match user_of(url) {
        Some(user) => format!("{}{}", &url[..user.start], &url[user.end..]),
        None => url.to_owned(),
    };
    let mut details = vec![("Url".to_owned(), shown)];
    details.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Fault { code: code.to_owned(), message: message.to_owned(), details }
}

fn is_allowed(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    matches!(url.scheme(), "http" | "https") && !host.is_empty() && host.parse().map_or(true, |address| !is_metadata(address))
}

/// Link-local addresses: where clouds keep the machine's own credentials.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_metadata(v4.into()),
            None => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0x0ec2] || v6.is_unspecified(),
        },
    }
}

struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|address| !is_metadata(address.ip())).collect();
            if found.is_empty() {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_web_is_fetched_from() {
        for (url, expected) in [
            ("http://127.0.0.1:9000/b/k", true),
            ("https://example.org/a?sig=1", true),
            ("file:///etc/passwd", false),
            ("ftp://h/x", false),
            ("gopher://h/x", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://2852039166/latest", false),
            ("http://0xa9fea9fe/", false),
            ("http://[fe80::1]/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://0.0.0.0/", false),
        ] {
            assert_eq!(is_allowed(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_fault_does_not_repeat_a_signature() {
        let named = fault("BlobNotFound", "m", "http://me:secret@h/x@y", None);
        assert_eq!(named.details, [("Url".to_owned(), "http://h/x@y".to_owned())]);
        let fault = fault("BlobNotFound", "m", "http://h/x?sig=secret", None);
        assert_eq!(fault.details, [("Url".to_owned(), "http://h/x".to_owned())]);
    }
}
