//! Decides how large a pool should be, pure: one call, whatever sets the pool's size.
//!
//! The dispatcher calls it, because it has the samples; the autoscaler makes and removes nodes until the pool has that
//! size.

pub mod formula;
mod policy;

use contract::{spec::QueuePolicy, state::DeallocationOption};

use crate::formula::{Evaluation, Formula, Inputs};
pub use crate::policy::Load;

/// The source of a pool's size.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// The pool is being deleted.
    Emptied,
    /// The targets that a user set.
    ByHand,
    /// The built-in policy: the pool follows its queue.
    Queue(&'a QueuePolicy),
    Formula(&'a Formula),
}

/// The decided size of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    pub dedicated: u32,
    pub low_priority: u32,
    /// How the tasks of removed nodes are treated; absent where the last resize has set it.
    pub option: Option<DeallocationOption>,
    /// The reason in words.
    pub reason: String,
    /// Present when a formula was evaluated.
    pub evaluation: Option<Evaluation>,
}

/// Decides how large a pool should be. A formula that fails changes nothing.
pub fn size(mode: Mode<'_>, load: Load, inputs: &Inputs<'_>) -> Size {
    let (dedicated, low_priority) = (inputs.target_dedicated, inputs.target_low_priority);
    match mode {
        Mode::Emptied => {
            Size { dedicated: 0, low_priority: 0, option: None, reason: "the pool is being deleted".to_owned(), evaluation: None }
        }
        Mode::ByHand => {
            let reason = format!("set by hand to {}", dedicated.saturating_add(low_priority));
            Size { dedicated, low_priority, option: None, reason, evaluation: None }
        }
        Mode::Queue(policy) => {
            let (dedicated, reason) = policy::nodes(policy, load, inputs.slots_per_node);
            Size { dedicated, low_priority: 0, option: Some(policy.deallocation), reason, evaluation: None }
        }
        Mode::Formula(formula) => {
            let evaluation = formula.evaluate(inputs);
            let (dedicated, low_priority) = (evaluation.target_dedicated, evaluation.target_low_priority);
            let reason = match &evaluation.error {
                None => format!("the formula wants {}", dedicated.saturating_add(low_priority)),
                Some(error) => format!("the formula failed and changes nothing: {error}"),
            };
            let option = evaluation.error.is_none().then_some(evaluation.option);
            Size { dedicated, low_priority, option, reason, evaluation: Some(evaluation) }
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::time::Timestamp;

    use super::*;
    use crate::formula::History;

    fn inputs(history: &History) -> Inputs<'_> {
        let now = Timestamp(1_800_000_000_000);
        Inputs { now, sampled: now, history, target_dedicated: 2, target_low_priority: 1, slots_per_node: 4, seed: 1 }
    }

    fn asked(mode: Mode<'_>) -> Size {
        size(mode, Load { waiting_slots: 40, waiting_for_ms: 9_000, ..Load::default() }, &inputs(&History::default()))
    }

    #[test]
    fn each_mode_has_its_own_size_and_says_why() {
        let policy = QueuePolicy { max_nodes: 9, ..QueuePolicy::default() };
        let formula = Formula::parse("$TargetDedicatedNodes = 5; $NodeDeallocationOption = terminate;").unwrap();
        let short = |size: Size| (size.dedicated, size.low_priority, size.option);
        assert_eq!(short(asked(Mode::Emptied)), (0, 0, None));
        assert_eq!(short(asked(Mode::ByHand)), (2, 1, None));
        assert_eq!(short(asked(Mode::Queue(&policy))), (9, 0, Some(policy.deallocation)));
        assert_eq!(short(asked(Mode::Formula(&formula))), (5, 1, Some(DeallocationOption::Terminate)));
        assert_eq!(asked(Mode::ByHand).reason, "set by hand to 3");
    }

    #[test]
    fn a_formula_that_fails_leaves_the_size_as_it_is() {
        let formula = Formula::parse("$TargetDedicatedNodes = 1 / 0;").unwrap();
        let size = asked(Mode::Formula(&formula));
        assert_eq!((size.dedicated, size.low_priority, size.option), (2, 1, None));
        assert!(size.reason.contains("changes nothing") && size.evaluation.unwrap().error.is_some(), "{}", size.reason);
    }
}
