//! Unsent bytes of one client. Bounded: above the marks no more is delivered to it, and no more is read from it.

use std::io;

use crate::wire::Wire;

/// Above this the connection's consumers get no more messages.
const DELIVERY_MARK_BYTES: usize = 256 << 10;
/// Above this no more is read from the client.
const READ_MARK_BYTES: usize = 1 << 20;
/// A larger buffer is freed when it is empty.
const KEEP_BYTES: usize = 512 << 10;

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    Done,
    /// The socket accepts no more for now.
    Full,
}

/// Outbound buffer of a connection.
#[derive(Default)]
pub(crate) struct Outbox {
    pub bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.sent
    }
    pub fn is_congested(&self) -> bool {
        self.pending() >= DELIVERY_MARK_BYTES
    }
    pub fn is_full(&self) -> bool {
        self.pending() >= READ_MARK_BYTES
    }

    /// Writes as much as the socket accepts.
    pub fn flush(&mut self, wire: &Wire) -> io::Result<Flush> {
        while self.sent < self.bytes.len() {
            match wire.try_write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.drop_sent();
                    return Ok(Flush::Full);
                }
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Ok(if wire.push()? { Flush::Done } else { Flush::Full })
    }

    /// Removes the sent bytes once they are the larger part, so that the buffer does not grow without end.
    fn drop_sent(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}
