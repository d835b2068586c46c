//! Cron expressions with a time zone: five fields, as Vixie's cron reads them.
//!
//! Where a clock is put forward, a time that does not exist is due at the moment of the change; where it is put back, a time
//! that exists twice is due the first time. An expression for every hour follows time as it passes instead.

use contract::time::Timestamp;
use jiff::{
    Span, Timestamp as Instant, ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

/// Days in which the next due time is looked for: a day that comes once in eight years is found.
const DAYS_MAX: usize = 366 * 9;
/// Minutes of one day that are looked at: its clock may be put back.
const MINUTES_MAX: usize = 26 * 60;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SHORT: [(&str, &str); 5] =
    [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *"), ("@yearly", "0 0 1 1 *")];

/// The values of one field, as bits.
type Set = u64;

/// When something is due.
#[derive(Debug, Clone)]
pub struct Cron {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Whether it is enough that the day of the month or that of the week is named.
    is_either_day: bool,
    /// Whether every hour is named, so that it follows time as it passes.
    is_every_hour: bool,
    zone: TimeZone,
}

impl Cron {
    /// Reads an expression and the name of a zone such as `Europe/Berlin`; an error says what is wrong.
    pub fn parse(expression: &str, zone: &str) -> Result<Cron, String> {
        let text = SHORT.iter().find(|(short, _)| expression.trim().eq_ignore_ascii_case(short)).map_or(expression, |(_, text)| text);
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("{expression:?} has {} fields; there are five: minute, hour, day, month, day of the week.", fields.len()));
        };
        let zone = TimeZone::get(zone).map_err(|_| format!("{zone:?} is no time zone such as Europe/Berlin or UTC."))?;
        let is_any = |field: &str| field.starts_with('*') || field == "?";
        let mut week = set(weekdays, 0..=7, &DAYS)?;
        if week & 1 << 7 != 0 {
            week = week & !(1 << 7) | 1;
        }
        let hours_set = set(hours, 0..=23, &[])?;
        let cron = Cron {
            minutes: set(minutes, 0..=59, &[])?,
            hours: hours_set,
            days: set(days, 1..=31, &[])?,
            months: set(months, 1..=12, &MONTHS)?,
            weekdays: week,
            is_either_day: !is_any(days) && !is_any(weekdays),
            is_every_hour: hours_set.count_ones() == 24,
            zone,
        };
        match cron.next(Timestamp(0)) {
            Some(_) => Ok(cron),
            None => Err(format!("{expression:?} is never due.")),
        }
    }

    fn takes_day(&self, at: DateTime) -> bool {
        let day = self.days & 1 << at.day() != 0;
        let weekday = self.weekdays & 1 << at.weekday().to_sunday_zero_offset() != 0;
        self.months & 1 << at.month() != 0 && if self.is_either_day { day || weekday } else { day && weekday }
    }

    fn takes(&self, at: DateTime) -> bool {
        self.minutes & 1 << at.minute() != 0 && self.hours & 1 << at.hour() != 0 && self.takes_day(at)
    }

    /// Whether it is due in this minute, which begins at `at`.
    fn is_due(&self, at: Instant) -> bool {
        let local = self.zone.to_datetime(at);
        if self.is_every_hour {
            return self.takes(local);
        }
        let is_second = || match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Fold { after, .. } => self.zone.to_offset(at) == after,
            AmbiguousOffset::Gap { .. } | AmbiguousOffset::Unambiguous { .. } => false,
        };
        self.takes(local) && !is_second() || self.is_due_in_gap(at, local)
    }

    /// Whether it was due in the time that was left out right before `at`.
    fn is_due_in_gap(&self, at: Instant, local: DateTime) -> bool {
        let minute: Span = 1.minute();
        let Ok(before) = at.checked_sub(minute) else { return false };
        let Ok(mut left_out) = self.zone.to_datetime(before).checked_add(minute) else { return false };
        let mut count = 0;
        while left_out < local && count < MINUTES_MAX {
            if self.takes(left_out) {
                return true;
            }
            count += 1;
            match left_out.checked_add(minute) {
                Ok(next) => left_out = next,
                Err(_) => return false,
            }
        }
        false
    }

    /// The next time after this one at which it is due.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let minute = 60;
        let start = after.0.div_euclid(60_000) + 1;
        let mut at = Instant::from_second(start * minute).ok()?;
        for _ in 0..DAYS_MAX {
            let today = self.zone.to_datetime(at).date();
            let tomorrow = self.zone.to_timestamp(today.tomorrow().ok()?.to_datetime(jiff::civil::Time::midnight())).ok()?;
            if self.takes_day(today.to_datetime(jiff::civil::Time::midnight())) || self.is_due(at) {
                for _ in 0..MINUTES_MAX {
                    if self.is_due(at) {
                        return Some(Timestamp(at.as_millisecond()));
                    }
                    at = at.checked_add(1.minute()).ok()?;
                    if at >= tomorrow {
                        break;
                    }
                }
            }
            // Zones whose days begin at no whole minute are none of today's.
            at = Instant::from_second(tomorrow.as_second().div_euclid(minute) * minute).ok()?.max(at);
        }
        None
    }

    /// The last time up to this one at which it was due, after `since`.
    pub fn last(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        const HOUR_MS: i64 = 60 * 60 * 1000;
        for hours in [1, 25, 24 * 32, 24 * 366, 24 * DAYS_MAX as i64] {
            let from = Timestamp(since.0.max(now.0.saturating_sub(hours * HOUR_MS)));
            let dues = std::iter::successors(self.next(from), |due| self.next(*due));
            let last = dues.take_while(|due| *due <= now).last();
            if last.is_some() || from == since {
                return last;
            }
        }
        None
    }
}

/// Reads a field: values, names, ranges, steps, and lists of them.
fn set(field: &str, range: std::ops::RangeInclusive<u32>, names: &[&str]) -> Result<Set, String> {
    let wrong = || format!("{field:?} is no field with values from {} to {}.", range.start(), range.end());
    let value = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|at| at as u32 + range.start());
        named.or_else(|| text.parse().ok()).filter(|value| range.contains(value)).ok_or_else(wrong)
    };
    let mut found = 0;
    for part in field.split(',') {
        let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
        let step: u32 = step.map_or(Ok(1), |step| step.parse().ok().filter(|step| (1..=59).contains(step)).ok_or_else(wrong))?;
        let (first, last) = match span.split_once('-') {
            _ if span == "*" || span == "?" => (*range.start(), *range.end()),
            Some((first, last)) => (value(first)?, value(last)?),
            // `5/10` begins at five and goes on to the end.
            None if part.contains('/') => (value(span)?, *range.end()),
            None => (value(span)?, value(span)?),
        };
        if first > last {
            return Err(wrong());
        }
        (first..=last).step_by(step as usize).for_each(|value| found |= 1 << value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    /// The next due times after a moment, in UTC.
    fn dues(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, zone).unwrap();
        let all = std::iter::successors(cron.next(at(after)), |due| cron.next(*due));
        all.take(count).map(|due| due.iso().replace(":00.000Z", "Z")).collect()
    }

    #[test]
    fn fields_are_values_names_ranges_steps_and_lists() {
        assert_eq!(
            dues("*/20 9-10 * * MON-fri", "UTC", "2026-11-27T10:20:30Z", 3),
            ["2026-11-27T10:40Z", "2026-11-30T09:00Z", "2026-11-30T09:20Z"]
        );
        assert_eq!(
            dues("5/25,0 3 1 JAN,jul *", "UTC", "2026-11-23T19:00:00Z", 4),
            ["2027-01-01T03:00Z", "2027-01-01T03:05Z", "2027-01-01T03:30Z", "2027-01-01T03:55Z"]
        );
        assert_eq!(dues("0 0 29 2 *", "UTC", "2026-11-23T19:00:00Z", 2), ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]);
        assert_eq!(dues("0 0 13 * 5", "UTC", "2026-11-10T00:00:00Z", 3), ["2026-11-13T00:00Z", "2026-11-20T00:00Z", "2026-11-27T00:00Z"]);
        assert_eq!(dues("@daily", "Asia/Kolkata", "2026-11-23T19:00:00Z", 1), ["2026-11-24T18:30Z"]);
        assert_eq!(dues("0 12 * * 7", "UTC", "2026-11-23T19:00:00Z", 1), ["2026-11-29T12:00Z"]);
        for wrong in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "* * * 13 *", "5-3 * * * *", "*/0 * * * *", "a * * * *", "0 0 30 2 *", "* * * * 8"]
        {
            assert!(Cron::parse(wrong, "UTC").is_err(), "{wrong}");
        }
        assert!(Cron::parse("* * * * *", "Mars/Olympus").is_err());
    }

    #[test]
    fn a_clock_that_is_put_forward_leaves_nothing_out() {
        let zone = "Europe/Berlin";
        // 2027-03-28 02:00 becomes 03:00.
        assert_eq!(dues("30 2 * * *", zone, "2027-03-27T00:00:00Z", 3), ["2027-03-27T01:30Z", "2027-03-28T01:00Z", "2027-03-29T00:30Z"]);
        assert_eq!(dues("*/30 * * * *", zone, "2027-03-28T00:10:00Z", 3), ["2027-03-28T00:30Z", "2027-03-28T01:00Z", "2027-03-28T01:30Z"]);
        assert_eq!(dues("0 3 * * *", zone, "2027-03-27T12:00:00Z", 2), ["2027-03-28T01:00Z", "2027-03-29T01:00Z"]);
        // In Beirut the day itself begins at 01:00.
        assert_eq!(dues("15 0 * * *", "Asia/Beirut", "2026-03-28T00:00:00Z", 2), ["2026-03-28T22:00Z", "2026-03-29T21:15Z"]);
    }

    #[test]
    fn a_clock_that_is_put_back_repeats_nothing_but_what_is_due_every_hour() {
        let zone = "America/New_York";
        // 2026-11-01 02:00 becomes 01:00.
        assert_eq!(dues("30 1 * * *", zone, "2026-10-31T12:00:00Z", 2), ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]);
        assert_eq!(dues("30 * * * *", zone, "2026-11-01T05:00:00Z", 3), ["2026-11-01T05:30Z", "2026-11-01T06:30Z", "2026-11-01T07:30Z"]);
    }

    #[test]
    fn of_what_was_missed_the_last_is_found() {
        let daily = Cron::parse("0 6 * * *", "UTC").unwrap();
        assert_eq!(daily.last(at("2026-01-01T00:00:00Z"), at("2026-11-23T05:59:00Z")), Some(at("2026-11-22T06:00:00Z")));
        assert_eq!(daily.last(at("2026-11-23T06:00:00Z"), at("2026-11-23T19:00:00Z")), None);
        let often = Cron::parse("* * * * *", "UTC").unwrap();
        assert_eq!(often.last(at("2020-01-01T00:00:00Z"), at("2026-11-23T19:00:30Z")), Some(at("2026-11-23T19:00:00Z")));
        let rarely = Cron::parse("0 0 29 2 *", "UTC").unwrap();
        assert_eq!(rarely.last(at("2020-01-01T00:00:00Z"), at("2026-11-23T00:00:00Z")), Some(at("2024-02-29T00:00:00Z")));
    }
}
