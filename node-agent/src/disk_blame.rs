//! Decides, purely, whether a run is to blame for a disk that is nearly full: its folder grew a lot lately, or it takes
//! at least half of what is used on the disk, or it is one of many that fill it slowly together. A run that did none of
//! it is not ended, however full the disk is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A run whose folder takes less is never to blame.
pub const OFFENDER_BYTES_MIN: u64 = 32 << 20;
/// A folder that grew by this within about [`RECENT`] is being filled.
const GROWTH_BYTES_MIN: u64 = 32 << 20;
/// A run that grew by at least one part in this many of what the disk lost lately is one of those who fill it.
const FILLERS_MAX: u64 = 32;
/// Less growth than this is nobody's share.
const SHARE_BYTES_MIN: u64 = 1 << 20;
/// Growth is measured since the newest count that is at least this old.
const RECENT: Duration = Duration::from_secs(60);
/// Pause between two counts of a folder that are made only to know its growth.
const COUNT_PAUSE: Duration = Duration::from_secs(30);
const COUNT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Such counts take at most one part in this many of the time of a thread.
const COUNT_DUTY: u32 = 50;
/// After a gap as long as this, older counts say nothing about what was written lately.
const STALE: Duration = Duration::from_secs(150);
/// Counts are remembered at least this far apart.
const SPACING: Duration = Duration::from_secs(5);

/// Earlier counts of one folder, oldest first; [`STALE`] and [`SPACING`] bound their number.
#[derive(Debug, Default)]
pub struct Growth {
    counts: VecDeque<(Instant, u64)>,
    due_at: Option<Instant>,
}

impl Growth {
    /// A folder that is empty now.
    pub fn of_empty(now: Instant) -> Growth {
        Growth { counts: VecDeque::from([(now, 0)]), due_at: None }
    }

    /// Whether the folder must be counted to keep its growth known.
    pub fn is_due(&self, now: Instant) -> bool {
        match (self.due_at, self.counts.back()) {
            (Some(due_at), _) => now >= due_at,
            (None, Some((counted_at, _))) => now.duration_since(*counted_at) >= COUNT_PAUSE,
            (None, None) => true,
        }
    }

    /// Records a count that has ended, and how long it took.
    pub fn note(&mut self, bytes: u64, now: Instant, took: Duration) {
        self.due_at = Some(now + (took * COUNT_DUTY).clamp(COUNT_PAUSE, COUNT_PAUSE_MAX));
        match self.counts.back() {
            Some((last, _)) if now.duration_since(*last) >= STALE => self.counts.clear(),
            Some((last, _)) if now.duration_since(*last) < SPACING => return,
            _ => {}
        }
        self.counts.push_back((now, bytes));
        while self.counts.get(1).is_some_and(|(counted_at, _)| now.duration_since(*counted_at) >= RECENT) {
            self.counts.pop_front();
        }
    }

    /// Bytes by which the folder grew lately, if it takes so many now; 0 where nothing is known.
    pub fn lately(&self, bytes: u64) -> u64 {
        self.counts.front().map_or(0, |(_, before)| bytes.saturating_sub(*before))
    }
}

/// The disk space that a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub bytes: u64,
    /// By so much it grew lately.
    pub grown: u64,
}

/// Why a run is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blame {
    /// It grows slowly, as others do, and takes so many bytes; together they fill the disk.
    Shares(u64),
    /// The run's folder takes this many bytes, at least half of what is used on the disk.
    Takes(u64),
    /// The run's folder grew by this many bytes lately, which weighs more.
    Grew(u64),
}

/// The reason why a run is to blame for a full disk, if it is. `disk` is what is used on the disk, and by how much that
/// grew lately.
pub fn blame(size: Size, disk: Size) -> Option<Blame> {
    if size.bytes < OFFENDER_BYTES_MIN {
        None
    } else if size.grown >= GROWTH_BYTES_MIN {
        Some(Blame::Grew(size.grown))
    } else if size.bytes >= disk.bytes / 2 {
        Some(Blame::Takes(size.bytes))
    } else if size.grown >= SHARE_BYTES_MIN.max(disk.grown / FILLERS_MAX) && disk.grown > 0 {
        Some(Blame::Shares(size.bytes))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn growth_is_what_came_within_the_last_minute_or_so() {
        let start = Instant::now();
        let mut growth = Growth::of_empty(start);
        assert_eq!(growth.lately(40 * MIB), 40 * MIB);
        growth.note(40 * MIB, start + seconds(30), Duration::ZERO);
        growth.note(41 * MIB, start + seconds(60), Duration::ZERO);
        assert_eq!(growth.lately(41 * MIB), 41 * MIB);
        growth.note(42 * MIB, start + seconds(90), Duration::ZERO);
        assert_eq!(growth.lately(42 * MIB), 2 * MIB, "what it wrote at its start is a minute old");
        assert_eq!(growth.lately(MIB), 0, "it shrank");
    }

    #[test]
    fn nothing_is_known_of_a_folder_that_was_not_counted_lately() {
        let start = Instant::now();
        assert_eq!(Growth::default().lately(MIB), 0, "it may have been like that before");
        let mut growth = Growth::of_empty(start);
        growth.note(100 * MIB, start + seconds(3_600), Duration::ZERO);
        assert_eq!(growth.lately(100 * MIB), 0);
        growth.note(150 * MIB, start + seconds(3_601), Duration::ZERO);
        assert_eq!(growth.lately(150 * MIB), 50 * MIB);
    }

    #[test]
    fn counts_for_growth_have_pauses_and_are_few() {
        let start = Instant::now();
        let mut growth = Growth::default();
        assert!(growth.is_due(start));
        growth.note(0, start, seconds(1));
        assert!(!growth.is_due(start + seconds(49)) && growth.is_due(start + seconds(50)), "a count that took a second");
        growth.note(0, start, seconds(100));
        assert!(growth.is_due(start + COUNT_PAUSE_MAX));
        for half in 0..10_000 {
            growth.note(0, start + Duration::from_millis(500 * half), Duration::ZERO);
        }
        assert!(growth.counts.len() <= 14, "{}", growth.counts.len());
    }

    #[test]
    fn who_filled_the_disk_is_to_blame_and_nobody_else() {
        let size = |bytes, grown| Size { bytes: bytes * MIB, grown: grown * MIB };
        let used = Size { bytes: 10_000 * MIB, grown: 0 };
        assert_eq!(blame(size(40, 40), used), Some(Blame::Grew(40 * MIB)));
        assert_eq!(blame(size(31, 31), used), None, "it takes little");
        assert_eq!(blame(size(4_000, 5), used), None, "it was there before, and others filled the disk");
        assert_eq!(blame(size(5_000, 0), used), Some(Blame::Takes(5_000 * MIB)));
        let filling = |grown| Size { grown: grown * MIB, ..used };
        assert_eq!(blame(size(40, 20), filling(400)), Some(Blame::Shares(40 * MIB)), "one of twenty slow ones");
        assert_eq!(blame(size(40, 20), filling(9_000)), None, "others fill it");
        assert_eq!(blame(size(40, 0), filling(1)), None, "it does not grow");
        assert_eq!(blame(size(31, 20), filling(400)), None, "it takes little");
        assert!(Blame::Takes(1) > Blame::Shares(2) && Blame::Grew(1) > Blame::Takes(2) && Blame::Grew(2) > Blame::Grew(1));
    }
}
