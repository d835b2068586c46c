//! A client's byte stream: plain TCP, or TLS over it. Reads and writes never wait; readiness is awaited separately.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use crate::tls::Tls;

/// Plain bytes that TLS may hold encrypted while the socket accepts no more.
const TLS_BACKLOG_BYTES: usize = 64 << 10;

/// The byte stream of a connection.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<Secured>),
}

/// TLS over a socket.
pub(crate) struct Secured {
    socket: TcpStream,
    session: RefCell<ServerConnection>,
    /// Decrypted bytes are left that did not fit into the last read; the socket does not report them.
    has_more: Cell<bool>,
}

/// Reads and writes of the socket in the form that the TLS library needs.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Wire {
    /// Takes a fresh connection; with TLS the client must begin its handshake.
    pub fn new(socket: TcpStream, tls: Option<&Tls>) -> Result<Wire, rustls::Error> {
        let Some(tls) = tls else { return Ok(Wire::Plain(socket)) };
        let mut session = ServerConnection::new(tls.config())?;
        session.set_buffer_limit(Some(TLS_BACKLOG_BYTES));
        Ok(Wire::Tls(Box::new(Secured { socket, session: RefCell::new(session), has_more: Cell::new(false) })))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(secured) => &secured.socket,
        }
    }

    /// Waits until a read may return something.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Wire::Tls(secured) if secured.has_more.get() => Ok(()),
            _ => self.socket().readable().await,
        }
    }

    /// Waits until the socket accepts bytes.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// Reads the available bytes; 0 at the end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.try_read(buffer),
            Wire::Tls(secured) => secured.try_read(buffer),
        }
    }

    /// Writes as much as fits.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.try_write(bytes),
            Wire::Tls(secured) => secured.try_write(bytes),
        }
    }

    /// True while written bytes have not been sent.
    pub fn has_backlog(&self) -> bool {
        match self {
            Wire::Plain(_) => false,
            Wire::Tls(secured) => secured.session.borrow().wants_write(),
        }
    }

    /// Sends held bytes; returns false while some are left.
    pub fn push(&self) -> io::Result<bool> {
        match self {
            Wire::Plain(_) => Ok(true),
            Wire::Tls(secured) => secured.push(),
        }
    }

    /// Sends TLS's close notification, as far as the socket accepts it.
    pub fn send_close_notify(&self) {
        if let Wire::Tls(secured) = self {
            secured.session.borrow_mut().send_close_notify();
            if let Err(error) = secured.push() {
                tracing::debug!(%error, "a client closed its connection before the end of TLS");
            }
        }
    }
}

impl Secured {
    fn push(&self) -> io::Result<bool> {
        let mut session = self.session.borrow_mut();
        while session.wants_write() {
            match session.write_tls(&mut Raw(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if blocks(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.has_more.set(false);
        let mut filled = 0;
        loop {
            let plain = self.session.borrow_mut().reader().read(&mut buffer[filled..]);
            match plain {
                Ok(0) => return Ok(filled),
                Ok(count) => {
                    filled += count;
                    if filled == buffer.len() {
                        self.has_more.set(true);
                        return Ok(filled);
                    }
                    continue;
                }
                Err(error) if blocks(&error) => {}
                // The stream ended without TLS's close notification, as with many clients.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(filled),
                Err(error) => return Err(error),
            }
            let taken = self.session.borrow_mut().read_tls(&mut Raw(&self.socket));
            match taken {
                Ok(0) if filled > 0 => return Ok(filled),
                Ok(0) => return Ok(0),
                Ok(_) => {
                    let processed = self.session.borrow_mut().process_new_packets();
                    // Handshakes and alerts are answered at once; the rest goes with the next write.
                    let pushed = self.push();
                    if let Err(error) = processed {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                    pushed?;
                }
                Err(error) if blocks(&error) && filled > 0 => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if !self.push()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.session.borrow_mut().writer().write(bytes)?;
        self.push()?;
        match count {
            // The handshake is not finished, and its buffer is full.
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}
