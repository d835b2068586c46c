//! What the agent's loop knows of functions: those of its pool, invocations that run, and those of functions it does not
//! know yet.
//!
//! ```text
//! delivery ──function is known──► running ──► concluded: the delivery is settled
//!    └── not known ──► waiting until the dispatcher was asked ──► running, or refused
//! ```

use std::{collections::HashMap, sync::Arc};

use clients::amqp::Delivery;
use contract::{
    function::{Function, PoolFunctions},
    ids::FunctionId,
};

/// An invocation in the agent's hands; `H` settles its delivery.
#[derive(Debug)]
pub struct Invocation<H> {
    /// Absent for one that only waits for its refusal, or its way to another queue, to be confirmed.
    function: Option<FunctionId>,
    pub held: H,
}

impl<H> Invocation<H> {
    /// Whether it takes a slot.
    pub fn is_run(&self) -> bool {
        self.function.is_some()
    }
}

/// Invocations that waited for an answer, and all functions where they changed.
pub type Answered<H> = (Vec<(Delivery, H)>, Option<Vec<Arc<Function>>>);

#[derive(Debug)]
struct Unknown<H> {
    delivery: Delivery,
    held: H,
    /// Whether the open question was sent after it came.
    is_asked: bool,
}

/// The functions of the agent's pool, and invocations.
#[derive(Debug)]
pub struct Functions<H> {
    known: HashMap<FunctionId, Arc<Function>>,
    number: u64,
    is_asking: bool,
    unknown: Vec<Unknown<H>>,
    invocations: HashMap<u64, Invocation<H>>,
    next: u64,
}

impl<H> Default for Functions<H> {
    fn default() -> Functions<H> {
        Functions { known: HashMap::new(), number: 0, is_asking: false, unknown: Vec::new(), invocations: HashMap::new(), next: 0 }
    }
}

impl<H> Functions<H> {
    /// The version of a function that takes new invocations.
    pub fn get(&self, name: &FunctionId) -> Option<Arc<Function>> {
        self.known.get(name).cloned()
    }

    /// Whether the dispatcher has others than the agent.
    pub fn differs(&self, number: u64) -> bool {
        self.number != number
    }

    /// Whether a question shall be sent now: at most one is open.
    pub fn begin_question(&mut self) -> bool {
        if self.is_asking {
            return false;
        }
        self.is_asking = true;
        self.unknown.iter_mut().for_each(|unknown| unknown.is_asked = true);
        true
    }

    /// Takes over an answer, if one came; returns invocations that waited for it, and all functions where they changed.
    pub fn end_question(&mut self, answer: Option<PoolFunctions>) -> Answered<H> {
        self.is_asking = false;
        let Some(PoolFunctions { number, functions }) = answer else { return (Vec::new(), None) };
        let functions: Vec<Arc<Function>> = functions.into_iter().map(Arc::new).collect();
        let is_changed = self.number != number;
        self.number = number;
        self.known = functions.iter().map(|function| (function.name.clone(), function.clone())).collect();
        let (asked, later) = std::mem::take(&mut self.unknown).into_iter().partition(|unknown| unknown.is_asked);
        self.unknown = later;
        let asked: Vec<Unknown<H>> = asked;
        (asked.into_iter().map(|unknown| (unknown.delivery, unknown.held)).collect(), is_changed.then_some(functions))
    }

    /// Keeps an invocation until the dispatcher was asked for its function.
    pub fn wait(&mut self, delivery: Delivery, held: H) {
        self.unknown.push(Unknown { delivery, held, is_asked: false });
    }

    /// Whether an invocation waits for a question that is not sent yet.
    pub fn has_question(&self) -> bool {
        !self.is_asking && !self.unknown.is_empty()
    }

    /// Gives back the invocations that wait for a question.
    pub fn take_waiting(&mut self) -> Vec<H> {
        std::mem::take(&mut self.unknown).into_iter().map(|unknown| unknown.held).collect()
    }

    /// Forgets the invocations that wait for a question, because the broker delivers them again.
    pub fn lost_channel(&mut self) {
        self.unknown.clear();
    }

    /// Records an invocation; with a function it takes a slot. Returns its number.
    pub fn begin(&mut self, function: Option<FunctionId>, held: H) -> u64 {
        self.next += 1;
        self.invocations.insert(self.next, Invocation { function, held });
        self.next
    }

    /// Removes an invocation that is concluded.
    pub fn end(&mut self, number: u64) -> Option<Invocation<H>> {
        self.invocations.remove(&number)
    }

    /// Invocations that take a slot.
    pub fn running(&self) -> usize {
        self.invocations.values().filter(|invocation| invocation.is_run()).count()
    }

    /// Invocations of this function that take a slot.
    pub fn running_of(&self, name: &FunctionId) -> usize {
        self.invocations.values().filter(|invocation| invocation.function.as_ref() == Some(name)).count()
    }

    /// Whether no invocation is in the agent's hands.
    pub fn is_idle(&self) -> bool {
        self.invocations.is_empty() && self.unknown.is_empty()
    }
}
