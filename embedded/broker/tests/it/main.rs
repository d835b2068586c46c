//! Tests beyond the shared suite: crashes and restarts, hostile clients, bounds.

mod arguments;
mod bounds;
mod crash;
mod hostile;
mod paging;
mod scale;
mod servers;
mod smoke;
mod tls;
mod users;
