//! A client on the level of frames, for input that a client library cannot send and output that it hides.
//! Shared by the conformance suite and the hostile one.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The first eight bytes of a client.
pub const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Frame size asked for in tuning, in bytes.
pub const FRAME_MAX: u32 = 131_072;
/// Channels asked for in tuning.
pub const CHANNEL_MAX: u16 = 2_047;
/// At most this much of the rest of a stream is read.
const REST_BYTES_MAX: u64 = 1 << 20;
/// Time limit of one wait.
const WAIT: Duration = Duration::from_secs(30);

/// A frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Class and method, of a method frame.
    pub fn number(&self) -> Option<(u16, u16)> {
        (self.kind == 1)
            .then(|| (u16::from_be_bytes([self.payload[0], self.payload[1]]), u16::from_be_bytes([self.payload[2], self.payload[3]])))
    }

    /// The contents of a close: reply code, and the class and method that it is about.
    pub fn close(&self) -> Option<(u16, (u16, u16))> {
        if !matches!(self.number(), Some((10, 50) | (20, 40))) {
            return None;
        }
        let short = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        let after_text = 7 + usize::from(self.payload[6]);
        Some((short(4), (short(after_text), short(after_text + 2))))
    }
}

/// A connection without a client library.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects to `HOST:PORT`, or to the address in an AMQP URL.
    pub async fn open(url: &str) -> Wire {
        let address = url.rsplit_once('@').map_or(url, |(_, rest)| rest.split('/').next().unwrap());
        Wire(timeout(WAIT, TcpStream::connect(address)).await.unwrap().unwrap())
    }

    /// Connects, logs in, and opens the vhost.
    pub async fn log_in(url: &str) -> Wire {
        let mut wire = Wire::open(url).await;
        wire.greet().await;
        wire.send(&start_ok("PLAIN", b"\0guest\0guest", true)).await;
        assert_eq!(wire.expect((10, 30)).await.number(), Some((10, 30)));
        wire.tune_and_open(CHANNEL_MAX, FRAME_MAX, 0).await;
        wire.expect((10, 41)).await;
        wire
    }

    /// Sends the protocol header and returns the server's start.
    pub async fn greet(&mut self) -> Frame {
        self.send(HEADER).await;
        self.expect((10, 10)).await
    }

    /// Answers the server's tune and asks for the vhost.
    pub async fn tune_and_open(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        self.send(&tune_ok(channel_max, frame_max, heartbeat)).await;
        self.send(&Method::new(10, 40).text("/").text("").octet(0).on(0)).await;
    }

    /// Opens a channel.
    pub async fn channel(&mut self, number: u16) {
        self.send(&Method::new(20, 10).text("").on(number)).await;
        self.expect((20, 11)).await;
    }

    /// Writes; an error because the server has closed already is ignored.
    pub async fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = timeout(WAIT, self.0.write_all(bytes)).await.expect("the server reads") {
            assert!(is_end(&error), "{error}");
        }
    }

    /// Ends the sending side.
    pub async fn finish(&mut self) {
        if let Err(error) = timeout(WAIT, self.0.shutdown()).await.expect("the socket closes") {
            assert!(is_end(&error) || error.kind() == std::io::ErrorKind::NotConnected, "{error}");
        }
    }

    /// The next frame, or nothing at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        timeout(WAIT, self.read()).await.expect("a frame or the end")
    }

    /// All bytes until the server ends the stream, bounded.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.0).take(REST_BYTES_MAX);
        if let Err(error) = timeout(WAIT, limited.read_to_end(&mut bytes)).await.expect("the server ends the stream") {
            assert!(is_end(&error), "{error}");
        }
        bytes
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 7];
        ended(self.0.read_exact(&mut head).await)?;
        let mut payload = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
        ended(self.0.read_exact(&mut payload).await)?;
        assert_eq!(payload.pop(), Some(0xCE), "a frame's end");
        Some(Frame { kind: head[0], channel: u16::from_be_bytes([head[1], head[2]]), payload })
    }

    /// The next method frame, which must be this one; heartbeats are skipped.
    pub async fn expect(&mut self, number: (u16, u16)) -> Frame {
        loop {
            let frame = self.frame().await.expect("the stream goes on");
            if frame.kind == 8 {
                continue;
            }
            assert_eq!(frame.number(), Some(number), "{frame:?}");
            return frame;
        }
    }

    /// Reads up to the first close; nothing when the stream ends without one.
    pub async fn close(&mut self) -> Option<(u16, (u16, u16))> {
        while let Some(frame) = self.frame().await {
            if let Some(close) = frame.close() {
                return Some(close);
            }
        }
        None
    }
}

fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn ended<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if is_end(&error) => None,
        Err(error) => panic!("reading failed: {error}"),
    }
}

/// A frame around a payload.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// `connection.start-ok`, with the capabilities a modern client has or with none.
pub fn start_ok(mechanism: &str, response: &[u8], has_capabilities: bool) -> Vec<u8> {
    let mut yes = Vec::new();
    for name in ["consumer_cancel_notify", "connection.blocked", "authentication_failure_close"] {
        yes.extend(entry(name, b't', &[1]));
    }
    let properties = if has_capabilities { entry("capabilities", b'F', &long_string(&yes)) } else { Vec::new() };
    Method::new(10, 11).long_text(&properties).text(mechanism).long_text(response).text("en_US").on(0)
}

/// `connection.tune-ok`.
pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    Method::new(10, 31).bytes(&channel_max.to_be_bytes()).bytes(&frame_max.to_be_bytes()).bytes(&heartbeat.to_be_bytes()).on(0)
}

/// A content header frame without properties.
pub fn content_header(channel: u16, body_bytes: u64) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0][..], &body_bytes.to_be_bytes(), &[0, 0]].concat())
}

/// A table entry: name, type, value.
pub fn entry(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[name.len() as u8][..], name.as_bytes(), &[kind], value].concat()
}

/// Bytes preceded by their length in four bytes.
pub fn long_string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A builder of a method's fields.
pub struct Method(Vec<u8>);

impl Method {
    pub fn new(class: u16, method: u16) -> Method {
        Method([class.to_be_bytes(), method.to_be_bytes()].concat())
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Method {
        self.0.extend(bytes);
        self
    }
    pub fn octet(self, value: u8) -> Method {
        self.bytes(&[value])
    }
    /// The reserved short at the start of most methods of queues and messages.
    pub fn reserved(self) -> Method {
        self.bytes(&[0, 0])
    }
    pub fn tag(self, value: u64) -> Method {
        self.bytes(&value.to_be_bytes())
    }
    pub fn text(self, value: &str) -> Method {
        self.octet(value.len() as u8).bytes(value.as_bytes())
    }
    /// A long string, or a table from its entries.
    pub fn long_text(self, value: &[u8]) -> Method {
        self.bytes(&long_string(value))
    }
    /// The frame of the method.
    pub fn on(self, channel: u16) -> Vec<u8> {
        frame(1, channel, &self.0)
    }
}
