//! Invocations of functions: each takes a slot as a task of one slot does, and touches nothing but the broker.

use std::{sync::Arc, time::Duration};

use broker_config::topology;
use clients::amqp::{Caller, Delivery};
use contract::{
    function::{Function, PoolFunctions},
    ids::{FunctionId, RunId},
    message::{Reply, ReplyMessage, Request, RequestKind, VERSION},
};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Held, Settlement},
    conclusion::{Concluder, Conclusion},
    warm::{Event, Failure},
};

/// Timeout of a question for the functions of the pool.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a question that was not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// Names the function where a client cannot set the message's type, as `amqp-publish` cannot.
const FUNCTION_HEADER: &str = "piecework-function";

impl Agent {
    /// Handles a delivery of the invoke exchange that is in a slot's hand.
    pub(super) fn on_invocation(&mut self, delivery: Delivery, held: Held) {
        if !self.capacity.has_room() {
            return self.settle(held, Settlement::Back);
        }
        let Some(name) = function_of(&delivery) else {
            let message = format!("neither the message's type nor its header {FUNCTION_HEADER} is the name of a function; set one of them");
            return self.fail(delivery, held, Failure::lasting("FunctionNameInvalid", message));
        };
        match self.functions.get(&name) {
            Some(function) => self.invoke(delivery, held, function),
            None => {
                self.functions.wait(delivery, held);
                self.ask_functions(Duration::ZERO);
            }
        }
    }

    fn invoke(&mut self, delivery: Delivery, held: Held, function: Arc<Function>) {
        let limit = function.spec.concurrency_per_node.unwrap_or(u32::MAX) as usize;
        if self.functions.running_of(&function.name) >= limit {
            return self.conclude(delivery, held, Conclusion::Postponed);
        }
        self.capacity.start(held.hand(), 1);
        let number = self.functions.begin(Some(function.name.clone()), held);
        let (context, warm, concluder) = (self.context.clone(), self.warm.clone(), self.concluder());
        let work = tokio::spawn(async move {
            let conclusion = match Box::pin(warm.invoke(&context, &function, event(&delivery))).await {
                Ok(answered) => Conclusion::Answered(answered),
                Err(failure) => Conclusion::Failed(failure),
            };
            Box::pin(concluder.conclude(&delivery, Some(&function), conclusion)).await
        });
        self.concluding.push(Box::pin(async move { (number, work.await.unwrap_or(false)) }));
    }

    fn fail(&mut self, delivery: Delivery, held: Held, failure: Failure) {
        self.conclude(delivery, held, Conclusion::Failed(failure));
    }

    /// Concludes an invocation that does not run here.
    fn conclude(&mut self, delivery: Delivery, held: Held, conclusion: Conclusion) {
        let number = self.functions.begin(None, held);
        let concluder = self.concluder();
        let work = tokio::spawn(async move { Box::pin(concluder.conclude(&delivery, None, conclusion)).await });
        self.concluding.push(Box::pin(async move { (number, work.await.unwrap_or(false)) }));
    }

    fn concluder(&self) -> Concluder {
        Concluder { publisher: self.publisher.clone(), blobs: self.context.blobs.clone(), pool: self.settings.pool.clone() }
    }

    /// The broker has confirmed what follows an invocation, or does not take it.
    pub(super) fn on_concluded(&mut self, number: u64, is_done: bool) {
        let Some(invocation) = self.functions.end(number) else { return };
        if invocation.is_run() {
            self.capacity.end(invocation.held.hand(), 1);
        }
        self.settle(invocation.held, if is_done { Settlement::Done } else { Settlement::Back });
    }

    /// Asks the dispatcher for the functions of the pool, unless a question is open.
    pub(super) fn ask_functions(&mut self, after: Duration) {
        if self.functions.begin_question() {
            let (pool, node) = (self.settings.pool.clone(), self.settings.node.clone());
            let what = RequestKind::Functions { pool, node, epoch: self.context.epoch() };
            self.asking_functions.push(Box::pin(question(self.caller.clone(), what, after)));
        }
    }

    pub(super) fn on_functions(&mut self, answer: Option<PoolFunctions>) {
        let pause = if answer.is_some() { Duration::ZERO } else { PAUSE };
        let (waited, changed) = self.functions.end_question(answer);
        if let Some(functions) = changed {
            tracing::info!(count = functions.len(), "the functions of the pool have changed");
            self.warm.set_functions(functions);
        }
        for (delivery, held) in waited {
            match function_of(&delivery).and_then(|name| self.functions.get(&name)) {
                Some(function) if self.capacity.has_room() => self.invoke(delivery, held, function),
                Some(_) => self.settle(held, Settlement::Back),
                None => {
                    let message = "the pool has no function of this name; deploy it, or send the message to its pool".to_owned();
                    self.fail(delivery, held, Failure::lasting("FunctionNotFound", message));
                }
            }
        }
        if self.functions.has_question() {
            self.ask_functions(pause);
        }
    }

    /// Returns invocations that have not begun to their queue.
    pub(super) fn return_invocations(&mut self) {
        for held in self.functions.take_waiting() {
            self.settle(held, Settlement::Back);
        }
    }
}

/// The type counts where there is one.
fn function_of(delivery: &Delivery) -> Option<FunctionId> {
    let header = || delivery.header_as_text(FUNCTION_HEADER);
    delivery.kind.clone().filter(|kind| !kind.is_empty()).or_else(header)?.parse().ok()
}

fn event(delivery: &Delivery) -> Event {
    let plain = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    Event {
        id: RunId::random().to_string(),
        message_id: delivery.message_id.clone().filter(|text| plain(text)),
        body: delivery.body.clone(),
        content_type: delivery.content_type().filter(|text| plain(text) && !text.is_empty()).map(str::to_owned),
        traceparent: delivery.header("traceparent").filter(|text| plain(text)),
    }
}

/// Asks once; nothing when no answer comes.
async fn question(caller: Caller, what: RequestKind, after: Duration) -> Option<PoolFunctions> {
    if !after.is_zero() {
        sleep(after).await;
    }
    let request = Request { v: VERSION, what };
    match caller.call::<_, ReplyMessage>(topology::REQUESTS, "asks".to_owned(), &request, ANSWER_TIMEOUT).await.map(|reply| reply.what) {
        Ok(Reply::Functions(functions)) => Some(functions),
        Ok(other) => {
            tracing::warn!(?other, "the dispatcher's reply does not hold the functions of the pool; asking again");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "cannot ask the dispatcher for the functions of the pool; asking again");
            None
        }
    }
}
