//! Bearer tokens: an issuer with real keys inside the test process, its roles, and tokens that must be refused.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use api::{OidcSettings, Role};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use dispatcher::Access;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::{signing::Got, test_dispatcher::TestDispatcher};

const AUDIENCE: &str = "https://batch.core.windows.net/";
/// Bytes before the private key in the PKCS #8 wrapping of RSA keys of 2048 bits.
const WRAPPING: usize = 26;

fn rsa() -> EncodingKey {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    EncodingKey::from_rsa_der(&key.serialize_der()[WRAPPING..])
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_der(&KeyPair::generate().unwrap().serialize_der())
}

fn public(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    serde_json::to_value(jwk).unwrap()
}

/// An issuer of tokens on a port of its own; its thread ends with the test process.
struct Oidc {
    url: String,
    rsa: EncodingKey,
    ec: EncodingKey,
}

impl Oidc {
    fn start() -> Oidc {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/tenant", listener.local_addr().unwrap());
        let (rsa, ec) = (rsa(), ec());
        // Unknown kinds of keys stand beside the good ones, as issuers have them.
        let keys = json!({"keys": [
            {"kty": "oct", "kid": "secret", "k": BASE64.encode("published by mistake")},
            public(&rsa, Algorithm::RS256, "rsa"),
            public(&ec, Algorithm::ES256, "ec"),
        ]});
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                let document = if head.starts_with(b"GET /tenant/keys ") { &keys } else { &discovery };
                let body = document.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Oidc { url, rsa, ec }
    }

    fn access(&self) -> Access {
        let oidc = OidcSettings { issuer: self.url.clone(), audience: AUDIENCE.into(), default_role: None };
        Access { oidc: Some(oidc), ..Access::default() }
    }

    fn claims(&self, changes: Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 600, "roles": ["contributor"]});
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    fn token(&self, changes: Value) -> String {
        sign(&self.rsa, Algorithm::RS256, "rsa", &self.claims(changes))
    }
}

fn sign(key: &EncodingKey, algorithm: Algorithm, id: &str, claims: &Value) -> String {
    let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

fn told(got: &Got) -> (u16, String) {
    (got.status, got.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn tokens_of_the_issuer_open_by_rsa_and_by_elliptic_curve() {
    let issuer = Oidc::start();
    let dispatcher = TestDispatcher::start_with(issuer.access());
    let ask = |token: &str| dispatcher.ask_as(token, "GET", "/jobs", &Value::Null).status;
    assert_eq!(ask(&issuer.token(json!({}))), 200);
    assert_eq!(ask(&sign(&issuer.rsa, Algorithm::PS256, "rsa", &issuer.claims(json!({})))), 200);
    assert_eq!(ask(&sign(&issuer.ec, Algorithm::ES256, "ec", &issuer.claims(json!({})))), 200);
    assert_eq!(ask(&issuer.token(json!({"aud": ["other", AUDIENCE]}))), 200, "one of several audiences is enough");
    dispatcher.get("/jobs");
}

#[test]
fn tokens_that_are_wrong_in_any_part_open_nothing() {
    let issuer = Oidc::start();
    let dispatcher = TestDispatcher::start_with(issuer.access());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = issuer.token(json!({}));
    let (head, claims, signature) = {
        let mut parts = good.split('.').map(str::to_owned);
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
    };
    let none = BASE64.encode(json!({"alg": "none", "typ": "JWT", "kid": "rsa"}).to_string());
    let published = EncodingKey::from_secret(b"published by mistake");
    let changed = BASE64.encode(issuer.claims(json!({"sub": "another"})).to_string());
    let wrong = [
        ("expired", issuer.token(json!({"exp": now - 3_600}))),
        ("no expiry", issuer.token(json!({"exp": null}))),
        ("not yet", issuer.token(json!({"nbf": now + 3_600}))),
        ("another audience", issuer.token(json!({"aud": "https://management.core.windows.net/"}))),
        ("no audience", issuer.token(json!({"aud": null}))),
        ("another issuer", issuer.token(json!({"iss": "https://example.org"}))),
        ("no issuer", issuer.token(json!({"iss": null}))),
        ("another key of that name", sign(&rsa(), Algorithm::RS256, "rsa", &issuer.claims(json!({})))),
        ("another curve key", sign(&ec(), Algorithm::ES256, "ec", &issuer.claims(json!({})))),
        ("a key of another kind", sign(&issuer.ec, Algorithm::ES256, "rsa", &issuer.claims(json!({})))),
        ("an unknown key", sign(&issuer.rsa, Algorithm::RS256, "gone", &issuer.claims(json!({})))),
        ("a published secret", sign(&published, Algorithm::HS256, "secret", &issuer.claims(json!({})))),
        ("a secret under a public key's name", sign(&published, Algorithm::HS256, "rsa", &issuer.claims(json!({})))),
        ("no algorithm", format!("{none}.{claims}.")),
        ("no algorithm, but a signature", format!("{none}.{claims}.{signature}")),
        ("changed claims", format!("{head}.{changed}.{signature}")),
        ("no signature", format!("{head}.{claims}.")),
        ("unknown roles", issuer.token(json!({"roles": ["owner"]}))),
        ("no role", issuer.token(json!({"roles": null}))),
        ("roles of another shape", issuer.token(json!({"roles": {"contributor": true}}))),
    ];
    for (what, token) in wrong {
        let got = dispatcher.ask_as(&token, "GET", "/jobs", &Value::Null);
        assert_eq!(told(&got), (401, "Unauthorized".to_owned()), "{what}");
        assert!(!String::from_utf8_lossy(&got.body).contains(&token), "{what}: the token is not told back");
    }
    let long = format!("{head}.{}.{signature}", "a".repeat(20_000));
    assert_eq!(told(&dispatcher.ask_as(&long, "GET", "/jobs", &Value::Null)).0, 401);
    assert_eq!(told(&dispatcher.ask_as("two.parts", "GET", "/jobs", &Value::Null)).1, "InvalidAuthenticationInfo");
    assert_eq!(dispatcher.ask_as(&good, "GET", "/jobs", &Value::Null).status, 200);
}

#[test]
fn readers_look_submitters_change_work_and_contributors_everything() {
    let issuer = Oidc::start();
    let dispatcher = TestDispatcher::start_with(issuer.access());
    dispatcher.add_pool_and_job();
    let as_role = |role: &str, method: &str, target: &str, body: Value| {
        let got = dispatcher.ask_as(&issuer.token(json!({"roles": [role]})), method, target, &body);
        if got.status == 403 {
            assert_eq!(got.json()["code"], "InsufficientAccountPermissions");
        }
        got.status
    };
    let task = |id: &str| json!({"id": id, "commandLine": "true"});
    assert_eq!(as_role("reader", "GET", "/jobs/job", Value::Null), 200);
    assert_eq!(as_role("reader", "HEAD", "/pools/pool", Value::Null), 200);
    assert_eq!(as_role("reader", "POST", "/jobs/job/tasks", task("a")), 403);
    assert_eq!(as_role("reader", "DELETE", "/jobs/job", Value::Null), 403);
    assert_eq!(as_role("submitter", "POST", "/jobs/job/tasks", task("b")), 201);
    assert_eq!(as_role("submitter", "GET", "/pools", Value::Null), 200);
    assert_eq!(as_role("submitter", "POST", "/pools/pool/resize", json!({"targetDedicatedNodes": 1})), 403);
    assert_eq!(as_role("submitter", "DELETE", "/pools/pool", Value::Null), 403);
    assert_eq!(as_role("contributor", "POST", "/pools/pool/resize", json!({"targetDedicatedNodes": 0})), 202);
    let both = issuer.token(json!({"roles": "reader submitter"}));
    assert_eq!(dispatcher.ask_as(&both, "POST", "/jobs/job/tasks", &task("c")).status, 201);
    dispatcher.get("/jobs/job/tasks/b");
}

#[test]
fn tokens_without_roles_get_the_role_that_the_operator_chose() {
    let issuer = Oidc::start();
    let oidc = issuer.access().oidc.map(|oidc| OidcSettings { default_role: Some(Role::Reader), ..oidc });
    let dispatcher = TestDispatcher::start_with(Access { oidc, ..Access::default() });
    let token = issuer.token(json!({"roles": null}));
    assert_eq!(dispatcher.ask_as(&token, "GET", "/jobs", &Value::Null).status, 200);
    assert_eq!(dispatcher.ask_as(&token, "DELETE", "/jobs/j", &Value::Null).status, 403);
    assert_eq!(dispatcher.ask_as(&issuer.token(json!({"roles": ["x"]})), "GET", "/jobs", &Value::Null).status, 401);
}

#[test]
fn an_issuer_that_is_away_is_told_as_a_fault_that_passes_and_keys_still_open() {
    let free: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = Oidc::start();
    let oidc = OidcSettings { issuer: format!("http://{free}"), audience: AUDIENCE.into(), default_role: None };
    let dispatcher = TestDispatcher::start_with(Access { oidc: Some(oidc), ..Access::default() });
    let got = dispatcher.ask_as(&issuer.token(json!({})), "GET", "/jobs", &Value::Null);
    assert_eq!(told(&got), (503, "ServerBusy".to_owned()));
    assert!(got.header("retry-after").is_some());
    dispatcher.get("/jobs");
}
