//! From the first eight bytes to an open vhost: protocol header, login, tune, open.

use std::time::Duration;

use amq_protocol::{
    frame::ProtocolVersion,
    protocol::{AMQPClass, connection},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use crate::{
    codec::{Cursor, short},
    connection::Phase,
    core::Core,
    ids::ConnectionId,
    refusal::{Outcome, Refusal},
};

const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
const MECHANISMS: &str = "PLAIN AMQPLAIN";
/// Smallest frame size that a client may ask for, in bytes.
const FRAME_MIN_BYTES: u32 = 4_096;
/// Extensions of the protocol that the server supports.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl Core {
    /// Parses the protocol header; returns the bytes used, 0 while it is incomplete.
    pub(crate) fn on_protocol_header(&mut self, id: ConnectionId, input: &[u8]) -> usize {
        let seen = input.len().min(PROTOCOL_HEADER.len());
        if input[..seen] != PROTOCOL_HEADER[..seen] {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.outbox.bytes.extend_from_slice(PROTOCOL_HEADER);
                connection.enter(Phase::Gone);
            }
            self.mark_dirty(id);
            return input.len();
        }
        if seen < PROTOCOL_HEADER.len() {
            return 0;
        }
        let version = ProtocolVersion::amqp_0_9_1();
        let start = connection::Start {
            version_major: version.major,
            version_minor: version.minor,
            server_properties: server_properties(),
            mechanisms: LongString::from(MECHANISMS),
            locales: LongString::from("en_US"),
        };
        self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Start(start)));
        self.enter(id, Phase::Login);
        seen
    }

    fn enter(&mut self, id: ConnectionId, phase: Phase) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.enter(phase);
        }
    }

    pub(crate) fn on_start_ok(&mut self, id: ConnectionId, ok: &connection::StartOk) -> Outcome {
        let login = match ok.mechanism.as_str() {
            "PLAIN" => plain(ok.response.as_bytes()),
            "AMQPLAIN" => amqplain(ok.response.as_bytes()),
            other => {
                return Err(Refusal::not_allowed(format!("unknown login mechanism '{other}'")));
            }
        };
        let user = login.and_then(|(name, password)| self.users.login(&name, &password));
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        if let Some(AMQPValue::FieldTable(wanted)) = ok.client_properties.inner().get("capabilities") {
            let has = |name: &str| wanted.inner().get(name) == Some(&AMQPValue::Boolean(true));
            connection.wants_cancel_notice = has("consumer_cancel_notify");
            connection.wants_blocked_notice = has("connection.blocked");
        }
        let is_known = user.is_some();
        connection.user = user;
        if !is_known {
            return Err(Refusal::access_refused(format!("Login was refused using authentication mechanism {}", ok.mechanism)));
        }
        let tune = connection::Tune {
            channel_max: self.settings.channel_max,
            frame_max: self.settings.frame_max_bytes,
            heartbeat: self.settings.heartbeat_seconds,
        };
        self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
        self.enter(id, Phase::Tuning);
        Ok(())
    }

    pub(crate) fn on_tune_ok(&mut self, id: ConnectionId, ok: &connection::TuneOk) -> Outcome {
        let offered = self.settings.frame_max_bytes;
        let frame_max = if ok.frame_max == 0 { offered } else { ok.frame_max };
        let channel_max = if ok.channel_max == 0 { self.settings.channel_max } else { ok.channel_max };
        if !(FRAME_MIN_BYTES..=offered).contains(&frame_max) {
            return Err(Refusal::not_allowed(format!("negotiated frame_max {frame_max} is outside {FRAME_MIN_BYTES} to {offered}")));
        }
        if channel_max > self.settings.channel_max {
            return Err(Refusal::not_allowed(format!("negotiated channel_max {channel_max} is above {}", self.settings.channel_max)));
        }
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.frame_max = frame_max as usize;
        connection.channel_max = channel_max;
        connection.heartbeat = (ok.heartbeat > 0).then(|| Duration::from_secs(u64::from(ok.heartbeat)));
        connection.enter(Phase::Opening);
        Ok(())
    }

    pub(crate) fn on_connection_open(&mut self, id: ConnectionId, vhost: &str) -> Outcome {
        if vhost != "/" {
            return Err(Refusal::not_allowed(format!("vhost '{vhost}' not found")));
        }
        self.enter(id, Phase::Open);
        self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})));
        self.send_alarm(id);
        Ok(())
    }
}

fn server_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in CAPABILITIES {
        capabilities.insert(ShortString::from(name), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    for (name, value) in [
        ("product", "Piecework"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("copyright", "The Piecework authors"),
        ("information", "Licensed under MIT or Apache-2.0"),
    ] {
        properties.insert(short(name), AMQPValue::LongString(LongString::from(value)));
    }
    properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
    properties
}

/// Parses the PLAIN response: NUL user NUL password.
fn plain(response: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = response.splitn(3, |byte| *byte == 0);
    parts.next()?;
    Some((parts.next()?.to_vec(), parts.next()?.to_vec()))
}

/// Parses the AMQPLAIN response: a table of LOGIN and PASSWORD without its length.
fn amqplain(response: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut cursor = Cursor(response);
    let (mut user, mut password) = (None, None);
    while !cursor.0.is_empty() {
        let name = cursor.short_string().ok()?;
        if cursor.octet().ok()? != b'S' {
            return None;
        }
        let length = cursor.long().ok()? as usize;
        let value = cursor.take(length).ok()?.to_vec();
        match name {
            "LOGIN" => user = Some(value),
            "PASSWORD" => password = Some(value),
            _ => {}
        }
    }
    Some((user?, password?))
}
