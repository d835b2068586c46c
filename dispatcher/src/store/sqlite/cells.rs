//! Single values between rows and types: numbers, names, states, times, JSON.
//!
//! A value that this build cannot read is an error with its table and column, never a panic.

use std::str::FromStr;

use broker_config::{ids::RunId, period::Period, spec::FillType, time::Timestamp};
use rusqlite::{
    Row,
    types::{FromSql, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::store::StoreError;

/// A row read from left to right; column names are for errors.
pub(super) struct Cells<'r> {
    row: &'r Row<'r>,
    table: &'static str,
    at: usize,
}

impl<'r> Cells<'r> {
    /// Starts at the first column.
    pub(super) fn new(row: &'r Row<'r>, table: &'static str) -> Cells<'r> {
        Cells { row, table, at: 0 }
    }

    /// Starts at another column.
    pub(super) fn at(row: &'r Row<'r>, table: &'static str, at: usize) -> Cells<'r> {
        Cells { row, table, at }
    }

    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table, column }
    }

    /// The next value as the database has it.
    pub(super) fn get<T: FromSql>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let value = self.row.get(self.at).map_err(|_| self.corrupt(column))?;
        self.at += 1;
        Ok(value)
    }

    /// A number that is never negative but for its top bit.
    pub(super) fn number(&mut self, column: &'static str) -> Result<u64, StoreError> {
        self.get::<i64>(column).map(i64::cast_unsigned)
    }

    /// A number of 32 bits.
    pub(super) fn small(&mut self, column: &'static str) -> Result<u32, StoreError> {
        let value = self.get::<i64>(column)?;
        u32::try_from(value).map_err(|_| self.corrupt(column))
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.get::<i64>(column)? != 0)
    }

    /// A time.
    pub(super) fn time(&mut self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp)
    }

    /// A time, if there is one.
    pub(super) fn time_if(&mut self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    /// A length of time.
    pub(super) fn period(&mut self, column: &'static str) -> Result<Period, StoreError> {
        self.number(column).map(Period::from_ms)
    }

    /// A length of time, if there is one.
    pub(super) fn period_if(&mut self, column: &'static str) -> Result<Option<Period>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(|ms| Period::from_ms(ms.cast_unsigned())))
    }

    fn text(&mut self, column: &'static str) -> Result<Option<&'r str>, StoreError> {
        let value = self.row.get_ref(self.at).map_err(|_| self.corrupt(column))?;
        self.at += 1;
        match value {
            ValueRef::Null => Ok(None),
            value => value.as_str().map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// A name, if there is one.
    pub(super) fn name_if<T: FromStr>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// A name.
    pub(super) fn name<T: FromStr>(&mut self, column: &'static str) -> Result<T, StoreError> {
        self.name_if(column)?.ok_or_else(|| self.corrupt(column))
    }

    /// A word of a fixed set, if there is one.
    pub(super) fn word_if<T>(&mut self, column: &'static str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    /// A word of a fixed set.
    pub(super) fn word<T>(&mut self, column: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
        self.word_if(column, parse)?.ok_or_else(|| self.corrupt(column))
    }

    /// A code of a fixed set, if there is one.
    pub(super) fn code_if<T>(&mut self, column: &'static str, decode: fn(i64) -> Option<T>) -> Result<Option<T>, StoreError> {
        match self.get::<Option<i64>>(column)? {
            None => Ok(None),
            Some(code) => decode(code).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    /// A code of a fixed set.
    pub(super) fn code<T>(&mut self, column: &'static str, decode: fn(i64) -> Option<T>) -> Result<T, StoreError> {
        self.code_if(column, decode)?.ok_or_else(|| self.corrupt(column))
    }

    /// A run, if there is one.
    pub(super) fn run_if(&mut self, column: &'static str) -> Result<Option<RunId>, StoreError> {
        Ok(self.get::<Option<[u8; 16]>>(column)?.map(|bytes| RunId(u128::from_be_bytes(bytes))))
    }

    /// A value kept as JSON, if there is one.
    pub(super) fn json_if<T: DeserializeOwned>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => serde_json::from_str(text).map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// A list kept as JSON; nothing is an empty one.
    pub(super) fn list<T: DeserializeOwned>(&mut self, column: &'static str) -> Result<Vec<T>, StoreError> {
        Ok(self.json_if(column)?.unwrap_or_default())
    }
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the house's own types have text keys and no failing parts")
}

/// A list as JSON, nothing when empty.
pub(super) fn list<T: Serialize>(values: &[T]) -> Option<String> {
    (!values.is_empty()).then(|| json(&values))
}

/// A run's bytes, largest first.
pub(super) fn run(run: RunId) -> [u8; 16] {
    run.0.to_be_bytes()
}

/// A fill type's word.
pub(super) fn fill(fill: FillType) -> &'static str {
    match fill {
        FillType::Spread => "spread",
        FillType::Pack => "pack",
    }
}

/// A fill type from its word.
pub(super) fn fill_of(word: &str) -> Option<FillType> {
    [FillType::Spread, FillType::Pack].into_iter().find(|known| fill(*known) == word)
}
