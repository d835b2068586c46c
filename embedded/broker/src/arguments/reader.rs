//! Reads single arguments. Refusals use RabbitMQ's texts, which clients and people search for.

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    arguments::{DelayedRetry, RetryKind},
    content::EXPIRATION_MAX_MS,
    exchange::integer,
    refusal::{Outcome, Refusal},
    terms::type_name,
};

/// Highest `x-max-priority`.
const PRIORITY_MAX: u64 = 255;

/// The arguments of a queue or of one of its consumers.
pub(super) struct Reader<'a> {
    pub queue: &'a str,
    pub table: &'a FieldTable,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a AMQPValue> {
        self.table.inner().get(name)
    }

    pub fn invalid(&self, name: &str, reason: impl std::fmt::Display) -> Refusal {
        Refusal::precondition_failed(format!("invalid arg '{name}' for queue '{}' in vhost '/': {reason}", self.queue))
    }

    pub fn integer(&self, name: &str) -> Outcome<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = integer(value).ok_or_else(|| self.invalid(name, format!("\"expected integer, got {}\"", type_name(value))))?;
        Ok(Some(number))
    }

    /// A number that is not negative.
    pub fn count(&self, name: &str) -> Outcome<Option<u64>> {
        match self.integer(name)? {
            Some(number) if number < 0 => Err(self.invalid(name, format!("{{value_negative,{number}}}"))),
            number => Ok(number.map(|number| number as u64)),
        }
    }

    fn positive(&self, name: &str) -> Outcome<Option<u64>> {
        match self.count(name)? {
            Some(0) => Err(self.invalid(name, "{value_zero,0}")),
            number => Ok(number),
        }
    }

    pub fn milliseconds(&self, name: &str, least: u64) -> Outcome<Option<u64>> {
        match if least == 0 { self.count(name) } else { self.positive(name) }? {
            Some(number) if number > EXPIRATION_MAX_MS => Err(self.invalid(name, format!("{{value_too_large,{number}}}"))),
            number => Ok(number),
        }
    }

    pub fn priority(&self) -> Outcome<u8> {
        const NAME: &str = "x-max-priority";
        match self.count(NAME)? {
            Some(number) if number > PRIORITY_MAX => Err(self.invalid(NAME, format!("{{max_value_exceeded,{number}}}"))),
            number => Ok(number.unwrap_or(0) as u8),
        }
    }

    pub fn boolean(&self, name: &str) -> Outcome<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(AMQPValue::Boolean(value)) => Ok(Some(*value)),
            Some(other) => Err(self.unacceptable(name, other)),
        }
    }

    fn text(&self, name: &str) -> Outcome<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(AMQPValue::LongString(text)) => {
                let text = std::str::from_utf8(text.as_bytes()).map_err(|_| self.invalid(name, "not UTF-8"))?;
                Ok(Some(text))
            }
            Some(other) => Err(self.unacceptable(name, other)),
        }
    }

    /// A text that must fit a short string, as names of exchanges and routing keys do.
    pub fn short_text(&self, name: &str) -> Outcome<Option<String>> {
        match self.text(name)? {
            Some(text) if text.len() > 255 => Err(self.invalid(name, "longer than 255 bytes")),
            text => Ok(text.map(str::to_owned)),
        }
    }

    pub fn dead_letter_exchange(&self) -> Outcome<Option<String>> {
        const NAME: &str = "x-dead-letter-exchange";
        match self.get(NAME) {
            Some(other) if !matches!(other, AMQPValue::LongString(_)) => Err(Refusal::precondition_failed(format!(
                "invalid type '{}' for arg '{NAME}' in queue '{}' in vhost '/'",
                type_name(other),
                self.queue
            ))),
            _ => self.short_text(NAME),
        }
    }

    pub fn one_of(&self, name: &str, words: &[&'static str], reason: impl Fn(&str) -> String) -> Outcome<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        words.iter().find(|word| **word == text).map(|word| Some(*word)).ok_or_else(|| self.invalid(name, reason(text)))
    }

    pub fn delayed_retry(&self) -> Outcome<Option<DelayedRetry>> {
        let words = ["disabled", "all", "failed", "returned"];
        let word = self.one_of("x-delayed-retry-type", &words, |_| "invalid_delayed_retry_type".into())?;
        let min_ms = self.milliseconds("x-delayed-retry-min", 1)?;
        let max_ms = self.milliseconds("x-delayed-retry-max", 1)?;
        let kind = match word {
            Some("all") => RetryKind::All,
            Some("failed") => RetryKind::Failed,
            Some("returned") => RetryKind::Returned,
            _ => return Ok(None),
        };
        Ok(min_ms.map(|min_ms| DelayedRetry { kind, min_ms, max_ms: max_ms.unwrap_or(EXPIRATION_MAX_MS) }))
    }

    /// Arguments about replicas and storage have no effect on one node, but a wrong value is still refused.
    pub fn check_without_effect(&self) -> Outcome {
        let locators = ["client-local", "balanced", "random", "least-leaders"];
        self.one_of("x-queue-leader-locator", &locators, |_| "invalid_queue_locator_arg".into())?;
        let masters = ["client-local", "min-masters", "random", "balanced"];
        self.one_of("x-queue-master-locator", &masters, |_| "invalid_queue_locator_arg".into())?;
        self.one_of("x-queue-mode", &["default", "lazy"], |mode| format!("\"unsupported queue mode '{mode}'\""))?;
        if let Some(version) = self.integer("x-queue-version")?
            && !(1..=2).contains(&version)
        {
            return Err(self.invalid("x-queue-version", format!("\"unsupported queue version '{version}'\"")));
        }
        for name in ["x-quorum-initial-group-size", "x-quorum-target-group-size", "x-consumer-disconnected-timeout"] {
            self.positive(name)?;
        }
        for name in ["x-max-in-memory-length", "x-max-in-memory-bytes"] {
            self.count(name)?;
        }
        Ok(())
    }

    fn unacceptable(&self, name: &str, value: &AMQPValue) -> Refusal {
        self.invalid(name, format!("{{unacceptable_type,{}}}", type_name(value)))
    }
}
