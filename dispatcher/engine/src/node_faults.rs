//! What people see of a node that gets no task for a while, because its runs end by its own faults.

use contract::{outcome::Fault, state::NodeState};
use store::records::NodeRecord;

/// The code of a node's fault while it gets no task because of others.
pub(super) const NODE_PAUSED: &str = "NodePausedAfterFaults";

/// Why a node gets no task, for those who read the node.
pub(super) fn paused(in_a_row: u32, pause_ms: i64, fault: &Fault) -> Fault {
    let message = format!(
        "The node could not run tasks by its own fault {in_a_row} times in a row; it gets none for {} s. The last fault: {}",
        pause_ms / 1_000,
        fault.message
    );
    let details = [("FaultsInARow".to_owned(), in_a_row.to_string()), ("LastFault".to_owned(), fault.code.clone())];
    Fault { code: NODE_PAUSED.to_owned(), message, details: [&details[..], &fault.details].concat() }
}

/// The rules remember no pause across a restart: a node that was stored in one is as it was before. Whether it was in one.
pub(super) fn forget_pause(record: &mut NodeRecord) -> bool {
    let before = record.faults.len();
    record.faults.retain(|fault| fault.code != NODE_PAUSED);
    let was_paused = record.faults.len() < before;
    if was_paused && record.state == NodeState::Unusable {
        record.state = NodeState::Idle;
    }
    was_paused
}
