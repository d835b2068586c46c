//! The server through a real client over a real socket.

mod smoke;
