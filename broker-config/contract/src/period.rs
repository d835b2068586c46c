//! ISO 8601 durations in every form that clients send (`PT1H`, `PT05M00S`, `P1DT2H`, `PT0.5S`).
//!
//! A year has 365 days and a month 30, as in .NET and so in Azure Batch.
//!
//! `P10675199DT2H48M5.4775807S` is what Azure Batch calls unlimited; here that is [`Period::UNLIMITED`].

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// A length of time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// The text is not an ISO 8601 duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an ISO 8601 duration such as PT5M or P1DT2H")]
pub struct PeriodError {
    /// The invalid text, cut to 64 characters.
    pub text: String,
}

/// The units of a duration in their order, and their milliseconds.
const DATE_UNITS: &[(char, f64)] = &[('Y', 365.0 * DAY_MS), ('M', 30.0 * DAY_MS), ('W', 7.0 * DAY_MS), ('D', DAY_MS)];
const TIME_UNITS: &[(char, f64)] = &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1000.0)];
const DAY_MS: f64 = 86_400_000.0;

const UNLIMITED_TEXT: &str = "P10675199DT2H48M5.4775807S";
const UNLIMITED_MS: u64 = 922_337_203_685_477;

impl Period {
    /// Azure Batch's longest duration, which means no limit.
    pub const UNLIMITED: Period = Period(UNLIMITED_MS);

    /// Converts milliseconds; more than unlimited becomes unlimited.
    pub const fn from_ms(ms: u64) -> Period {
        Period(if ms > UNLIMITED_MS { UNLIMITED_MS } else { ms })
    }

    /// Converts seconds.
    pub const fn from_secs(secs: u64) -> Period {
        Period::from_ms(secs.saturating_mul(1000))
    }

    /// In milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The duration, or nothing when unlimited.
    pub fn limit(self) -> Option<Duration> {
        (self.0 < UNLIMITED_MS).then(|| Duration::from_millis(self.0))
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Period, PeriodError> {
        let bad = || PeriodError { text: text.chars().take(64).collect() };
        let rest = text.strip_prefix('P').ok_or_else(bad)?;
        let (date, time) = match rest.split_once('T') {
            Some((_, "")) => return Err(bad()),
            Some((date, time)) => (date, time),
            None => (rest, ""),
        };
        if date.is_empty() && time.is_empty() {
            return Err(bad());
        }
        let mut ms: f64 = 0.0;
        for (part, units) in [(date, DATE_UNITS), (time, TIME_UNITS)] {
            let mut units = units.iter();
            let mut rest = part;
            while !rest.is_empty() {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
                let number: f64 = rest[..end].parse().map_err(|_| bad())?;
                let unit = rest[end..].chars().next().ok_or_else(bad)?;
                let (_, scale) = units.find(|(name, _)| *name == unit).ok_or_else(bad)?;
                ms += number * scale;
                rest = &rest[end + unit.len_utf8()..];
            }
        }
        Ok(Period::from_ms(ms.round() as u64))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= UNLIMITED_MS {
            return f.write_str(UNLIMITED_TEXT);
        }
        let (days, rest) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (hours, rest) = (rest / 3_600_000, rest % 3_600_000);
        let (minutes, ms) = (rest / 60_000, rest % 60_000);
        f.write_str("P")?;
        if days > 0 {
            write!(f, "{days}D")?;
        }
        if days > 0 && hours + minutes + ms == 0 {
            return Ok(());
        }
        f.write_str("T")?;
        if hours > 0 {
            write!(f, "{hours}H")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}M")?;
        }
        match (ms / 1000, ms % 1000) {
            (0, 0) if hours + minutes > 0 => Ok(()),
            (secs, 0) => write!(f, "{secs}S"),
            (secs, part) => write!(f, "{secs}.{part:03}S"),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Period, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_clients_send_is_read() {
        for (text, ms) in [
            ("PT1H", 3_600_000),
            ("PT05M00S", 300_000),
            ("PT02H00M00S", 7_200_000),
            ("P1D", 86_400_000),
            ("P1DT2H", 93_600_000),
            ("PT0.5S", 500),
            ("PT0S", 0),
            ("P1W", 604_800_000),
            ("P3Y6M4DT12H30M5S", 110_550_605_000),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().as_ms(), ms, "{text}");
        }
        assert_eq!(UNLIMITED_TEXT.parse::<Period>().unwrap(), Period::UNLIMITED);
        assert_eq!(Period::UNLIMITED.to_string(), UNLIMITED_TEXT);
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "P", "PT", "5", "PT5", "PT5X", "P5M3", "PTM", "-PT5M", "PT5M5H", "P1D1Y", "P1M1Y", "PT1D"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_and_value_agree() {
        for ms in [0, 500, 1000, 60_000, 3_661_001, 86_400_000, 90_000_000] {
            let period = Period::from_ms(ms);
            assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        }
    }
}
