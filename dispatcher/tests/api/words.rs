//! Malformed HTTP over a raw socket: every response has Azure Batch's error body.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use crate::{
    signing::{Got, Wire, parse},
    test_dispatcher::TestDispatcher,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(dispatcher: &TestDispatcher) -> TcpStream {
    let socket = TcpStream::connect(dispatcher.account.url.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Everything that comes back until the API closes the connection.
fn raw(dispatcher: &TestDispatcher, bytes: &[u8]) -> Got {
    let mut socket = connect(dispatcher);
    // An API handler that refuses early may stop reading; its answer still counts.
    let written = socket.write_all(bytes);
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    parse(&answer).unwrap_or_else(|| {
        panic!("no answer to {:.60} ({written:?}, {read:?}): {:?}", String::from_utf8_lossy(bytes), String::from_utf8_lossy(&answer))
    })
}

#[track_caller]
fn refused(dispatcher: &TestDispatcher, what: &str, bytes: &[u8], status: u16, code: &str) {
    let got = raw(dispatcher, bytes);
    let told = String::from_utf8_lossy(&got.body).into_owned();
    assert_eq!(got.status, status, "{what}: {told}");
    let body: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{what}: {error}: {told:?}"));
    assert_eq!(body["code"], code, "{what}: {told}");
    assert!(body["message"]["value"].as_str().unwrap().contains("\nRequestId:"), "{what}");
    assert_eq!(got.header("content-type"), Some("application/json;odata=minimalmetadata"), "{what}");
    assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()), "{what}");
    assert!(got.header("request-id").is_some() && got.header("date").is_some(), "{what}");
}

#[test]
fn what_is_no_http_is_refused_in_the_words_of_azure_batch() {
    let dispatcher = TestDispatcher::start();
    let refused = |what: &str, bytes: &[u8], status, code: &str| refused(&dispatcher, what, bytes, status, code);
    let many: String = (0..10_000).map(|number| format!("x-{number}: 1\r\n")).collect();
    refused("10,000 headers", format!("GET /jobs HTTP/1.1\r\nhost: h\r\n{many}\r\n").as_bytes(), 431, "InvalidHeaderValue");
    let few: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    refused("200 headers", format!("GET /jobs HTTP/1.1\r\nhost: h\r\n{few}\r\n").as_bytes(), 431, "InvalidHeaderValue");
    let url = format!("GET /jobs/{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(65_530));
    let got = raw(&dispatcher, url.as_bytes());
    assert!([414, 431].contains(&got.status) && got.json()["code"].is_string(), "a URL of 64 KiB: {}", got.status);
    for (what, bytes) in [
        ("words", &b"hello there, door\r\n\r\n"[..]),
        ("a line without a version", b"GET /jobs\r\n\r\n"),
        ("another version", b"GET /jobs HTTP/3.7\r\nhost: h\r\n\r\n"),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("a space in the path", b"GET /jo bs HTTP/1.1\r\nhost: h\r\n\r\n"),
        ("a NUL in a header", b"GET /jobs HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n"),
        ("a header without a colon", b"GET /jobs HTTP/1.1\r\nhost: h\r\nnothing\r\n\r\n"),
        ("a space before the colon", b"GET /jobs HTTP/1.1\r\nhost : h\r\n\r\n"),
        ("a folded header", b"GET /jobs HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n"),
        ("lengths that differ", b"POST /jobs HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("a negative length", b"POST /jobs HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n"),
        ("a length in words", b"POST /jobs HTTP/1.1\r\nhost: h\r\ncontent-length: ten\r\n\r\n"),
        ("a length beyond 64 bits", b"POST /jobs HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999999\r\n\r\n"),
        ("a coding nobody knows", b"POST /jobs HTTP/1.1\r\nhost: h\r\ntransfer-encoding: rot13\r\n\r\n"),
    ] {
        refused(what, bytes, 400, "InvalidInput");
    }
    dispatcher.get("/jobs");
}

#[test]
fn what_is_http_but_not_ours_is_refused_in_the_words_of_azure_batch() {
    let dispatcher = TestDispatcher::start();
    let refused = |what: &str, bytes: &[u8], status, code: &str| refused(&dispatcher, what, bytes, status, code);
    let close = "host: h\r\nconnection: close\r\n\r\n";
    refused("no signature", format!("GET /jobs HTTP/1.1\r\n{close}").as_bytes(), 401, "Unauthorized");
    refused("no host", b"GET /jobs HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "MissingRequiredHeader");
    refused("a host with a path", b"GET /jobs HTTP/1.1\r\nhost: a/b\r\nconnection: close\r\n\r\n", 400, "InvalidHeaderValue");
    refused("two hosts", format!("GET /jobs HTTP/1.1\r\nhost: other\r\n{close}").as_bytes(), 400, "InvalidHeaderValue");
    refused("an unsigned unknown method", format!("BREW /jobs HTTP/1.1\r\n{close}").as_bytes(), 401, "Unauthorized");
    refused("CONNECT", format!("CONNECT example.org:443 HTTP/1.1\r\n{close}").as_bytes(), 401, "Unauthorized");
    refused("a star", format!("OPTIONS * HTTP/1.1\r\n{close}").as_bytes(), 401, "Unauthorized");
    // The coding wins, as HTTP has it: nobody in front of us can hide a second request behind the length.
    let both = "POST /jobs HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\nhost: h\r\n\r\n0\r\n\r\nGET /jobs";
    refused("length and coding at once", format!("{both} HTTP/1.1\r\n{close}").as_bytes(), 401, "Unauthorized");
    for bytes in [50 * 1024, 70 * 1024, 100 * 1024, 300 * 1024] {
        let got = raw(&dispatcher, format!("GET /jobs HTTP/1.1\r\nx-long: {}\r\n{close}", "a".repeat(bytes)).as_bytes());
        if bytes < 64 * 1024 {
            assert_eq!(got.status, 401, "{bytes}");
            continue;
        }
        assert!([400, 431].contains(&got.status), "{bytes}: {}", got.status);
        assert_eq!(got.json()["code"], "InvalidHeaderValue", "{bytes}");
    }
    refused(
        "a broken chunk",
        format!("POST /jobs HTTP/1.1\r\ntransfer-encoding: chunked\r\n{close}zz\r\n").as_bytes(),
        401,
        "Unauthorized",
    );
    let signed = |method: &str, target: &str| {
        let got = Wire::new(method, target, "").send_signed(&dispatcher.account);
        (got.status, got.json()["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(signed("BREW", "/jobs?api-version=2024-02-01.19.0"), (405, "UnsupportedHttpVerb".to_owned()));
    assert_eq!(signed("GET", "/nowhere?api-version=2024-02-01.19.0"), (404, "ResourceNotFound".to_owned()));
    assert_eq!(signed("GET", "//jobs?api-version=2024-02-01.19.0"), (404, "ResourceNotFound".to_owned()));
}

#[test]
fn old_http_chunks_and_who_waits_to_continue_are_served() {
    let dispatcher = TestDispatcher::start();
    let health = raw(&dispatcher, b"GET /piecework/health HTTP/1.0\r\n\r\n");
    assert_eq!(health.status, 200);

    dispatcher.add_pool_and_job();
    let target = "/jobs/job/tasks?api-version=2024-02-01.19.0";
    let chunked = Wire::new(
        "POST",
        target,
        r#"19
{"id":"a","commandLine":"
2
x"
1
}
0

"#
        .replace('\n', "\r\n")
        .into_bytes(),
    )
    .with("transfer-encoding", "chunked");
    let got = chunked.send_signed(&dispatcher.account);
    assert_eq!(got.status, 201, "{}", String::from_utf8_lossy(&got.body));

    let body = r#"{"id":"b","commandLine":"x"}"#;
    let wire = Wire::new("POST", target, body).with("expect", "100-continue").prepared(&dispatcher.account, SystemTime::now());
    let authorization = wire.authorization("acct", &dispatcher.account.key);
    let wire = wire.with("authorization", authorization);
    let head: String = wire.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut socket = connect(&dispatcher);
    socket.write_all(format!("POST {target} HTTP/1.1\r\n{head}\r\n").as_bytes()).unwrap();
    let mut line = [0; 25];
    socket.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(parse(&answer).unwrap().status, 201);

    // Who is refused hears it without having sent the body.
    let refused = raw(&dispatcher, b"POST /jobs HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("Unauthorized")));
}

#[test]
fn a_refusal_after_good_answers_on_one_connection_is_in_our_words_too() {
    let dispatcher = TestDispatcher::start();
    let mut socket = connect(&dispatcher);
    for _ in 0..3 {
        socket.write_all(b"HEAD /piecework/health HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    }
    socket.write_all(b"what now\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let got = parse(&answer).unwrap();
    assert_eq!((got.status, got.json()["code"].as_str()), (400, Some("InvalidInput")));
}
