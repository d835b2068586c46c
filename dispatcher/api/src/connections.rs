//! Open connections: a limit for all, a limit per address, and which connection is closed when one is reached.
//!
//! A new connection replaces the one from the same address that has been idle for longest. When all of those are busy
//! with a request, the new one is refused, so no answer is cut off.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::protocol_errors::Talk;

/// Limits on open connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// From one address; with IPv6, from one /64 network.
    pub per_address: usize,
}

/// All open connections.
#[derive(Clone)]
pub struct Connections {
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    by_address: HashMap<IpAddr, Vec<Entry>>,
    count: usize,
    next: u64,
}

struct Entry {
    number: u64,
    talk: Talk,
    leave: Arc<Notify>,
}

/// Entry of an open connection; dropping it removes the connection from the list.
pub struct Place {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
    number: u64,
    /// Whether the connection is busy.
    pub talk: Talk,
    /// Asks the connection to close.
    pub leave: Arc<Notify>,
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Connections {
        Connections { limits, open: Arc::default() }
    }

    /// Adds a connection; `None` when no idle connection can be closed for it.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut open = lock(&self.open);
        if open.by_address.get(&address).is_some_and(|entries| entries.len() >= self.limits.per_address) && !open.dismiss(address) {
            return None;
        }
        if open.count >= self.limits.all && !open.dismiss_anywhere() {
            return None;
        }
        let (number, talk, leave) = (open.next, Talk::default(), Arc::new(Notify::new()));
        open.next += 1;
        open.count += 1;
        open.by_address.entry(address).or_default().push(Entry { number, talk: talk.clone(), leave: leave.clone() });
        Some(Place { open: self.open.clone(), address, number, talk, leave })
    }
}

impl Open {
    /// Closes the connection of an address that has been idle for longest; false when none is idle.
    fn dismiss(&mut self, address: IpAddr) -> bool {
        let entries = self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        let silent = entries.iter().filter_map(|entry| Some((entry.talk.quiet_since()?, entry.number)));
        let Some((_, number)) = silent.min() else { return false };
        if let Some(entry) = self.remove(address, number) {
            entry.leave.notify_one();
        }
        true
    }

    /// The same for the address with the most connections, or for any other.
    fn dismiss_anywhere(&mut self) -> bool {
        let mut addresses: Vec<(usize, IpAddr)> = self.by_address.iter().map(|(address, entries)| (entries.len(), *address)).collect();
        addresses.sort_unstable();
        addresses.into_iter().rev().any(|(_, address)| self.dismiss(address))
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Entry> {
        let entries = self.by_address.get_mut(&address)?;
        let index = entries.iter().position(|entry| entry.number == number)?;
        let entry = entries.swap_remove(index);
        if entries.is_empty() {
            self.by_address.remove(&address);
        }
        self.count -= 1;
        Some(entry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.open).remove(self.address, self.number);
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address that is counted: with IPv6 the whole /64 network, which belongs to one customer.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn must_leave(place: &Place) -> bool {
        place.leave.notified().now_or_never().is_some()
    }

    #[test]
    fn the_longest_silent_connection_of_an_address_makes_room_and_a_busy_one_never() {
        let connections = Connections::new(Limits { all: 100, per_address: 3 });
        let crowd = address("192.0.2.1");
        let places: Vec<Place> = (0..3).map(|_| connections.enter(crowd).unwrap()).collect();
        let other = connections.enter(address("192.0.2.2")).unwrap();
        places[0].talk.begin();
        let fourth = connections.enter(crowd).unwrap();
        assert_eq!(places.iter().map(must_leave).collect::<Vec<_>>(), [false, true, false]);
        for place in [&places[2], &fourth] {
            place.talk.begin();
        }
        assert!(connections.enter(crowd).is_none(), "all are busy");
        assert!(!must_leave(&other), "others are not touched");
        drop(places);
        drop(fourth);
        assert!((0..3).map(|_| connections.enter(crowd)).collect::<Option<Vec<_>>>().is_some(), "places of those that left are free");
        assert_eq!(lock(&connections.open).count, 1);
    }

    #[test]
    fn when_all_places_are_taken_the_address_with_the_most_connections_makes_room() {
        let connections = Connections::new(Limits { all: 4, per_address: 3 });
        let lonely = connections.enter(address("192.0.2.2")).unwrap();
        let crowd: Vec<Place> = (0..3).map(|_| connections.enter(address("192.0.2.1")).unwrap()).collect();
        let _newcomer = connections.enter(address("192.0.2.3")).unwrap();
        assert!(must_leave(&crowd[0]) && !must_leave(&lonely));
    }

    #[test]
    fn a_network_of_version_6_counts_as_one_address_and_a_mapped_address_as_what_it_maps() {
        assert_eq!(counted(address("2001:db8:1:2:3:4:5:6")), counted(address("2001:db8:1:2::1")));
        assert_ne!(counted(address("2001:db8:1:2::1")), counted(address("2001:db8:1:3::1")));
        assert_eq!(counted(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
