//! The fault that a node shows while it gets no tasks because its runs fail through its own fault.

use contract::{outcome::Fault, state::NodeState};
use store::records::NodeRecord;

/// Error code on a node that is paused after such faults.
pub(super) const NODE_PAUSED: &str = "NodePausedAfterFaults";

/// The fault as the API shows it.
pub(super) fn paused(in_a_row: u32, pause_ms: i64, fault: &Fault) -> Fault {
    let message = format!(
        "The node could not run tasks by its own fault {in_a_row} times in a row; it gets none for {} s. The last fault: {}",
        pause_ms / 1_000,
        fault.message
    );
    let details = [("FaultsInARow".to_owned(), in_a_row.to_string()), ("LastFault".to_owned(), fault.code.clone())];
    Fault { code: NODE_PAUSED.to_owned(), message, details: [&details[..], &fault.details].concat() }
}

/// Removes the pause from a stored node, because the scheduler forgets pauses at a restart. Returns whether the node
/// had one.
pub(super) fn forget_pause(record: &mut NodeRecord) -> bool {
    let before = record.faults.len();
    record.faults.retain(|fault| fault.code != NODE_PAUSED);
    let was_paused = record.faults.len() < before;
    if was_paused && record.state == NodeState::Unusable {
        record.state = NodeState::Idle;
    }
    was_paused
}
