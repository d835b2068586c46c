//! One suite for every store: what the engine and API handlers rely on, tested through `dyn Store` and `dyn Read`.
//!
//! An implementation joins with a [`fixture::Location`] and one line of [`conformance!`].

mod changes;
mod dependencies;
mod durability;
mod fixture;
mod functions;
mod job_tasks;
mod lists;
mod many;
mod names;
mod records;
mod tasks;
mod triggers;
mod usage;

use std::sync::Arc;

use store::{
    Store, StoreError,
    read::Read,
    sqlite::{SqliteReader, SqliteStore},
};

use crate::fixture::SqliteFile;

macro_rules! conformance {
    ($implementation:ident, $location:expr, $($group:ident { $($test:ident)+ })+) => {
        mod $implementation {
            $(mod $group {
                $(#[test] fn $test() { crate::$group::$test(&$location) })+
            })+
        }
    };
}

conformance!(sqlite, crate::fixture::SqliteFile::new(),
    names {
        names_keep_their_case_and_compare_without_it
        a_taken_name_changes_nothing
        the_same_name_in_another_job_is_another_task
        completed_jobs_are_found_by_name_and_not_loaded
        deleting_a_pool_takes_its_nodes
        documents_stay_when_not_given
    }
    functions {
        a_function_survives_with_its_versions_and_goes_with_its_pool
    }
    triggers {
        a_trigger_survives_whatever_the_case_of_its_name
        what_a_trigger_has_seen_is_noted_once_and_comes_in_the_order_of_bytes
    }
    records {
        every_field_of_a_pool_survives
        every_field_of_a_node_survives
        every_field_of_a_job_survives
        every_field_of_a_schedule_survives
        current_nodes_are_counted_without_those_being_created
        a_node_shows_the_runs_it_holds
    }
    tasks {
        a_new_task_is_ready_and_a_misfit_is_not
        ready_tasks_come_lowest_number_first
        a_released_task_is_live_until_it_is_taken_back
        a_started_task_names_its_owner
        a_second_start_keeps_the_state_before_the_first
        each_cause_of_a_requeue_is_counted_on_its_own
        a_task_that_rests_is_ready_when_its_rest_is_over
        an_end_is_shown_whole
        an_end_is_final
        a_task_that_never_ran_can_end
        a_completed_task_that_runs_again_forgets_its_end
        every_stream_survives
        streams_that_come_late_are_those_of_the_last_run
        exit_conditions_survive
        deleted_tasks_are_gone_everywhere
        jobs_are_emptied_in_batches
        large_numbers_survive
    }
    changes {
        an_update_replaces_document_and_retries
        a_reactivated_task_starts_anew_and_keeps_its_requeues
        only_failed_tasks_are_reactivated_and_blocked_ones_stay_blocked
        what_a_reactivated_task_satisfied_stays_and_what_comes_later_waits
        a_moved_job_takes_what_fits_and_remembers_where_its_tasks_ran
        what_is_out_while_nodes_lose_slots_is_not_ready_when_it_comes_back
    }
    dependencies {
        a_task_waits_for_all_that_it_needs
        needs_that_are_met_already_do_not_block
        a_need_may_be_named_before_it_exists
        integers_match_whatever_their_leading_zeros
        names_that_are_no_integers_match_by_letters_alone
        a_need_given_twice_counts_once
        a_need_met_twice_counts_once
        an_ended_task_is_not_freed
        a_misfit_is_not_freed
        deleted_tasks_are_not_freed
        a_thousand_wait_for_one_and_one_for_a_thousand
        jobs_do_not_free_each_other
    }
    lists {
        pages_follow_each_other_without_case_and_without_gaps
        lists_of_unknown_jobs_are_nothing
        tasks_are_filtered_by_state_time_code_and_result
        missing_values_pass_only_ne
        fields_that_a_list_lacks_count_as_missing
        filters_combine
        prefixes_ignore_case_and_know_no_wildcards
        hostile_text_in_filters_is_only_text
        nodes_are_shown_and_filtered_by_activity_that_is_newer_than_their_rows
        pools_nodes_and_jobs_are_filtered_by_their_fields
        filters_and_pages_work_together
    }
    job_tasks {
        every_field_of_a_job_on_node_survives
        a_new_preparation_begins_a_new_story
        jobs_on_nodes_of_completed_jobs_are_shown_and_not_loaded
        jobs_on_nodes_are_filtered_by_both_job_tasks
        jobs_on_nodes_are_paged_by_node_and_pool
        a_run_that_waits_for_a_preparation_is_preparing_until_it_begins
    }
    usage {
        core_time_is_kept_by_interval_and_outlives_its_pool
    }
    many {
        every_row_is_on_one_page_in_order_while_others_come_and_go
        a_page_that_finds_little_stops_early_and_says_where
        a_page_holds_what_was_wanted_of_its_tasks
    }
    durability {
        a_transaction_that_was_rolled_back_leaves_nothing
        readers_see_commits_and_nothing_else
        what_was_committed_is_loaded_after_a_crash
        what_was_not_committed_is_gone_after_a_crash
        numbers_are_never_given_twice
        numbers_of_a_lost_transaction_leave_the_bound_true
        every_start_has_a_larger_boot_number
        a_second_writer_is_refused
    }
);

/// Undoes what formats 6, 5 and 4 have added.
const DOWN_TO_FORMAT_3: &str =
    "DROP TABLE triggers; DROP TABLE seen; DROP TABLE functions; DROP TABLE awaited; DROP TABLE submissions; DROP INDEX tasks_wide; DROP TABLE errands; DROP INDEX tasks_resting;
    ALTER TABLE tasks DROP COLUMN rests_until;";
/// Undoes what format 3 has added.
const DOWN_TO_FORMAT_2: &str = "ALTER TABLE jobs DROP COLUMN auto_pool; ALTER TABLE jobs DROP COLUMN scheduling_error;
    ALTER TABLE job_schedules DROP COLUMN auto_pool; DROP TABLE job_chores; DROP TABLE sites;";

#[test]
fn a_file_of_the_first_format_is_brought_up_and_keeps_its_rows() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    let task = fixture.add("kept");
    drop(fixture);
    let old = rusqlite::Connection::open(location.path()).unwrap();
    old.execute_batch(DOWN_TO_FORMAT_3).unwrap();
    old.execute_batch(DOWN_TO_FORMAT_2).unwrap();
    old.execute_batch("DROP TABLE task_sums; DROP TABLE job_sums; DROP TABLE pool_sums; PRAGMA user_version = 1;").unwrap();
    drop(old);
    let store = SqliteStore::open(&location.path()).unwrap();
    let read = SqliteReader::open(&location.path(), 1).unwrap();
    assert_eq!(fixture::wait(read.sums_of_tasks(vec![task])).unwrap(), [Default::default()]);
    assert_eq!(fixture::wait(read.tasks_by_number(vec![task])).unwrap().len(), 1);
    assert_eq!(fixture::wait(read.jobs_on_nodes(&fixture::id("job"), fixture::first(1))).unwrap(), Some(vec![]));
    drop(store);
}

#[test]
fn a_file_from_before_automatic_pools_is_brought_up_and_keeps_its_jobs_and_schedules() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    let (record, schedule) = (fixture.store.load().unwrap().jobs.remove(0).0, fixture::schedule("s"));
    fixture.write(|store| store.put_schedule(&schedule));
    drop(fixture);
    let old = rusqlite::Connection::open(location.path()).unwrap();
    old.execute_batch(DOWN_TO_FORMAT_3).unwrap();
    old.execute_batch(DOWN_TO_FORMAT_2).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    let stored: String = old.query_row("SELECT job FROM job_schedules", [], |row| row.get(0)).unwrap();
    assert!(stored.contains(r#""pool":"pool""#), "a name is stored as it was before: {stored}");
    drop(old);
    let loaded = SqliteStore::open(&location.path()).unwrap().load().unwrap();
    assert_eq!((loaded.jobs, loaded.schedules), (vec![(record, 0)], vec![schedule]));
    let found: i64 =
        rusqlite::Connection::open(location.path()).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(found, 6);
}

#[test]
fn a_file_from_before_rests_is_brought_up_and_its_tasks_go_on() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    let (ready, running) = (fixture.add("ready"), fixture.add("running"));
    fixture.run(running, 200);
    drop(fixture);
    let old = rusqlite::Connection::open(location.path()).unwrap();
    old.execute_batch(DOWN_TO_FORMAT_3).unwrap();
    old.pragma_update(None, "user_version", 3).unwrap();
    drop(old);
    let mut fixture = fixture::Fixture::new(&location);
    assert_eq!(fixture.ready(), ["ready"]);
    assert_eq!(fixture.store.load().unwrap().live.iter().map(|task| task.uid).collect::<Vec<_>>(), [running]);
    let job = fixture.job;
    assert_eq!(fixture.write(|store| store.wake(job, fixture::at(300))), (0, false));
    assert!(fixture.head(ready).is_ready);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let location = SqliteFile::new();
    drop(SqliteStore::open(&location.path()).unwrap());
    rusqlite::Connection::open(location.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteStore::open(&location.path()), Err(StoreError::Format { found: 99, known: 6 })));
    assert!(matches!(SqliteReader::open(&location.path(), 1), Err(StoreError::Format { found: 99, .. })));
}

#[test]
fn an_unreadable_row_is_named_and_harms_no_other() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    let (bad, good) = (fixture.add("bad"), fixture.add("good"));
    let vandal = rusqlite::Connection::open(location.path()).unwrap();
    vandal.execute("UPDATE tasks SET id = 'not an id' WHERE uid = ?1", [bad.0.cast_signed()]).unwrap();
    assert!(matches!(fixture.store.task_by_uid(bad), Err(StoreError::Corrupt { table: "tasks", column: "id" })));
    vandal.execute("UPDATE tasks SET id = 'bad', state = 77 WHERE uid = ?1", [bad.0.cast_signed()]).unwrap();
    assert!(matches!(fixture.store.task_by_uid(bad), Err(StoreError::Corrupt { table: "tasks", column: "state" })));
    vandal.execute("UPDATE tasks SET state = 0, fence = 'x' WHERE uid = ?1", [bad.0.cast_signed()]).unwrap();
    assert!(matches!(fixture.store.candidate(bad), Err(StoreError::Corrupt { table: "tasks", column: "fence" })));
    vandal.execute("UPDATE task_texts SET stdout = x'00', failure = '{' WHERE uid = ?1", [bad.0.cast_signed()]).unwrap();
    assert!(matches!(fixture.try_row("bad"), Err(StoreError::Corrupt { column: "failure", .. })));
    assert_eq!(fixture.row("good").uid, good);
}

#[test]
fn a_page_is_full_although_more_rows_than_it_holds_cannot_be_read() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    for number in 0..150 {
        fixture.add(&format!("bad-{number:03}"));
    }
    for name in ["good-1", "good-2", "good-3"] {
        fixture.add(name);
    }
    rusqlite::Connection::open(location.path()).unwrap().execute("UPDATE tasks SET state = 77 WHERE id < 'c'", []).unwrap();
    let wanted = fixture::first(2);
    let left_out = wanted.left_out.clone();
    assert_eq!(fixture.listed(wanted), ["good-1", "good-2"]);
    let (named, count) = left_out.rows();
    assert_eq!((named.len(), count, named[0].row.as_str()), (100, 150, "1"));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let location = SqliteFile::new();
    std::fs::write(location.path(), "no database, but long enough to be looked at".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&location.path()), Err(StoreError::Database { .. })));
    assert!(matches!(SqliteReader::open(&location.path().with_extension("missing"), 1), Err(StoreError::Database { .. })));
}

#[test]
fn many_readers_share_few_connections() {
    let location = SqliteFile::new();
    let mut fixture = fixture::Fixture::new(&location);
    fixture.add("t");
    let reader = Arc::new(SqliteReader::open(&location.path(), 2).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let counted = runtime.block_on(async {
        let reads = (0..64).map(|_| {
            let reader = Arc::clone(&reader);
            tokio::spawn(async move {
                use store::read::Read;
                reader.task(&fixture::id("job"), &fixture::id("t")).await.unwrap().is_some()
            })
        });
        futures::future::join_all(reads).await.into_iter().filter(|read| *read.as_ref().unwrap()).count()
    });
    assert_eq!(counted, 64);
}
