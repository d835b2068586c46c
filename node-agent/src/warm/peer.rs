//! Whose process is at the other end of a connection on loopback, by the kernel's tables: the runtime API has no
//! password that clients of AWS Lambda could send, and every user of the machine can reach its port.

use std::{fs, io, net::SocketAddr};

use rustix::process::geteuid;

/// Programs that talk from a socket of version 6 stand in the second one.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Whether the peer of a connection between these addresses is a process of this agent's user, or of root. It blocks.
pub fn is_own(peer: SocketAddr, here: SocketAddr) -> io::Result<bool> {
    let own = geteuid().as_raw();
    let mut found = None;
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => found = found.or_else(|| owner(&text, peer.port(), here.port())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // A connection that is in no table has ended.
    Ok(found.is_some_and(|owner| owner == own || owner == 0))
}

/// The user of the socket that leads from the one port to the other.
fn owner(table: &str, from: u16, to: u16) -> Option<u32> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_it = port(fields.next()?) == Some(from) && port(fields.next()?) == Some(to);
        // State, queues, timer and retransmissions stand before the user.
        fields.nth(4).filter(|_| is_it)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_a_socket_is_read_from_the_row_that_leads_here() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 0 0 10 -1\n   \
            1: 0100007F:C000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1003        0 2 1 0 20 0 0 10 -1\n";
        assert_eq!(owner(table, 0xc000, 0x1f90), Some(1003));
        assert_eq!(owner(table, 0xc001, 0x1f90), None);
        assert_eq!(owner("", 1, 2), None);
    }

    #[test]
    fn a_connection_of_ours_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, peer) = listener.accept().unwrap();
        assert!(is_own(peer, served.local_addr().unwrap()).unwrap());
        assert!(!is_own(SocketAddr::from(([127, 0, 0, 1], 1)), client.peer_addr().unwrap()).unwrap(), "nobody is there");
    }
}
