//! What no other broker's suite tells: crashes and restarts, hostile clients, bounds.

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
