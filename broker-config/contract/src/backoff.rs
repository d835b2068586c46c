//! The pause before a task is tried again: it doubles with each retry, and is spread so that tasks which
//! failed together do not come back together. A pure function, so the rules can use it.

/// The pause before the second retry; before the first there is none.
pub const RETRY_PAUSE_FIRST_MS: u64 = 1_000;
/// Pauses grow up to this.
pub const RETRY_PAUSE_MAX_MS: u64 = 60_000;
/// The longest pause: at most a quarter of [`RETRY_PAUSE_MAX_MS`] is added.
pub const RETRY_PAUSE_LIMIT_MS: u64 = RETRY_PAUSE_MAX_MS / 4 * 5;

/// Milliseconds before the next retry of a task that was retried `spent` times; `seed` identifies the task.
pub fn retry_pause_ms(seed: u64, spent: u32) -> u64 {
    let Some(doublings) = spent.checked_sub(1) else { return 0 };
    let pause = RETRY_PAUSE_FIRST_MS.saturating_mul(1 << doublings.min(16)).min(RETRY_PAUSE_MAX_MS);
    let spread = pause / 2;
    pause - spread / 2 + mix(seed ^ u64::from(spent).rotate_left(32)) % (spread + 1)
}

/// The last step of SplitMix64: consecutive numbers give unrelated numbers.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_at_once_and_later_ones_wait_twice_as_long_each_time_up_to_a_minute() {
        for seed in 0..1_000 {
            assert_eq!(retry_pause_ms(seed, 0), 0);
            for (spent, middle) in [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (8, 60_000), (u32::MAX, 60_000)] {
                let pause = retry_pause_ms(seed, spent);
                assert!((middle / 4 * 3..=middle / 4 * 5).contains(&pause), "{pause} after {spent} retries");
                assert!(pause <= RETRY_PAUSE_LIMIT_MS);
            }
        }
    }

    #[test]
    fn tasks_that_fail_together_come_back_apart() {
        let mut pauses: Vec<u64> = (0..100).map(|seed| retry_pause_ms(seed, 7)).collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 90);
        assert!(pauses[0] < 50_000 && pauses[pauses.len() - 1] > 70_000);
    }
}
