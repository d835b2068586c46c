//! Runs a formula's statements in order. Work is counted, so that no formula takes long.

use contract::{state::DeallocationOption, time::Timestamp};

use super::{
    Evaluation, Fault, Formula, Inputs, Place, SAMPLE_MS, TARGET_MAX, VECTOR_MAX, WORK_MAX, fault, functions,
    names::{Function, Method, Metric, Name, Setting, TICKS_PER_MS},
    parser::{Expression, Kind, Operator, Target},
    show,
    value::{self, Value},
};

/// Reasons to end before the last statement.
enum Halt {
    /// The formula called `stop()`.
    Stop,
    Fault(Fault),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt::Fault(fault)
    }
}

#[derive(Default)]
struct Decided {
    dedicated: Option<u32>,
    dedicated_alias: Option<u32>,
    low_priority: Option<u32>,
    low_priority_alias: Option<u32>,
    option: Option<DeallocationOption>,
}

struct Run<'a> {
    inputs: &'a Inputs<'a>,
    own: Vec<Option<Value>>,
    decided: Decided,
    work: usize,
    random: u64,
}

/// Evaluates a formula.
pub(super) fn run(formula: &Formula, inputs: &Inputs<'_>) -> Evaluation {
    let mut run = Run { inputs, own: vec![None; formula.variables.len()], decided: Decided::default(), work: 0, random: inputs.seed | 1 };
    let mut error = None;
    for statement in &formula.statements {
        match run.value(&statement.value).and_then(|value| Ok(run.set(statement.target, value, statement.value.place)?)) {
            Ok(()) => {}
            Err(Halt::Stop) => break,
            Err(Halt::Fault(fault)) => {
                error = Some(fault.located(&formula.text));
                break;
            }
        }
    }
    let (dedicated, low_priority, option) = (run.dedicated(), run.low_priority(), run.option());
    let results = show::results((dedicated, low_priority, option), &formula.variables, &run.own, inputs.history);
    if error.is_some() {
        let (target_dedicated, target_low_priority) = (inputs.target_dedicated, inputs.target_low_priority);
        return Evaluation { target_dedicated, target_low_priority, option: DeallocationOption::Requeue, results, error };
    }
    Evaluation { target_dedicated: dedicated, target_low_priority: low_priority, option, results, error }
}

/// Converts a target to nodes: whole, not negative, at most [`TARGET_MAX`].
fn nodes(number: f64, place: Place) -> Result<u32, Fault> {
    if !number.is_finite() {
        return fault(place, format!("A target of {number} nodes makes no sense."));
    }
    Ok((number.trunc().max(0.0) as u32).min(TARGET_MAX))
}

impl Run<'_> {
    fn dedicated(&self) -> u32 {
        self.decided.dedicated.or(self.decided.dedicated_alias).unwrap_or(self.inputs.target_dedicated)
    }

    fn low_priority(&self) -> u32 {
        self.decided.low_priority.or(self.decided.low_priority_alias).unwrap_or(self.inputs.target_low_priority)
    }

    fn option(&self) -> DeallocationOption {
        self.decided.option.unwrap_or(DeallocationOption::Requeue)
    }

    fn work(&mut self, count: usize, place: Place) -> Result<(), Fault> {
        self.work = self.work.saturating_add(count);
        if self.work > WORK_MAX { fault(place, format!("The formula touches more than {WORK_MAX} values.")) } else { Ok(()) }
    }

    fn set(&mut self, target: Target, value: Value, place: Place) -> Result<(), Fault> {
        let setting = match target {
            Target::Own(number) => {
                self.own[number] = Some(value);
                return Ok(());
            }
            Target::Nothing => return Ok(()),
            Target::Setting(setting) => setting,
        };
        if setting == Setting::Option {
            let option = match &value {
                Value::Text(word) => DeallocationOption::parse(word),
                _ => None,
            };
            let Some(option) = option else {
                return fault(place, "$NodeDeallocationOption is one of requeue, terminate, taskcompletion and retaineddata.");
            };
            self.decided.option = Some(option);
            return Ok(());
        }
        let nodes = nodes(self.number(value, place)?, place)?;
        match setting {
            Setting::Dedicated => self.decided.dedicated = Some(nodes),
            Setting::DedicatedAlias => self.decided.dedicated_alias = Some(nodes),
            Setting::LowPriority => self.decided.low_priority = Some(nodes),
            Setting::LowPriorityAlias | Setting::Option => self.decided.low_priority_alias = Some(nodes),
        }
        Ok(())
    }

    /// Replaces a metric by its latest sample where a number is wanted.
    fn plain(&self, value: Value, place: Place) -> Result<Value, Fault> {
        let Value::Metric(metric) = value else { return Ok(value) };
        match self.inputs.history.latest(metric) {
            Some(latest) => Ok(Value::Number(latest)),
            None => fault(place, format!("{} has no samples.", metric.name())),
        }
    }

    fn number(&self, value: Value, place: Place) -> Result<f64, Fault> {
        match self.plain(value, place)? {
            Value::Number(number) => Ok(number),
            other => fault(place, format!("A double is expected, not {}.", other.kind())),
        }
    }

    fn number_of(&mut self, expression: &Expression) -> Result<f64, Halt> {
        let value = self.value(expression)?;
        Ok(self.number(value, expression.place)?)
    }

    fn vector_of(&mut self, expression: &Expression) -> Result<Vec<f64>, Halt> {
        match self.value(expression)? {
            Value::Vector(numbers) => Ok(numbers),
            other => Ok(vec![self.number(other, expression.place)?]),
        }
    }

    fn value(&mut self, expression: &Expression) -> Result<Value, Halt> {
        let place = expression.place;
        self.work(1, place)?;
        let found = match &expression.kind {
            Kind::Number(number) => Value::Number(*number),
            Kind::Text(text) => Value::Text(text.clone()),
            Kind::Name(name) => self.named(*name, place)?,
            Kind::Chain(first, rest) => self.chain(first, rest)?,
            Kind::Not(of) => Value::flag(self.number_of(of)? == 0.0),
            Kind::Negate(of) => {
                let of = self.value(of)?;
                let of = self.plain(of, place)?;
                value::negated(of).map_err(|reason| Fault { place, reason })?
            }
            Kind::Choice(arms, otherwise) => {
                for (condition, chosen) in arms {
                    if self.number_of(condition)? != 0.0 {
                        return self.value(chosen);
                    }
                }
                return self.value(otherwise);
            }
            Kind::Call(function, arguments) => self.call(*function, arguments, place)?,
            Kind::Member(of, member) => {
                let of = self.value(of)?;
                value::member(&of, *member).map_err(|reason| Fault { place, reason })?
            }
            Kind::Method(of, method, arguments) => match self.value(of)? {
                Value::Metric(metric) => self.method(metric, *method, arguments, place)?,
                other => return Ok(fault(place, format!("Only sample variables have methods, not {}.", other.kind()))?),
            },
        };
        if let Value::Vector(values) = &found {
            self.work(values.len(), place)?;
            if values.len() > VECTOR_MAX {
                return Ok(fault(place, format!("A vector may have at most {VECTOR_MAX} values."))?);
            }
        }
        Ok(found)
    }

    fn named(&mut self, name: Name, place: Place) -> Result<Value, Fault> {
        Ok(match name {
            Name::Setting(Setting::Dedicated) => Value::Number(f64::from(self.dedicated())),
            Name::Setting(Setting::DedicatedAlias) => {
                Value::Number(f64::from(self.decided.dedicated_alias.unwrap_or_else(|| self.dedicated())))
            }
            Name::Setting(Setting::LowPriority) => Value::Number(f64::from(self.low_priority())),
            Name::Setting(Setting::LowPriorityAlias) => {
                Value::Number(f64::from(self.decided.low_priority_alias.unwrap_or_else(|| self.low_priority())))
            }
            Name::Setting(Setting::Option) => Value::Text(self.option().as_str().to_owned()),
            Name::Metric(metric) => Value::Metric(metric),
            Name::SlotsPerNode => Value::Number(f64::from(self.inputs.slots_per_node)),
            Name::Interval(ticks) => Value::Interval(ticks),
            Name::Word(option) => Value::Text(option.as_str().to_owned()),
            Name::Own(number) => match self.own.get(number).cloned().flatten() {
                Some(value) => value,
                None => return fault(place, "The variable has no value."),
            },
        })
    }

    /// Evaluates from left to right; `&&` and `||` evaluate their right side only when it matters.
    fn chain(&mut self, first: &Expression, rest: &[(Place, Operator, Expression)]) -> Result<Value, Halt> {
        let mut left = self.value(first)?;
        for (place, operator, right) in rest {
            if matches!(operator, Operator::And | Operator::Or) {
                let is_true = self.number(left, *place)? != 0.0;
                let is_decided = is_true == (*operator == Operator::Or);
                left = Value::flag(if is_decided { is_true } else { self.number_of(right)? != 0.0 });
                continue;
            }
            let right = self.value(right)?;
            let (plain_left, plain_right) = (self.plain(left, *place)?, self.plain(right, *place)?);
            left = value::binary(*operator, plain_left, plain_right).map_err(|reason| Fault { place: *place, reason })?;
            if let Value::Vector(values) = &left {
                self.work(values.len(), *place)?;
            }
        }
        Ok(left)
    }

    /// Flattens numbers, vectors and metrics into one list.
    fn many(&mut self, arguments: &[Expression]) -> Result<Vec<f64>, Halt> {
        let mut numbers = Vec::new();
        for argument in arguments {
            numbers.extend(self.vector_of(argument)?);
            self.work(numbers.len(), argument.place)?;
        }
        Ok(numbers)
    }

    fn call(&mut self, function: Function, arguments: &[Expression], place: Place) -> Result<Value, Halt> {
        let at_place = |reason| Fault { place, reason };
        match (function, arguments) {
            (Function::Stop, _) => Err(Halt::Stop),
            (Function::Rand, _) => Ok(Value::Number(self.random())),
            (Function::Time, []) => Ok(Value::Time(value::ticks(self.inputs.now))),
            (Function::Time, [text, ..]) => match self.value(text)? {
                Value::Text(text) if text.trim().is_empty() => Ok(Value::Time(value::ticks(self.inputs.now))),
                Value::Text(text) => Ok(functions::time(&text).map_err(at_place)?),
                other => Ok(fault(place, format!("A string is expected, not {}.", other.kind()))?),
            },
            (Function::Vec, _) => Ok(Value::Vector(self.many(arguments)?)),
            (Function::Percentile, [numbers, percent]) => {
                let (numbers, percent) = (self.vector_of(numbers)?, self.number_of(percent)?);
                Ok(Value::Number(functions::percentile(&numbers, percent).map_err(at_place)?))
            }
            (Function::Val, [numbers, index]) => {
                let (numbers, index) = (self.vector_of(numbers)?, self.number_of(index)?);
                let found = if index >= 0.0 { numbers.get(index as usize) } else { None };
                let missing = || format!("The vector has {} values and none at {index}.", numbers.len());
                Ok(Value::Number(*found.ok_or_else(missing).map_err(at_place)?))
            }
            (Function::Lg | Function::Ln | Function::Log | Function::Ceil | Function::Floor | Function::Round, [value]) => {
                let value = self.value(value)?;
                let value = self.plain(value, place)?;
                Ok(functions::of_each(function, value).map_err(at_place)?)
            }
            _ => {
                let numbers = self.many(arguments)?;
                Ok(Value::Number(functions::of_many(function, &numbers).map_err(at_place)?))
            }
        }
    }

    /// From 0 to 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A timestamp, or an interval before now, on the clock of the samples.
    fn moment(&mut self, value: Value, place: Place) -> Result<Timestamp, Fault> {
        match value {
            Value::Time(ticks) => Ok(value::timestamp(ticks).plus_ms(self.inputs.sampled.0 - self.inputs.now.0)),
            Value::Interval(ticks) => Ok(self.inputs.sampled.plus_ms((ticks / TICKS_PER_MS).saturating_neg())),
            other => fault(place, format!("A timeinterval or a timestamp is expected, not {}.", other.kind())),
        }
    }

    fn method(&mut self, metric: Metric, method: Method, arguments: &[Expression], place: Place) -> Result<Value, Halt> {
        let history = self.inputs.history;
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let value = self.value(argument)?;
            values.push(self.plain(value, argument.place)?);
        }
        match (method, values.as_slice()) {
            (Method::GetSamplePeriod, _) => return Ok(Value::Interval(SAMPLE_MS * TICKS_PER_MS)),
            (Method::Count, _) => return Ok(Value::Number(history.count(metric) as f64)),
            (Method::HistoryBeginTime, _) => {
                let begins_at = history.begins_at(metric).unwrap_or(self.inputs.sampled);
                let begins_at = begins_at.plus_ms(self.inputs.now.0 - self.inputs.sampled.0);
                return Ok(Value::Time(value::ticks(begins_at)));
            }
            (Method::GetSample, [Value::Number(count)]) => {
                if !(1.0..=f64::from(u32::MAX)).contains(count) {
                    return Ok(fault(place, "At least one sample must be asked for.")?);
                }
                return Ok(Value::Vector(history.recent(metric, *count as usize)));
            }
            _ => {}
        }
        let mut values = values.into_iter();
        let start = values.next().unwrap_or(Value::Number(0.0));
        let start = self.moment(start, place)?;
        let (mut end, mut wanted) = (self.inputs.sampled, None);
        match values.next() {
            None => {}
            Some(Value::Number(percent)) if method == Method::GetSample => wanted = Some(percent),
            Some(other) => end = self.moment(other, place)?,
        }
        match values.next() {
            None => {}
            Some(Value::Number(percent)) if wanted.is_none() => wanted = Some(percent),
            Some(_) => return Ok(fault(place, "The last argument of GetSample is a percentage.")?),
        }
        let (from, to) = (start.min(end), start.max(end));
        let percent = history.percent(metric, from, to);
        if method == Method::GetSamplePercent {
            return Ok(Value::Number(percent));
        }
        if wanted.is_some_and(|wanted| percent < wanted) {
            let (name, wanted) = (metric.name(), wanted.unwrap_or_default());
            return Ok(fault(place, format!("Insufficient data from data set: {name} wanted {wanted}%, received {percent:.0}%."))?);
        }
        Ok(Value::Vector(history.between(metric, from, to)))
    }
}
