//! Raises the resource limits of this process at its start; tasks inherit them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Programs that close every possible descriptor take long over higher limits.
const DESCRIPTORS_MAX: u64 = 65_536;

/// Raises the limits of descriptors and processes as far as the system allows.
pub fn raise() {
    lift(Resource::Nofile, Some(DESCRIPTORS_MAX));
    lift(Resource::Nproc, None);
}

fn lift(resource: Resource, most: Option<u64>) {
    let limit = getrlimit(resource);
    let wanted = target(limit, most);
    if wanted == limit {
        return;
    }
    match setrlimit(resource, wanted) {
        Ok(()) => tracing::debug!(?resource, from = ?limit.current, to = ?wanted.current, "raised a limit"),
        Err(error) => tracing::warn!(%error, ?resource, limit = ?limit.current, "cannot raise a limit; the node works within it"),
    }
}

/// Never lowers a limit; `None` is unlimited.
fn target(limit: Rlimit, most: Option<u64>) -> Rlimit {
    let Some(current) = limit.current else { return limit };
    let wanted = match (limit.maximum, most) {
        (Some(maximum), Some(most)) => Some(maximum.min(most)),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    };
    Rlimit { current: wanted.map(|wanted| wanted.max(current)), maximum: limit.maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_as_far_as_it_may_be_and_never_lowered() {
        for (current, maximum, most, expected) in [
            (Some(1_024), Some(524_288), Some(65_536), Some(65_536)),
            (Some(1_024), Some(4_096), Some(65_536), Some(4_096)),
            (Some(1_024), None, Some(65_536), Some(65_536)),
            (Some(500_000), Some(524_288), Some(65_536), Some(500_000)),
            (None, None, Some(65_536), None),
            (Some(100), Some(200), None, Some(200)),
            (Some(100), None, None, None),
        ] {
            let raised = target(Rlimit { current, maximum }, most);
            assert_eq!((raised.current, raised.maximum), (expected, maximum));
        }
    }
}
