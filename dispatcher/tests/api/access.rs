//! Account keys: repeated requests, key rotation, and access over TLS.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use api::{Key, TlsFiles};
use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use dispatcher::{Access, DispatcherError, Progress, Settings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use scheduler::Timers;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    signing::{Account, Got, Wire},
    test_dispatcher::{KEY, TestDispatcher},
};

const PATIENCE: Duration = Duration::from_secs(30);
const OLD_KEY: &str = "b2xka2V5b2xka2V5";

/// A request signed for a date some seconds away from now.
fn signed(account: &Account, method: &str, target: &str, body: &str, seconds: i64) -> Wire {
    let (now, distance) = (SystemTime::now(), Duration::from_secs(seconds.unsigned_abs()));
    let date = if seconds < 0 { now - distance } else { now + distance };
    let wire = Wire::new(method, &format!("{target}?api-version=2024-02-01.19.0"), body).prepared(account, date);
    let authorization = wire.authorization(&account.name, &account.key);
    wire.with("authorization", authorization)
}

fn code(got: &Got) -> String {
    got.json()["code"].as_str().unwrap_or_default().to_owned()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_change_is_done_again_within_a_minute_of_its_date_only() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let task = json!({"id": "t", "commandLine": "true"}).to_string();
    let near = signed(&dispatcher.account, "POST", "/jobs/job/tasks", &task, -30);
    assert_eq!(near.send(&dispatcher.account).status, 201);
    assert_eq!(code(&near.send(&dispatcher.account)), "TaskExists", "a retry is looked at");

    // Two minutes ahead: its first use is new, the second one a replay, whatever it would do.
    let far = signed(&dispatcher.account, "DELETE", "/jobs/job/tasks/t", "", 120);
    assert_eq!(far.send(&dispatcher.account).status, 200);
    dispatcher.send("POST", "/jobs/job/tasks", json!({"id": "t", "commandLine": "true"}), 201);
    let again = far.send(&dispatcher.account);
    assert_eq!((again.status, code(&again).as_str()), (403, "AuthenticationFailed"));
    assert!(again.json()["values"][0]["value"].as_str().unwrap().contains("used before"));
    dispatcher.get("/jobs/job/tasks/t");
    let other = signed(&dispatcher.account, "DELETE", "/jobs/job/tasks/t", "", 121);
    assert_eq!(other.send(&dispatcher.account).status, 200, "another date makes another signature");

    // What was signed before the dispatcher started may have been done before it, too.
    let before = signed(&dispatcher.account, "DELETE", "/jobs/job/tasks/t", "", -600);
    assert_eq!(before.send(&dispatcher.account).status, 403);
    let read = signed(&dispatcher.account, "GET", "/jobs/job", "", -600);
    assert_eq!((read.send(&dispatcher.account).status, read.send(&dispatcher.account).status), (200, 200), "reads may be repeated");
    assert_eq!(signed(&dispatcher.account, "GET", "/jobs/job", "", -16 * 60).send(&dispatcher.account).status, 403);
}

#[test]
fn keys_are_changed_on_a_running_server_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    fs::write(&path, format!("# primary\n{OLD_KEY}\n")).unwrap();
    let dispatcher = TestDispatcher::start_with(Access { keys_file: Some(path.clone()), ..Access::default() });
    let (old, new) = (Account { key: OLD_KEY.into(), ..dispatcher.account.clone() }, dispatcher.account.clone());
    let status = |account: &Account| signed(account, "GET", "/jobs", "", 0).send(account).status;
    assert_eq!((status(&old), status(&new)), (200, 403), "the file replaces the keys of the settings");

    fs::write(&path, format!("{OLD_KEY}\n{KEY}\n")).unwrap();
    until("the new key opens", || status(&new) == 200);
    assert_eq!(status(&old), 200, "both open meanwhile");

    // Half a file is no reason to lock everybody out.
    fs::write(&path, "not base64 %%\n").unwrap();
    fs::write(&path, format!("{KEY}\n")).unwrap();
    until("the old key is refused", || status(&old) == 403);
    assert_eq!(status(&new), 200);
}

#[test]
fn the_key_with_which_a_request_was_signed_shows_nowhere() {
    let key = Key::parse(KEY).unwrap();
    assert_eq!(format!("{key:?}"), "Key(secret)");
    let dispatcher = TestDispatcher::start();
    let wrong = Account { key: OLD_KEY.into(), ..dispatcher.account.clone() };
    let got = signed(&wrong, "GET", "/jobs", "", 0).send(&wrong);
    let detail = got.json()["values"][0]["value"].as_str().unwrap().to_owned();
    assert!(detail.contains("string to sign: 'GET\n\n\n"), "{detail}");
    assert!(!detail.contains(KEY) && !detail.contains(OLD_KEY));
}

/// An authority, and certificates of it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), der }
    }

    /// Writes a certificate for this machine and its key.
    fn certify(&self, files: &TlsFiles) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.cert, certificate.pem()).unwrap();
        certificate.der().clone()
    }

    fn connect(&self, account: &Account) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let socket = TcpStream::connect(account.url.strip_prefix("https://").unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
    }

    fn ask(&self, account: &Account, method: &str, target: &str, body: &str) -> Got {
        signed(account, method, target, body, 0).send_over(&mut self.connect(account))
    }

    /// The certificate that a new connection is shown.
    fn shown(&self, account: &Account) -> CertificateDer<'static> {
        let mut stream = self.connect(account);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    }
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") }
}

#[test]
fn by_tls_every_url_says_https_and_a_new_certificate_is_shown_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, files) = (Authority::new(), files(folder.path()));
    let first = authority.certify(&files);
    let dispatcher = TestDispatcher::start_with(Access { tls: Some(files.clone()), ..Access::default() });
    let account = &dispatcher.account;
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let pool = json!({"id": "p", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine}).to_string();
    let added = authority.ask(account, "POST", "/pools", &pool);
    assert_eq!(added.status, 201, "{}", String::from_utf8_lossy(&added.body));
    assert_eq!(added.header("DataServiceId").unwrap(), format!("{}/pools/p", account.url));
    let got = authority.ask(account, "GET", "/pools/p", "").json();
    assert_eq!(got["url"], format!("{}/pools/p", account.url));
    assert!(got["odata.metadata"].as_str().unwrap().starts_with("https://"));

    // A connection that is open lives on with what it was shown.
    let mut open = authority.connect(account);
    open.conn.complete_io(&mut open.sock).unwrap();
    assert_eq!(authority.shown(account), first);
    let second = authority.certify(&files);
    until("the new certificate is shown", || authority.shown(account) == second);
    assert_eq!(signed(account, "GET", "/pools", "", 0).send_over(&mut open).status, 200);

    // A broken file leaves what is there.
    fs::write(&files.cert, "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
    assert_eq!(authority.ask(account, "GET", "/pools", "").status, 200);
    let third = authority.certify(&files);
    until("the third certificate is shown", || authority.shown(account) == third);
}

#[test]
fn a_stranger_to_the_authority_and_plain_http_get_nowhere_on_a_api_with_tls() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let (authority, files) = (Authority::new(), files(folder.path()));
    authority.certify(&files);
    let dispatcher = TestDispatcher::start_with(Access { tls: Some(files), ..Access::default() });
    let mut stranger = Authority::new().connect(&dispatcher.account);
    assert!(stranger.conn.complete_io(&mut stranger.sock).is_err());
    let mut plain = TcpStream::connect(dispatcher.account.url.strip_prefix("https://").unwrap()).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /pools HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // An alert, or nothing and a reset: no answer of ours leaves unencrypted.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(authority.ask(&dispatcher.account, "GET", "/pools", "").status, 200);
}

/// Why a dispatcher with these ways in does not start.
fn refused(listen: &str, access: Access) -> String {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = || "127.0.0.1:1".to_owned();
    let settings = Settings {
        listen: listen.parse().unwrap(),
        metrics_listen: None,
        public_url: None,
        data: folder.path().join("store"),
        account: "acct".into(),
        keys: vec![Secret::new(KEY)],
        broker: BrokerSettings { url: Secret::new(format!("amqp://{}", nowhere())), name: "door".into() },
        broker_users: None,
        blobs: BlobSettings {
            endpoint: format!("http://{}", nowhere()),
            region: "us-east-1".into(),
            access_key: "a".into(),
            secret_key: Secret::new("s"),
            bucket: "user".into(),
            own_bucket: "own".into(),
        },
        join_secret: None,
        timers: Timers::default(),
        heartbeat_ms: 1_000,
        access,
    };
    let (progress, _seen) = watch::channel(Progress::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended: Result<(), DispatcherError> = runtime.block_on(dispatcher::run(settings, progress, std::future::pending()));
    let error = ended.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn plain_http_leaves_the_machine_only_when_asked_to_and_bad_files_are_named() {
    let reason = refused("0.0.0.0:0", Access::default());
    assert!(reason.contains("--tls-cert") && reason.contains("--allow-http"), "{reason}");
    let reason = refused("[::]:0", Access::default());
    assert!(reason.contains("plain HTTP"), "{reason}");

    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let reason = refused("127.0.0.1:0", Access { tls: Some(files.clone()), ..Access::default() });
    assert!(reason.contains("cert.pem"), "{reason}");
    Authority::new().certify(&files);
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let other = self::files(&other);
    Authority::new().certify(&other);
    let mixed = TlsFiles { cert: files.cert.clone(), key: other.key };
    let reason = refused("127.0.0.1:0", Access { tls: Some(mixed), ..Access::default() });
    assert!(reason.contains("certificate and key cannot be used"), "{reason}");
    fs::write(&files.cert, "no PEM").unwrap();
    let reason = refused("127.0.0.1:0", Access { tls: Some(files), ..Access::default() });
    assert!(reason.contains("certificate"), "{reason}");

    let keys = folder.path().join("keys");
    fs::write(&keys, "%%%\n").unwrap();
    let reason = refused("127.0.0.1:0", Access { keys_file: Some(keys), ..Access::default() });
    assert!(reason.contains("keys") && reason.contains("line 1"), "{reason}");
}
