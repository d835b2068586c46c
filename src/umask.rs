//! The umask of the long-lived parts: their files are for their user alone.
//! Tasks get back the umask that the part was started with.

use rustix::{fs::Mode, process::umask};

/// Variable with the umask of an agent's tasks, in octal.
pub(crate) const VARIABLE: &str = "PIECEWORK_TASK_UMASK";

/// Sets the umask so that this process makes files for its user alone; returns the umask it was started with.
pub(crate) fn for_owner_only() -> u32 {
    umask(Mode::RWXG | Mode::RWXO).as_raw_mode()
}

/// A umask as `parse` reads it.
pub(crate) fn format(mask: u32) -> String {
    format!("{mask:03o}")
}

/// A umask in octal.
pub(crate) fn parse(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        _ => Err(format!("{text:?} is no umask, such as 022")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_read_as_it_is_written() {
        assert_eq!(parse(&format(0o27)), Ok(0o27));
        assert!(parse("08").is_err() && parse("1000").is_err() && parse("").is_err());
    }
}
