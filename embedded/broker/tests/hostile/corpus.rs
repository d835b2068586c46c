//! The corpus of hostile streams: the phase where each begins, its name, and its expected result.

use crate::wire::{HEADER, Method, content_header, entry, frame, long_string, start_ok, tune_ok};

/// The state of the connection before a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The first bytes of a connection.
    Greeting,
    /// After the server's `connection.start`.
    Login,
    /// Logged in, with channel 1 open.
    Open,
}

/// The expected result. In every case the server keeps running, and the connection ends with its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A close of the channel or the connection with this code.
    Code(u16),
    /// The protocol's header and the end of the stream.
    Header,
    /// Any result: the server waits for more bytes, or accepts them.
    Harmless,
}

/// A hostile stream and its expected result.
pub struct Case {
    pub name: String,
    pub phase: Phase,
    pub bytes: Vec<u8>,
    pub expect: Expect,
}

use Expect::{Code, Harmless, Header};

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut put = |phase: Phase, cases: Vec<(String, Vec<u8>, Expect)>| {
        all.extend(cases.into_iter().map(|(name, bytes, expect)| Case { name: format!("{phase:?}: {name}"), phase, bytes, expect }));
    };
    put(Phase::Greeting, greetings());
    put(Phase::Login, login_frames());
    put(Phase::Login, login_methods());
    put(Phase::Open, frames());
    put(Phase::Open, cut_methods());
    put(Phase::Open, tables());
    put(Phase::Open, contents());
    put(Phase::Open, orders());
    all
}

type Rows = Vec<(String, Vec<u8>, Expect)>;

fn row(name: impl Into<String>, bytes: impl AsRef<[u8]>, expect: Expect) -> (String, Vec<u8>, Expect) {
    (name.into(), bytes.as_ref().to_vec(), expect)
}

fn greetings() -> Rows {
    let mut rows = vec![
        row("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Header),
        row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Header),
        row("TLS hello", [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], Header),
        row("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", Header),
        row("MQTT", [0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0], Header),
        row("STOMP", b"CONNECT\naccept-version:1.2\n\n\0", Header),
        row("Redis", b"*1\r\n$4\r\nPING\r\n", Header),
        row("AMQP 1.0", b"AMQP\x00\x01\x00\x00", Header),
        row("AMQP 1.0 with SASL", b"AMQP\x03\x01\x00\x00", Header),
        row("AMQP 0-8", b"AMQP\x01\x01\x08\x00", Header),
        row("AMQP 0-9", b"AMQP\x01\x01\x00\x09", Header),
        row("AMQP 0-10", b"AMQP\x01\x01\x00\x0a", Header),
        row("revision 2", b"AMQP\x00\x00\x09\x02", Header),
        row("lower case", b"amqp\x00\x00\x09\x01", Header),
        row("zeros", [0; 8], Header),
        row("ones", [0xff; 8], Header),
        row("64 KiB of nothing", vec![0; 64 << 10], Header),
        row("64 KiB of letters", vec![b'A'; 64 << 10], Header),
        row("a frame at once", frame(1, 0, &[0, 10, 0, 11]), Header),
        row("silence", b"", Harmless),
        row("header twice", [HEADER, HEADER].concat(), Code(501)),
    ];
    rows.extend((1..8).map(|length| row(format!("{length} bytes of the header"), &HEADER[..length], Harmless)));
    rows
}

/// A frame's head without its rest.
fn head(kind: u8, channel: u16, size: u32) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes()].concat()
}

fn login_frames() -> Rows {
    let mut rows = Vec::new();
    for kind in [0, 4, 5, 6, 7, 9, 10, 127, 128, 255] {
        rows.push(row(format!("frame type {kind}"), frame(kind, 0, b""), Code(501)));
    }
    for size in [8_193, 65_536, 1 << 20, 16 << 20, i32::MAX as u32, u32::MAX - 8, u32::MAX] {
        rows.push(row(format!("a frame said to have {size} bytes"), head(1, 0, size), Code(501)));
    }
    rows.extend([
        row("wrong frame end", [&head(1, 0, 4)[..], &[0, 10, 0, 11, 0]].concat(), Code(501)),
        row("frame end one too late", [&head(1, 0, 4)[..], &[0, 10, 0, 11, 0, 0xce]].concat(), Code(501)),
        row("half a head", [1, 0, 0], Harmless),
        row("head without payload", head(1, 0, 100), Harmless),
        row("payload without end", [&head(1, 0, 2)[..], &[0, 10]].concat(), Harmless),
        row("heartbeat on a channel", frame(8, 3, b""), Code(501)),
        row("heartbeat with a payload", frame(8, 0, b"beat"), Harmless),
        row("body", frame(3, 0, b"body"), Code(505)),
        row("content header on a channel", frame(2, 1, &[0; 14]), Code(504)),
        row("empty method", frame(1, 0, b""), Code(501)),
        row("method of one byte", frame(1, 0, &[0]), Code(501)),
        row("method of three bytes", frame(1, 0, &[0, 10, 0]), Code(501)),
        row("channel before login", frame(1, 1, &[0, 20, 0, 10, 0]), Code(503)),
        row("publish before login", frame(1, 1, &[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0]), Code(503)),
        row("a thousand heartbeats", frame(8, 0, b"").repeat(1_000), Harmless),
    ]);
    rows
}

fn login_methods() -> Rows {
    let mut rows = Vec::new();
    for (class, method) in [(0, 0), (10, 0), (10, 9), (10, 99), (11, 10), (30, 10), (65_535, 65_535)] {
        rows.push(row(format!("method {class}.{method}"), Method::new(class, method).on(0), Code(502)));
    }
    for (name, bytes) in [
        ("the server's own start", Method::new(10, 10).octet(0).octet(9).long_text(b"").long_text(b"").long_text(b"").on(0)),
        ("the server's own tune", Method::new(10, 30).bytes(&[0; 8]).on(0)),
        ("tune-ok too early", tune_ok(1, 4_096, 0)),
        ("open too early", Method::new(10, 40).text("/").text("").octet(0).on(0)),
        ("open-ok of a client", Method::new(10, 41).text("").on(0)),
        ("secure-ok unasked", Method::new(10, 21).long_text(b"x").on(0)),
        ("unblocked of a client", Method::new(10, 61).on(0)),
    ] {
        rows.push(row(name, bytes, Code(503)));
    }
    for mechanism in ["", "EXTERNAL", "plain", "PLAIN ", "ANONYMOUS", "SCRAM-SHA-256", &"X".repeat(255)] {
        rows.push(row(format!("mechanism '{mechanism:.20}'"), start_ok(mechanism, b"\0guest\0guest", true), Code(530)));
    }
    for (name, response) in [
        ("a wrong password", &b"\0guest\0wrong"[..]),
        ("an unknown user", b"\0nobody\0guest"),
        ("no separators", b"guestguest"),
        ("one separator", b"guest\0guest"),
        ("an empty response", b""),
        ("only separators", b"\0\0"),
        ("four separators", b"\0guest\0guest\0\0"),
        ("bytes that are no text", b"\0\xff\xfe\0\xff"),
        ("7,000 bytes of password", &[&b"\0guest\0"[..], &[b'x'; 7_000]].concat()),
    ] {
        rows.push(row(format!("PLAIN with {name}"), start_ok("PLAIN", response, true), Code(403)));
    }
    rows.push(row("AMQPLAIN without a table", start_ok("AMQPLAIN", b"\xff\xff\xff\xff", true), Code(403)));
    rows.push(row("AMQPLAIN with a wrong password", start_ok("AMQPLAIN", &amqplain("guest", "wrong"), true), Code(403)));
    for (name, fields) in [
        ("properties longer than the frame", [&[0xff; 4][..], b"x"].concat()),
        ("properties of a lying length", [&[0, 0, 0, 200][..], &[0; 20]].concat()),
        ("properties with an unknown type", [&long_string(&entry("k", b'?', b""))[..], &[5]].concat()),
        ("properties nested deeply", nested(1_000)),
        ("a mechanism longer than the frame", [&long_string(b"")[..], &[255, b'P']].concat()),
        ("a response longer than the frame", [&long_string(b"")[..], &[1, b'P', 0x7f, 0xff, 0xff, 0xff]].concat()),
        ("nothing", Vec::new()),
    ] {
        rows.push(row(format!("start-ok with {name}"), Method::new(10, 11).bytes(&fields).on(0), Code(502)));
    }
    let login = start_ok("PLAIN", b"\0guest\0guest", true);
    let after_login = |name: &str, bytes: Vec<u8>, expect| row(name, [login.clone(), bytes].concat(), expect);
    let open = |vhost: &str| Method::new(10, 40).text(vhost).text("").octet(0).on(0);
    rows.extend([
        after_login("login twice", login.clone(), Code(503)),
        after_login("frames of one byte", tune_ok(1, 1, 0), Code(530)),
        after_login("frames of 4,095 bytes", tune_ok(1, 4_095, 0), Code(530)),
        after_login("frames larger than offered", tune_ok(1, u32::MAX, 0), Code(530)),
        after_login("more channels than offered", tune_ok(u16::MAX, 131_072, 0), Code(530)),
        after_login("open without tune-ok", open("/"), Code(503)),
        after_login("an unknown vhost", [tune_ok(0, 0, 0), open("/other")].concat(), Code(530)),
        after_login("an empty vhost", [tune_ok(0, 0, 0), open("")].concat(), Code(530)),
        after_login("a channel before open", [tune_ok(0, 0, 0), frame(1, 1, &[0, 20, 0, 10, 0])].concat(), Code(503)),
        after_login("a frame of 128 KiB before open", head(1, 0, 131_072), Code(501)),
    ]);
    rows
}

fn amqplain(user: &str, password: &str) -> Vec<u8> {
    [entry("LOGIN", b'S', &long_string(user.as_bytes())), entry("PASSWORD", b'S', &long_string(password.as_bytes()))].concat()
}

/// A table nested this deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = long_string(b"");
    for _ in 0..depth {
        table = long_string(&entry("k", b'F', &table));
    }
    table
}

fn frames() -> Rows {
    let mut rows = Vec::new();
    for kind in [0, 4, 7, 9, 206, 255] {
        rows.push(row(format!("frame type {kind}"), frame(kind, 1, b""), Code(501)));
    }
    for size in [131_073, 1 << 24, u32::MAX] {
        rows.push(row(format!("a frame said to have {size} bytes"), head(3, 1, size), Code(501)));
    }
    for (class, method) in [(0, 0), (20, 99), (40, 0), (50, 12), (60, 99), (60, 65_535), (99, 1), (90, 99), (61_440, 10)] {
        rows.push(row(format!("method {class}.{method}"), Method::new(class, method).on(1), Code(502)));
    }
    rows.extend([
        row("wrong frame end", [&head(1, 1, 4)[..], &[0, 20, 0, 20, 0]].concat(), Code(501)),
        row("half a method", &Method::new(20, 20).octet(1).on(1)[..9], Harmless),
        row("header again", HEADER, Code(501)),
        row("HTTP inside", b"GET / HTTP/1.1\r\n\r\n", Code(501)),
        row("heartbeat on channel 1", frame(8, 1, b""), Code(501)),
        row("content header on channel 0", content_header(0, 1), Code(505)),
        row("body on channel 0", frame(3, 0, b"x"), Code(505)),
        row("channel method on channel 0", frame(1, 0, &[0, 20, 0, 10, 0]), Code(503)),
        row("queue method on channel 0", frame(1, 0, &[0, 50, 0, 30, 0, 0, 1, b'q', 0]), Code(503)),
        row("connection method on channel 1", Method::new(10, 40).text("/").text("").octet(0).on(1), Code(503)),
        row("close of the connection on channel 1", Method::new(10, 50).bytes(&[0, 200, 0, 0, 0, 0, 0]).on(1), Code(503)),
        row("open of the connection again", Method::new(10, 40).text("/").text("").octet(0).on(0), Code(503)),
        row("login again", start_ok("PLAIN", b"\0guest\0guest", true), Code(503)),
        row("channel 1 again", Method::new(20, 10).text("").on(1), Code(504)),
        row("a channel never opened", Method::new(60, 70).reserved().text("q").octet(0).on(7), Code(504)),
        row("channel 60,000", Method::new(20, 10).text("").on(60_000), Code(530)),
        row("close-ok unasked", Method::new(20, 41).on(1), Harmless),
        row("channels opened and closed 500 times", churn(500), Harmless),
    ]);
    rows
}

fn churn(rounds: usize) -> Vec<u8> {
    let close = Method::new(20, 40).bytes(&200_u16.to_be_bytes()).text("").bytes(&[0; 4]).on(2);
    [Method::new(20, 10).text("").on(2), close].concat().repeat(rounds)
}

/// Complete methods of clients by name; cut short or extended they are invalid.
fn whole_methods() -> Vec<(&'static str, Vec<u8>)> {
    let fields = |method: Method| {
        let framed = method.on(1);
        framed[7..framed.len() - 1].to_vec()
    };
    vec![
        ("channel.flow", fields(Method::new(20, 20).octet(1))),
        ("channel.close", fields(Method::new(20, 40).bytes(&[0, 200]).text("bye").bytes(&[0; 4]))),
        ("exchange.declare", fields(Method::new(40, 10).reserved().text("x").text("direct").octet(0).long_text(b""))),
        ("exchange.delete", fields(Method::new(40, 20).reserved().text("x").octet(0))),
        ("exchange.bind", fields(Method::new(40, 30).reserved().text("a").text("b").text("k").octet(0).long_text(b""))),
        ("exchange.unbind", fields(Method::new(40, 40).reserved().text("a").text("b").text("k").octet(0).long_text(b""))),
        ("queue.declare", fields(Method::new(50, 10).reserved().text("q").octet(4).long_text(b""))),
        ("queue.bind", fields(Method::new(50, 20).reserved().text("q").text("x").text("k").octet(0).long_text(b""))),
        ("queue.purge", fields(Method::new(50, 30).reserved().text("q").octet(0))),
        ("queue.delete", fields(Method::new(50, 40).reserved().text("q").octet(0))),
        ("queue.unbind", fields(Method::new(50, 50).reserved().text("q").text("x").text("k").long_text(b""))),
        ("basic.qos", fields(Method::new(60, 10).bytes(&[0, 0, 0, 0, 0, 1]).octet(0))),
        ("basic.consume", fields(Method::new(60, 20).reserved().text("q").text("c").octet(0).long_text(b""))),
        ("basic.cancel", fields(Method::new(60, 30).text("c").octet(0))),
        ("basic.publish", fields(Method::new(60, 40).reserved().text("x").text("k").octet(0))),
        ("basic.get", fields(Method::new(60, 70).reserved().text("q").octet(0))),
        ("basic.ack", fields(Method::new(60, 80).tag(1).octet(0))),
        ("basic.reject", fields(Method::new(60, 90).tag(1).octet(0))),
        ("basic.recover", fields(Method::new(60, 110).octet(1))),
        ("basic.nack", fields(Method::new(60, 120).tag(1).octet(0))),
        ("confirm.select", fields(Method::new(85, 10).octet(0))),
    ]
}

fn cut_methods() -> Rows {
    let mut rows = Vec::new();
    for (name, fields) in whole_methods() {
        rows.push(row(format!("{name} cut by a byte"), frame(1, 1, &fields[..fields.len() - 1]), Code(502)));
        if fields.len() > 5 {
            rows.push(row(format!("{name} without fields"), frame(1, 1, &fields[..4]), Code(502)));
        }
        rows.push(row(format!("{name} with bytes behind it"), frame(1, 1, &[&fields[..], &[9; 40]].concat()), Code(502)));
    }
    rows.push(row(
        "a name that is no text",
        Method::new(50, 10).reserved().bytes(&[2, 0xff, 0xfe]).octet(0).long_text(b"").on(1),
        Code(502),
    ));
    rows.push(row("a cut name that is no text", Method::new(60, 70).reserved().bytes(&[1, 0xc3]).octet(0).on(1), Code(502)));
    rows
}

fn declare(table: &[u8]) -> Vec<u8> {
    Method::new(50, 10).reserved().text("q").octet(4).bytes(table).on(1)
}

fn tables() -> Rows {
    let mut rows = Vec::new();
    for kind in [0, 1, b'?', b'a', b'c', b'e', b'h', b'G', b'Z', b'v', 0x7f, 0x80, 0xce, 0xff] {
        let table = long_string(&entry("k", kind, &[0; 8]));
        rows.push(row(format!("field type {kind:#04x}"), declare(&table), Code(502)));
    }
    for (kind, bytes) in
        [(b't', 1), (b'b', 1), (b's', 2), (b'u', 2), (b'I', 4), (b'i', 4), (b'f', 4), (b'D', 5), (b'l', 8), (b'd', 8), (b'T', 8)]
    {
        let table = long_string(&entry("k", kind, &vec![0; bytes - 1]));
        rows.push(row(format!("a field of type {} that is cut", char::from(kind)), declare(&table), Code(502)));
    }
    for kind in [b'S', b'x', b'F', b'A'] {
        for length in [1_u32, 0x7fff_ffff, u32::MAX] {
            let table = long_string(&entry("k", kind, &length.to_be_bytes()));
            rows.push(row(format!("a field of type {} said to have {length} bytes", char::from(kind)), declare(&table), Code(502)));
        }
    }
    rows.extend([
        row("a table longer than its frame", declare(&[0, 0, 0, 99]), Code(502)),
        row("a table of 4 GiB", declare(&[0xff; 4]), Code(502)),
        row("a key longer than its table", declare(&long_string(&[200, b'k'])), Code(502)),
        row("a key without value", declare(&long_string(&[1, b'k'])), Code(502)),
        row("tables 33 deep", declare(&nested(33)), Code(502)),
        row("tables 1,000 deep", declare(&nested(1_000)), Code(502)),
        row("tables 10,000 deep", declare(&nested(10_000)), Code(502)),
        row("an unknown argument", declare(&long_string(&entry("x-unknown", b'I', &[0; 4]))), Code(406)),
        row("a limit that is a table", declare(&long_string(&entry("x-max-length", b'F', &[0; 4]))), Code(406)),
        row("a negative limit", declare(&long_string(&entry("x-max-length", b'I', &[0xff; 4]))), Code(406)),
        row("a time to live of -2^63", declare(&long_string(&entry("x-message-ttl", b'l', &[0x80, 0, 0, 0, 0, 0, 0, 0]))), Code(406)),
        row("ten thousand arguments", declare(&long_string(&entry("x-unknown", b't', &[1]).repeat(8_000))), Code(406)),
    ]);
    rows
}

fn publish() -> Vec<u8> {
    Method::new(60, 40).reserved().text("").text("nowhere").octet(0).on(1)
}

fn raw_header(class: u16, weight: u16, size: u64, rest: &[u8]) -> Vec<u8> {
    frame(2, 1, &[&class.to_be_bytes()[..], &weight.to_be_bytes(), &size.to_be_bytes(), rest].concat())
}

fn contents() -> Rows {
    let after_publish = |name: String, bytes: Vec<u8>, expect| row(name, [publish(), bytes].concat(), expect);
    let mut rows = vec![
        row("a content header without publish", content_header(1, 1), Code(505)),
        row("a body without publish", frame(3, 1, b"x"), Code(505)),
    ];
    for (name, bytes, expect) in [
        ("a body without header", frame(3, 1, b"x"), Code(505)),
        ("a method instead of the header", publish(), Code(505)),
        ("a second header", [content_header(1, 1), content_header(1, 1)].concat(), Code(505)),
        ("a method instead of the body", [content_header(1, 1), publish()].concat(), Code(505)),
        ("a body over its size", [content_header(1, 1), frame(3, 1, b"xx")].concat(), Code(501)),
        ("a header of class 50", raw_header(50, 0, 0, &[0, 0]), Code(501)),
        ("a header of class 0", raw_header(0, 0, 0, &[0, 0]), Code(501)),
        ("a body of 2^64-1 bytes", content_header(1, u64::MAX), Code(406)),
        ("a body of 2^63 bytes", content_header(1, 1 << 63), Code(406)),
        ("a body of 128 MiB and one byte", content_header(1, (128 << 20) + 1), Code(406)),
        ("a header without properties", frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Code(502)),
        ("half a header", frame(2, 1, &[0, 60, 0]), Code(502)),
        ("an empty header", frame(2, 1, b""), Code(502)),
        ("bytes behind the properties", raw_header(60, 0, 0, &[0, 0, 9]), Code(502)),
        ("a channel closed in between", Method::new(20, 40).bytes(&[0, 200]).text("").bytes(&[0; 4]).on(1), Code(505)),
        ("empty bodies in front of the body", [content_header(1, 1), frame(3, 1, b"").repeat(100), frame(3, 1, b"x")].concat(), Harmless),
        ("the end in the middle of a body", [content_header(1, 100), frame(3, 1, b"half")].concat(), Harmless),
        ("the end behind the publish", Vec::new(), Harmless),
        ("headers nested 1,000 deep", raw_header(60, 0, 0, &[&[0x20, 0][..], &nested(1_000)].concat()), Code(502)),
        ("headers of a lying length", raw_header(60, 0, 0, &[0x20, 0, 0xff, 0xff, 0xff, 0xff]), Code(502)),
        ("a content type that is no text", raw_header(60, 0, 0, &[0x80, 0, 1, 0xff]), Code(502)),
        ("a time to live that is no number", raw_header(60, 0, 0, &[1, 0, 3, b'a', b'b', b'c']), Code(406)),
    ] {
        rows.push(after_publish(name.to_owned(), bytes, expect));
    }
    for bit in 2..16 {
        let flags = (1_u16 << bit).to_be_bytes();
        rows.push(after_publish(format!("property {bit} announced and missing"), raw_header(60, 0, 0, &flags), Code(502)));
    }
    rows
}

fn orders() -> Rows {
    let mut rows = Vec::new();
    for tag in [1, 2, u64::from(u32::MAX), u64::MAX] {
        rows.push(row(format!("ack of tag {tag}"), Method::new(60, 80).tag(tag).octet(0).on(1), Code(406)));
        rows.push(row(format!("reject of tag {tag}"), Method::new(60, 90).tag(tag).octet(1).on(1), Code(406)));
        rows.push(row(format!("nack of tag {tag}, multiple"), Method::new(60, 120).tag(tag).octet(3).on(1), Code(406)));
    }
    for (name, bytes, code) in [
        ("transactions", Method::new(90, 10).on(1), 540),
        ("immediate", [Method::new(60, 40).reserved().text("").text("k").octet(2).on(1), content_header(1, 0)].concat(), 540),
        ("a prefetch in bytes", Method::new(60, 10).bytes(&[0, 0, 1, 0, 0, 1]).octet(0).on(1), 540),
        ("consume-ok of a client", Method::new(60, 21).text("c").on(1), 503),
        ("deliver of a client", Method::new(60, 60).text("c").tag(1).octet(0).text("").text("q").on(1), 503),
        ("declare-ok of a client", Method::new(50, 11).text("q").bytes(&[0; 8]).on(1), 503),
        ("an exchange of an unknown kind", Method::new(40, 10).reserved().text("e").text("magic").octet(0).long_text(b"").on(1), 503),
        ("the default exchange declared", Method::new(40, 10).reserved().text("").text("direct").octet(0).long_text(b"").on(1), 403),
        ("the default exchange deleted", Method::new(40, 20).reserved().text("").octet(0).on(1), 403),
        ("amq.direct deleted", Method::new(40, 20).reserved().text("amq.direct").octet(0).on(1), 403),
        ("a reserved queue name", Method::new(50, 10).reserved().text("amq.mine").octet(4).long_text(b"").on(1), 403),
        ("a queue that is not there", Method::new(60, 70).reserved().text("none").octet(0).on(1), 404),
        ("a queue never declared", Method::new(50, 30).reserved().text("").octet(0).on(1), 404),
        (
            "an exchange that is not there",
            [Method::new(60, 40).reserved().text("none").text("k").octet(0).on(1), content_header(1, 0)].concat(),
            404,
        ),
    ] {
        rows.push(row(name, bytes, Code(code)));
    }
    rows
}
