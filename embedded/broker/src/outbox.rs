//! The bytes on their way to one client. Bounded: above the marks no more is delivered, and no more is read.

use std::io;

use crate::wire::Wire;

/// Above this the connection's consumers get nothing more.
const DELIVERY_MARK_BYTES: usize = 256 << 10;
/// Above this nothing more is read from the client either.
const READ_MARK_BYTES: usize = 1 << 20;
/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BYTES: usize = 512 << 10;

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    Done,
    /// The socket takes no more for now.
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

    /// Writes as much as the socket takes.
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

    /// Forgets what was sent once it is the larger part, so that the buffer does not creep.
    fn drop_sent(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}
