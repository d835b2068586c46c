//! One HTTP request over a plain socket, signed or signed wrongly, sent exactly as written.
//!
//! A normal client would tidy paths, headers and lengths up; bad input has to arrive as it is.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// Address, name and key of an account.
#[derive(Debug, Clone)]
pub struct Account {
    pub url: String,
    pub name: String,
    pub key: String,
}

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Wire {
    pub method: String,
    /// Path and query, encoded.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A response as received.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

impl Wire {
    pub fn new(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Wire {
        Wire { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Wire {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds what every request needs but the signature.
    pub fn prepared(mut self, account: &Account, date: SystemTime) -> Wire {
        let host = account.url.split("://").nth(1).unwrap_or_default().trim_end_matches('/').to_owned();
        let has = |wire: &Wire, name: &str| wire.headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
        if !has(&self, "host") {
            self = self.with("host", host);
        }
        if !has(&self, "ocp-date") {
            self = self.with("ocp-date", httpdate::fmt_http_date(date));
        }
        let is_read = self.method == "GET" || self.method == "HEAD";
        if !has(&self, "content-length") && !has(&self, "transfer-encoding") && (!is_read || !self.body.is_empty()) {
            let length = self.body.len().to_string();
            self = self.with("content-length", length);
        }
        self.with("connection", "close")
    }

    /// The value of the Authorization header for this request.
    pub fn authorization(&self, name: &str, key: &str) -> String {
        let value =
            |name: &str| self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str());
        let mut text = self.method.clone();
        for name in SIGNED {
            text.push('\n');
            text += if name == "date" && !value("ocp-date").is_empty() { "" } else { value(name) };
        }
        text.push('\n');
        let mut own: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| name.starts_with("ocp-"))
            .collect();
        own.sort();
        for (name, value) in own {
            text += &format!("{name}:{value}\n");
        }
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        text += &format!("/{name}{path}");
        let decode = |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            if !value.is_empty() && pairs.iter().all(|(earlier, _)| *earlier != name) {
                pairs.push((name, value));
            }
        }
        pairs.sort();
        let mut bytes = text.into_bytes();
        for (name, value) in pairs {
            bytes.extend([b"\n", name.as_slice(), b":", value.as_slice()].concat());
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(key).expect("a key in base64")).expect("a key");
        mac.update(&bytes);
        format!("SharedKey {name}:{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Sends it signed as it should be.
    pub fn send_signed(self, account: &Account) -> Got {
        let wire = self.prepared(account, SystemTime::now());
        let authorization = wire.authorization(&account.name, &account.key);
        wire.with("authorization", authorization).send(account)
    }

    /// Sends it as it is.
    pub fn send(&self, account: &Account) -> Got {
        let address = account.url.split("://").nth(1).expect("a URL").trim_end_matches('/');
        let mut socket = TcpStream::connect(address).expect("the door");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        self.send_over(&mut socket)
    }

    /// Sends it as it is over a connection of the caller's, to whose end it reads.
    pub fn send_over(&self, connection: &mut (impl Read + Write)) -> Got {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        // An API handler that refuses early may stop reading; its answer still counts.
        let written = connection.write_all(&bytes);
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        parse(&answer).unwrap_or_else(|| {
            panic!("{} {}: no answer ({written:?}, {read:?}): {:?}", self.method, self.target, String::from_utf8_lossy(&answer))
        })
    }
}

/// Takes an answer's head and body apart.
pub fn parse(answer: &[u8]) -> Option<Got> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Some(Got { status, headers, body: answer[end + 4..].to_vec() })
}
