//! A stack behind TLS with a private certificate authority, and tasks that call the API by their tokens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::{
    quickstart::serve_input,
    rest::Rest,
    signing::{Account, Wire},
    stack::{PIECEWORK, Stack, skip, text},
};

/// An authority's certificate, and one of it for this machine with its key.
pub struct Certificates {
    pub authority: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Makes both in a folder.
pub fn certify(folder: &Path) -> Certificates {
    let named = |name: &str, hosts: &[&str]| {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = named("an authority of our own", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = named("a door", &["127.0.0.1", "localhost"]);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    Certificates {
        authority: write("ca.pem", authority.pem()),
        cert: write("cert.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    }
}

#[test]
fn a_whole_stack_works_behind_tls_with_an_authority_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let files = certify(folder.path());
    let (cert, key) = (files.cert.to_str().unwrap(), files.key.to_str().unwrap());
    let stack = Stack::start_with(&["--tls-cert", cert, "--tls-key", key]);
    assert!(stack.ready.url.starts_with("https://127.0.0.1:"), "{}", stack.ready.url);

    // Our own command line, first without the authority.
    let distrustful = stack.command().args(["pool", "list"]).output().unwrap();
    assert!(!distrustful.status.success());
    let (_, err) = text(&distrustful);
    assert!(err.to_lowercase().contains("certificate") && err.contains("PIECEWORK_CA_FILE"), "{err}");
    let run = |args: &[&str]| {
        let output = stack.command().env("PIECEWORK_CA_FILE", &files.authority).args(args).output().unwrap();
        let (out, err) = text(&output);
        assert!(output.status.success(), "{args:?}: {out}{err}");
        out
    };
    run(&["pool", "create", "p", "--nodes", "1"]);
    let out = run(&["run", "--pool", "p", "--", "/bin/sh", "-c", "echo $AZ_BATCH_ACCOUNT_URL"]);
    assert!(out.contains("https://127.0.0.1:"), "{out}");
    let pools: Value = serde_json::from_str(&run(&["pool", "list", "--json"])).unwrap();
    assert!(pools.to_string().contains("\"p\""), "{pools}");

    let python = std::env::var("PIECEWORK_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_client =
        Command::new(&python).args(["-c", "import azure.batch"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_client {
        return skip("azure-batch behind TLS", "needs Python with azure-batch 14.2.0 (set PIECEWORK_TEST_PYTHON)");
    }
    // Its quickstart needs the pool's nodes, made by the autoscaler, and follows https links from page to page.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/quickstart.py");
    let ready = &stack.ready;
    let mut command = Command::new(&python);
    command.args([script, &ready.url, &ready.account, &ready.key, &serve_input("hello\n"), "10"]);
    let output = command.env("REQUESTS_CA_BUNDLE", &files.authority).stdin(Stdio::null()).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&seen["succeeded"], &seen["filtered"]), (&json!(10), &json!(10)));
    let urls: Vec<&str> = seen["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert!(urls.len() == 10 && urls.iter().all(|url| url.starts_with(&ready.url)), "{urls:?}");
    stack.stop();
}

#[test]
fn a_stack_does_not_speak_plain_http_to_the_network_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(PIECEWORK);
    command.args(["up", "--listen", "0.0.0.0:0", "--data"]).arg(folder.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let (_, err) = text(&output);
    assert!(!output.status.success());
    assert!(err.contains("--tls-cert") && err.contains("--allow-http"), "{err}");
}

/// Asks the API by the task's token; prints what was asked, and the status.
const ASK: &str = r#"
url=${AZ_BATCH_ACCOUNT_URL#http://}; url=${url%/}
ask() {
  exec 3<>"/dev/tcp/${url%:*}/${url##*:}"
  printf '%s %s?api-version=2024-02-01.19.0 HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\ncontent-length: %s\r\nconnection: close\r\n\r\n%s' \
    "$1" "$2" "$url" "$AZ_BATCH_AUTHENTICATION_TOKEN" "${#3}" "$3" >&3
  read -r _ status _ <&3
  echo "$1 $2 $status"
}
ask GET /jobs/own
ask GET /jobs/own/tasks
ask GET /jobs/own/tasks/asks
ask GET /jobs/own/taskcounts
ask POST /jobs/own/tasks '{"id":"added","commandLine":"/bin/true"}'
ask POST /jobs/own/addtaskcollection '{"value":[{"id":"more","commandLine":"/bin/true"}]}'
ask DELETE /jobs/own/tasks/added
ask DELETE /jobs/own
ask POST /jobs/own/terminate
ask GET /jobs/other
ask GET /jobs/other/tasks
ask POST /jobs/other/tasks '{"id":"added","commandLine":"/bin/true"}'
ask GET /jobs
ask GET /pools
ask GET /pools/p/nodes
ask POST /pools '{"id":"q"}'
ask GET /nothing
echo "token $AZ_BATCH_AUTHENTICATION_TOKEN"
"#;

#[test]
fn a_task_comes_in_by_its_token_to_its_own_job_only_and_while_it_runs_only() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("p", 1, 1);
    rest.add_job("own", "p");
    rest.add_job("other", "p");
    let command = r#"/bin/bash -c 'eval "$SCRIPT"'"#;
    let asks = json!({
        "id": "asks", "commandLine": command, "authenticationTokenSettings": {"access": ["job"]},
        "environmentSettings": [{"name": "SCRIPT", "value": ASK}],
    });
    rest.add_task("own", asks);
    let task = rest.finished("own", "asks");
    let out = rest.send("GET", "/jobs/own/tasks/asks/files/stdout.txt", None).text();
    assert_eq!(task["executionInfo"]["exitCode"], 0, "{out}");
    let (told, token) = out.split_once("token ").unwrap();
    let expected = "\
GET /jobs/own 200
GET /jobs/own/tasks 200
GET /jobs/own/tasks/asks 200
GET /jobs/own/taskcounts 200
POST /jobs/own/tasks 201
POST /jobs/own/addtaskcollection 200
DELETE /jobs/own/tasks/added 403
DELETE /jobs/own 403
POST /jobs/own/terminate 403
GET /jobs/other 403
GET /jobs/other/tasks 403
POST /jobs/other/tasks 403
GET /jobs 403
GET /pools 403
GET /pools/p/nodes 403
POST /pools 403
GET /nothing 404
";
    assert_eq!(told, expected);
    assert_eq!(rest.finished("own", "added")["executionInfo"]["exitCode"], 0, "what the task added runs");
    rest.finished("own", "more");

    // The token died with its task, and is told to nobody.
    let account = Account { url: stack.ready.url.clone(), name: stack.ready.account.clone(), key: stack.ready.key.clone() };
    let wire = Wire::new("GET", "/jobs/own?api-version=2024-02-01.19.0", "");
    let wire = wire.with("authorization", format!("Bearer {}", token.trim())).prepared(&account, SystemTime::now());
    assert_eq!(wire.send(&account).status, 401);
    let shown = rest.get("/jobs/own/tasks/asks").to_string();
    assert!(!shown.contains(token.trim()) && shown.contains("authenticationTokenSettings"), "{shown}");

    // Who does not ask for one has none.
    rest.add_task("own", json!({"id": "plain", "commandLine": "/bin/sh -c 'echo [$AZ_BATCH_AUTHENTICATION_TOKEN]'"}));
    rest.finished("own", "plain");
    assert_eq!(rest.send("GET", "/jobs/own/tasks/plain/files/stdout.txt", None).text(), "[]\n");
    stack.stop();
}
