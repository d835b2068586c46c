//! Reads single column values: numbers, names, states, times, JSON.
//!
//! A value that this build cannot read is an error with its table and column, never a panic. All values are read here,
//! so that such an error is never confused with one of the database itself.

use std::str::FromStr;

use contract::{
    ids::{Fence, RunId, TaskUid},
    period::Period,
    spec::FillType,
    time::Timestamp,
};
use model::health::Unreadable;
use rusqlite::{
    Row, Rows,
    types::{FromSql, ValueRef},
};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::StoreError;

/// A row whose columns are read by name.
pub(super) struct Cells<'r> {
    row: &'r Row<'r>,
    table: &'static str,
}

impl<'r> Cells<'r> {
    /// `table` is the table's name in errors.
    pub(super) fn new(row: &'r Row<'r>, table: &'static str) -> Cells<'r> {
        Cells { row, table }
    }

    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table, column }
    }

    /// The error for a column. A column that the query lacks is a programming error, which tests find.
    fn unread(&self, column: &'static str, error: &rusqlite::Error) -> StoreError {
        let is_there = !matches!(error, rusqlite::Error::InvalidColumnName(_));
        debug_assert!(is_there, "a query of {} has no column {column}", self.table);
        self.corrupt(column)
    }

    /// A value as the database has it.
    pub(super) fn get<T: FromSql>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|error| self.unread(column, &error))
    }

    /// Bytes, unless there are none.
    pub(super) fn bytes(&self, column: &'static str) -> Result<Option<&'r [u8]>, StoreError> {
        let value = self.row.get_ref(column).map_err(|error| self.unread(column, &error))?;
        value.as_bytes_or_null().map_err(|_| self.corrupt(column))
    }

    /// An unsigned number. None is so large that the database would store it as a negative one: a count that were would
    /// overflow with its next step.
    pub(super) fn number(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.corrupt(column))
    }

    /// A fence, which may need every bit; the database stores them as a signed number. The last one has no next.
    pub(super) fn fence(&self, column: &'static str) -> Result<Fence, StoreError> {
        let fence = Fence(self.get::<i64>(column)?.cast_unsigned());
        if fence.0 == u64::MAX { Err(self.corrupt(column)) } else { Ok(fence) }
    }

    /// A number of 32 bits.
    pub(super) fn small(&self, column: &'static str) -> Result<u32, StoreError> {
        let value = self.get::<i64>(column)?;
        u32::try_from(value).map_err(|_| self.corrupt(column))
    }

    /// A boolean.
    pub(super) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.get::<i64>(column)? != 0)
    }

    /// A time.
    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp)
    }

    /// A time, if there is one.
    pub(super) fn time_if(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    /// A length of time.
    pub(super) fn period(&self, column: &'static str) -> Result<Period, StoreError> {
        self.number(column).map(Period::from_ms)
    }

    /// A length of time, if there is one.
    pub(super) fn period_if(&self, column: &'static str) -> Result<Option<Period>, StoreError> {
        let ms = self.get::<Option<i64>>(column)?.map(u64::try_from).transpose().map_err(|_| self.corrupt(column))?;
        Ok(ms.map(Period::from_ms))
    }

    fn text(&self, column: &'static str) -> Result<Option<&'r str>, StoreError> {
        match self.row.get_ref(column).map_err(|error| self.unread(column, &error))? {
            ValueRef::Null => Ok(None),
            value => value.as_str().map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// A name, if there is one.
    pub(super) fn name_if<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// A name.
    pub(super) fn name<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.name_if(column)?.ok_or_else(|| self.corrupt(column))
    }

    /// An enumeration stored as text, if there is a value.
    pub(super) fn word_if<T>(&self, column: &'static str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    /// A word of a fixed set.
    pub(super) fn word<T>(&self, column: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
        self.word_if(column, parse)?.ok_or_else(|| self.corrupt(column))
    }

    /// An enumeration stored as a number, if there is a value.
    pub(super) fn code_if<T>(&self, column: &'static str, decode: fn(i64) -> Option<T>) -> Result<Option<T>, StoreError> {
        match self.get::<Option<i64>>(column)? {
            None => Ok(None),
            Some(code) => decode(code).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    /// A code of a fixed set.
    pub(super) fn code<T>(&self, column: &'static str, decode: fn(i64) -> Option<T>) -> Result<T, StoreError> {
        self.code_if(column, decode)?.ok_or_else(|| self.corrupt(column))
    }

    /// A run, if there is one.
    pub(super) fn run_if(&self, column: &'static str) -> Result<Option<RunId>, StoreError> {
        Ok(self.get::<Option<[u8; 16]>>(column)?.map(|bytes| RunId(u128::from_be_bytes(bytes))))
    }

    /// A value kept as JSON, if there is one.
    pub(super) fn json_if<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => serde_json::from_str(text).map(Some).map_err(|_| self.corrupt(column)),
        }
    }

    /// An object kept as JSON, as its text; the empty text stands for one that was not asked for.
    pub(super) fn document(&self, column: &'static str) -> Result<String, StoreError> {
        let text = self.text(column)?.ok_or_else(|| self.corrupt(column))?;
        let is_object = text.starts_with('{') && text.ends_with('}') && serde_json::from_str::<IgnoredAny>(text).is_ok();
        if text.is_empty() || is_object { Ok(text.to_owned()) } else { Err(self.corrupt(column)) }
    }

    /// A list kept as JSON; nothing is an empty one.
    pub(super) fn list<T: DeserializeOwned>(&self, column: &'static str) -> Result<Vec<T>, StoreError> {
        Ok(self.json_if(column)?.unwrap_or_default())
    }
}

/// The number in the first column, whatever its name.
pub(super) fn key(row: &Row<'_>) -> Result<i64, StoreError> {
    row.get(0).map_err(|_| StoreError::Corrupt { table: "rows", column: "number" })
}

/// Task numbers from the first column; other values are skipped.
pub(super) fn task_uids(mut rows: Rows<'_>) -> Result<Vec<TaskUid>, StoreError> {
    let mut uids = Vec::new();
    while let Some(row) = rows.next()? {
        uids.extend(Cells::new(row, "tasks").number("uid").ok().map(TaskUid));
    }
    Ok(uids)
}

/// The value of a row; an unreadable row is noted under its first column and left out.
pub(super) fn or_note<T>(row: &Row<'_>, read: Result<T, StoreError>, noted: &mut Vec<Unreadable>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Corrupt { table, column }) => {
            let key = match row.get_ref(0)? {
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => other.data_type().to_string(),
            };
            noted.push(Unreadable { table, row: key, column });
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the house's own types have text keys and no failing parts")
}

/// A list as JSON; `None` when it is empty.
pub(super) fn list<T: Serialize>(values: &[T]) -> Option<String> {
    (!values.is_empty()).then(|| json(&values))
}

/// A run's number, most significant byte first.
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

#[cfg(test)]
mod tests {
    #[test]
    fn every_value_of_a_row_is_read_through_cells() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sqlite");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            // The version of the format is no cell of a row.
            if ["cells.rs", "schema.rs"].contains(&name) {
                continue;
            }
            for call in ["row.get(", "row.get::<", "row.get_unwrap", "query_row(", "query_map("] {
                assert!(!code.contains(call), "{name} calls {call}: its error would stop everybody, not name the row");
            }
        }
    }
}
