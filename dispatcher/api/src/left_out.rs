//! Rows that a list left out because they cannot be read: the log names each once, with what to do about it, and the
//! answer's header `piecework-unreadable` names them for the client.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use model::health::Unreadable;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use store::left_out::LeftOut;

/// Rows that are remembered as named in the log; further ones are not logged, and `piecework doctor` finds them.
const NAMED_MAX: usize = 1_000;
/// Rows that the header names; of the others it only says how many there are.
const SHOWN_MAX: usize = 16;
/// Characters of a row's key in the header.
const KEY_CHARS_MAX: usize = 128;

/// Advice to people about an unreadable row of a table.
pub fn advice(table: &str) -> &'static str {
    match table {
        "tasks" | "task_texts" => {
            "delete the task and add it again: the first try ends it as failed, the second deletes it; one without a readable id goes with its job"
        }
        "jobs" | "job_texts" | "job_chores" => "delete the job, and add it again",
        "sites" => "nothing: the node is prepared for the job again; the row goes with the job",
        "pools" => "add a pool with the same id: that replaces the row",
        "nodes" => "nothing: the row is written anew when the node is heard, and removed when its lease ends",
        "job_schedules" => "add a job schedule with the same id: that replaces the row",
        "applications" => "put the application again: that replaces the row; then upload its packages",
        "dependencies" => "delete the tasks of the job that wait for others without end",
        "errands" => "nothing runs it: look for queues, folders or blobs that nobody uses any more, and remove them",
        "triggers" => "add the trigger again: that replaces the row",
        "functions" => "deploy the function again: that replaces the row",
        "seen" => "nothing: what the trigger did for that event is not known, and it may do it again",
        "submissions" | "awaited" => "nothing: it goes with the job, or with time",
        "task_sums" | "job_sums" | "pool_sums" | "pool_usage" => "nothing: statistics lack it",
        _ => "restore the store from a backup",
    }
}

/// Rows that the log has named already.
#[derive(Default)]
pub struct Named(Mutex<HashSet<Unreadable>>);

impl Named {
    fn log(&self, row: &Unreadable) {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= NAMED_MAX || !named.insert(row.clone()) {
            return;
        }
        let Unreadable { table, row, column } = row;
        tracing::error!(table, row, column, advice = advice(table), "a row cannot be read and is left out of lists");
        if named.len() == NAMED_MAX {
            tracing::error!("further rows that cannot be read are not named here; `piecework doctor` lists all of them");
        }
    }
}

/// The header's value: `tasks 5 (state)`, divided by commas, in percent-encoding where a key holds what a header cannot;
/// nothing when no row was left out. The log names them as well.
pub fn header(named: &Named, left_out: &LeftOut) -> Option<String> {
    const PLAIN: &AsciiSet = &CONTROLS.add(b',').add(b'%').add(b'"');
    let (rows, count) = left_out.rows();
    if count == 0 {
        return None;
    }
    rows.iter().for_each(|row| named.log(row));
    let show = |Unreadable { table, row, column }: &Unreadable| {
        let key: String = row.chars().take(KEY_CHARS_MAX).collect();
        format!("{table} {} ({column})", utf8_percent_encode(&key, PLAIN))
    };
    let mut shown: Vec<String> = rows.iter().take(SHOWN_MAX).map(show).collect();
    if count > shown.len() {
        shown.push(format!("(and {} more)", count - shown.len()));
    }
    Some(shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_in_a_form_that_a_header_takes_and_many_are_counted() {
        let (named, left_out) = (Named::default(), LeftOut::default());
        assert_eq!(header(&named, &left_out), None);
        let row = |row: &str| Unreadable { table: "pools", row: row.to_owned(), column: "state" };
        left_out.note(vec![row("a,b"), row("é\n")]);
        assert_eq!(header(&named, &left_out).unwrap(), "pools a%2Cb (state), pools %C3%A9%0A (state)");
        left_out.note((0..1_000).map(|number| row(&number.to_string())).collect());
        let header = header(&named, &left_out).unwrap();
        assert!(header.ends_with("pools 13 (state), (and 986 more)"), "{header}");
    }
}
