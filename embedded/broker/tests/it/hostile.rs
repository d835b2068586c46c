//! Malformed input: the server responds, closes or waits, and neither crashes nor hoards memory.

use std::net::SocketAddr;

use embedded_broker::Broker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::servers::*;

const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// A test reads at most this much of an answer.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// A client that breaks the protocol.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn open(broker: &Broker) -> Raw {
        Raw::connect(broker.address()).await
    }

    pub async fn connect(address: SocketAddr) -> Raw {
        Raw(TcpStream::connect(address).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The server may already have closed the connection, which is an accepted answer too.
        if let Err(error) = self.0.write_all(bytes).await {
            assert!(matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset));
        }
    }

    /// Reads everything until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.0).take(ANSWER_MAX_BYTES);
        match timeout(WAIT, limited.read_to_end(&mut bytes)).await.expect("the server closes") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        bytes
    }

    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 7];
        timeout(WAIT, self.0.read_exact(&mut head)).await.unwrap().unwrap();
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; size + 1];
        timeout(WAIT, self.0.read_exact(&mut payload)).await.unwrap().unwrap();
        payload.pop();
        (head[0], payload)
    }

    /// Logs in and opens channel 1.
    pub async fn log_in(mut self) -> Raw {
        self.send(HEADER).await;
        self.frame().await;
        self.send(&start_ok(b"\0guest\0guest")).await;
        self.frame().await;
        self.send(&method(0, &[&[0, 10, 0, 31, 0, 0][..], &131_072_u32.to_be_bytes(), &[0, 0]].concat())).await;
        self.send(&method(0, &[0, 10, 0, 40, 1, b'/', 0, 0])).await;
        self.frame().await;
        self.send(&method(1, &[0, 20, 0, 10, 0])).await;
        self.frame().await;
        self
    }

    /// Declares a queue, consumes it without acks, and reads no deliveries.
    pub async fn consume_everything(self, queue: &str) -> Raw {
        let mut raw = self.log_in().await;
        let name = [&[queue.len() as u8], queue.as_bytes()].concat();
        raw.send(&method(1, &[&[0, 50, 0, 10, 0, 0][..], &name, &[0, 0, 0, 0, 0]].concat())).await;
        raw.frame().await;
        raw.send(&method(1, &[&[0, 60, 0, 20, 0, 0][..], &name, &[0, 0b10, 0, 0, 0, 0]].concat())).await;
        raw.frame().await;
        raw
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn method(channel: u16, payload: &[u8]) -> Vec<u8> {
    frame(1, channel, payload)
}

fn start_ok(response: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
    payload.extend(b"PLAIN");
    payload.extend((response.len() as u32).to_be_bytes());
    payload.extend(response);
    payload.extend([5, b'e', b'n', b'_', b'U', b'S']);
    method(0, &payload)
}

/// The reply code of the first close in a stream of frames.
fn close_code(mut bytes: &[u8]) -> Option<u16> {
    while bytes.len() >= 8 {
        let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
        let payload = &bytes[7..7 + size];
        if payload.starts_with(&[0, 10, 0, 50]) || payload.starts_with(&[0, 20, 0, 40]) {
            return Some(u16::from_be_bytes([payload[4], payload[5]]));
        }
        bytes = &bytes[size + 8..];
    }
    None
}

async fn still_serves(broker: &Broker) {
    let a = channel(&broker.url()).await;
    assert!(publish(&a, "", "none", b"x", 1).await.is_ack());
}

#[tokio::test]
async fn a_foreign_protocol_is_told_ours_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"AMQP\x03\x01\x00\x00", b"\x16\x03\x01\x02\x00\x01", b"AMQP\x00\x00\x09\x02"] {
        let mut raw = Raw::open(&broker).await;
        raw.send(greeting).await;
        assert_eq!(raw.rest().await, HEADER);
    }
    still_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn before_login_frames_are_judged_by_their_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    for bytes in [
        &[1, 0, 0, 0xff, 0xff, 0xff, 0xff][..],
        &[1, 0, 0, 0, 1, 0, 0],
        &[7][..],
        &frame(8, 3, b""),
        &frame(3, 0, b"body"),
        &frame(2, 1, b"header"),
        &method(0, b""),
        &method(0, &[0, 10, 0, 99]),
        &method(0, &[0, 10, 0, 40, 1, b'/', 0, 0]),
        &method(1, &[0, 20, 0, 10, 0]),
        &method(0, &[0, 10, 0, 11, 0xff, 0xff, 0xff, 0xff]),
        &start_ok(b"nonsense"),
        &start_ok(b"\0guest\0wrong"),
    ] {
        let mut raw = Raw::open(&broker).await;
        raw.send(HEADER).await;
        raw.send(bytes).await;
        let start = raw.frame().await;
        assert_eq!(start.1[..4], [0, 10, 0, 10]);
        let close = raw.frame().await;
        assert_eq!(close.1[..4], [0, 10, 0, 50], "{bytes:?}");
        raw.send(&method(0, &[0, 10, 0, 51])).await;
        assert!(raw.rest().await.is_empty());
    }
    still_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn after_login_every_bad_frame_has_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let publish = method(1, &[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0]);
    let header = |size: u64| frame(2, 1, &[&[0, 60, 0, 0][..], &size.to_be_bytes(), &[0, 0]].concat());
    let mut deep = vec![0, 0, 0, 0];
    for _ in 0..1_000 {
        deep = [&((deep.len() + 3) as u32).to_be_bytes()[..], &[1, b'k', b'F'], &deep].concat();
    }
    let declare = |table: &[u8]| method(1, &[&[0, 50, 0, 10, 0, 0, 1, b'q', 0][..], table].concat());
    for (what, bytes, code) in [
        ("end octet", vec![1, 0, 1, 0, 0, 0, 1, 0, 0], 501),
        ("size over frame_max", vec![3, 0, 1, 0, 2, 0, 0], 501),
        ("unknown class", method(1, &[0, 99, 0, 1]), 502),
        ("unknown method", method(1, &[0, 60, 0, 99]), 502),
        ("cut method", method(1, &[0, 50, 0, 10, 0]), 502),
        ("long method", method(1, &[0, 20, 0, 20, 1, 9, 9, 9]), 502),
        ("name that is no text", method(1, &[0, 50, 0, 10, 0, 0, 1, 0xff, 0, 0, 0, 0, 0]), 502),
        ("deep table", declare(&deep), 502),
        ("table longer than its frame", declare(&[0, 0, 0, 99]), 502),
        ("table with an unknown type", declare(&[0, 0, 0, 3, 1, b'k', b'?']), 502),
        ("channel never opened", method(7, &[0, 60, 0, 70, 0, 0, 0, 0]), 504),
        ("channel opened twice", method(1, &[0, 20, 0, 10, 0]), 504),
        ("channel above the maximum", method(60_000, &[0, 20, 0, 10, 0]), 530),
        ("header without publish", header(1), 505),
        ("body without header", frame(3, 1, b"x"), 505),
        ("method inside content", [publish.clone(), publish.clone()].concat(), 505),
        ("second header", [publish.clone(), header(1), header(1)].concat(), 505),
        ("body over its size", [publish.clone(), header(1), frame(3, 1, b"xx")].concat(), 501),
        ("header of another class", [publish.clone(), frame(2, 1, &[0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])].concat(), 501),
        ("cut properties", [publish.clone(), frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0])].concat(), 502),
        ("header longer than its properties", [publish.clone(), frame(2, 1, &[&[0, 60, 0, 0][..], &[0; 11]].concat())].concat(), 502),
        ("huge body", [publish.clone(), header(u64::MAX)].concat(), 406),
        ("transactions", method(1, &[0, 90, 0, 10]), 540),
        ("a method of the server", method(1, &[0, 60, 0, 21, 1, b'c']), 503),
        ("connection method on a channel", method(1, &[0, 10, 0, 40, 1, b'/', 0, 0]), 503),
        ("channel method on channel 0", method(0, &[0, 20, 0, 10, 0]), 503),
    ] {
        let mut raw = Raw::open(&broker).await.log_in().await;
        raw.send(&bytes).await;
        let (_, close) = raw.frame().await;
        let found = close_code(&frame(1, 0, &close));
        assert_eq!(found, Some(code), "{what}");
    }
    still_serves(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn random_bytes_never_stop_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    // Always the same seed, so that every run sends the same bytes.
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..200 {
        let mut raw = Raw::open(&broker).await;
        if round % 2 == 0 {
            raw = raw.log_in().await;
        } else {
            raw.send(HEADER).await;
        }
        for _ in 0..random() % 4 {
            let payload: Vec<u8> = (0..random() % 64).map(|_| random() as u8).collect();
            let mut bytes = frame([1, 2, 3, 8][(random() % 4) as usize], (random() % 2) as u16, &payload);
            if payload.len() > 4 && random() % 2 == 0 {
                // A valid method number with random fields reaches more code.
                let class = [10, 20, 40, 50, 60, 85][(random() % 6) as usize];
                bytes[7..11].copy_from_slice(&[0, class, 0, (random() % 13 * 10) as u8]);
            }
            raw.send(&bytes).await;
        }
    }
    still_serves(&broker).await;
    broker.stop().await;
}
