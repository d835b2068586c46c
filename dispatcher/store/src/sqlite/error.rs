//! Converts SQLite's errors to the store's.

use rusqlite::{Error, ErrorCode};

use crate::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { source: Box::new(error) },
            _ => StoreError::Database { may_pass: may_pass(&error), source: Box::new(error) },
        }
    }
}

/// A full disk or a failing device may be well again later; a change that breaks a rule of its table is
/// refused each time.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => {
            !matches!(failure.code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_full_disk_may_pass_and_a_broken_rule_does_not_and_both_keep_their_source() {
        for (code, may_pass) in [
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_BUSY, true),
            (ffi::SQLITE_IOERR, true),
            (ffi::SQLITE_CONSTRAINT, false),
            (ffi::SQLITE_TOOBIG, false),
        ] {
            let error = StoreError::from(Error::SqliteFailure(ffi::Error::new(code), None));
            assert_eq!(error.may_pass(), may_pass, "{code}");
            assert_eq!(error.is_locked(), code == ffi::SQLITE_BUSY, "{code}");
            assert!(error.source().is_some_and(|source| source.is::<Error>()), "{code}");
        }
        assert!(!StoreError::from(Error::QueryReturnedNoRows).may_pass());
    }
}
