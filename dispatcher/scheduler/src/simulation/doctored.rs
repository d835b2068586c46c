//! Histories with one wrong fact each: the checker has to see every broken promise.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::{AttemptKey, Fence, JobUid, RunId, RunKey, TaskUid};
use model::task::RequeueCause;

use crate::simulation::{
    checker::{Checker, Fact, Violation},
    rows::Counts,
};

const UID: TaskUid = TaskUid(1);

fn key(attempt: u32, fence: u64) -> AttemptKey {
    AttemptKey { uid: UID, attempt, fence: Fence(fence) }
}

fn run(attempt: u32, fence: u64, run: u128) -> RunKey {
    key(attempt, fence).with(RunId(run))
}

fn ended(fence: u64, by: Option<RunKey>, has_succeeded: bool) -> Fact {
    Fact::Ended { uid: UID, fence: Fence(fence), by, has_succeeded }
}

fn created(retries_max: i32) -> Vec<Fact> {
    vec![Fact::Created { uid: UID, name: 0, retries_max }, Fact::Acknowledged { name: 0 }]
}

fn owned(retries_max: i32) -> Vec<Fact> {
    let mut facts = created(retries_max);
    facts.extend([Fact::Released { key: key(1, 1), at: 0 }, Fact::Owned { run: run(1, 1, 7) }]);
    facts
}

/// A history and what users read at its end.
fn judge(facts: Vec<Fact>, shown: &[(TaskUid, bool)]) -> Option<Violation> {
    let mut checker = Checker::default();
    facts.into_iter().for_each(|fact| checker.observe(fact));
    checker.finish(&shown.iter().copied().collect::<BTreeMap<_, _>>(), &BTreeSet::new());
    checker.violation().cloned()
}

fn with(mut facts: Vec<Fact>, more: impl IntoIterator<Item = Fact>) -> Vec<Fact> {
    facts.extend(more);
    facts
}

fn succeeded() -> Vec<Fact> {
    with(owned(0), [Fact::RunEnded { run: run(1, 1, 7), has_failed: false }, ended(2, Some(run(1, 1, 7)), true)])
}

#[test]
fn a_sound_history_passes() {
    assert_eq!(judge(succeeded(), &[(UID, true)]), None);
    let retried = with(
        owned(1),
        [
            Fact::RunEnded { run: run(1, 1, 7), has_failed: true },
            Fact::Requeued { uid: UID, fence: Fence(2), cause: RequeueCause::Retry, at: 0 },
            Fact::Released { key: key(2, 3), at: 0 },
            Fact::Owned { run: run(2, 3, 8) },
            Fact::Granted { run: run(2, 3, 8) },
            Fact::RunEnded { run: run(2, 3, 8), has_failed: false },
            ended(4, Some(run(2, 3, 8)), true),
            Fact::Final { uid: UID, by: RunId(8), files: vec![Some(RunId(8)); 2] },
        ],
    );
    assert_eq!(judge(retried, &[(UID, true)]), None);
}

#[test]
fn a_task_that_was_lost_or_stored_twice_is_seen() {
    assert_eq!(judge(created(0), &[]), Some(Violation::Lost(UID)));
    assert_eq!(judge(owned(0), &[]), Some(Violation::Lost(UID)));
    assert_eq!(judge(vec![Fact::Acknowledged { name: 5 }], &[]), Some(Violation::NeverStored(5)));
    let twice = with(created(0), [Fact::Created { uid: TaskUid(2), name: 0, retries_max: 0 }]);
    assert_eq!(judge(twice, &[]), Some(Violation::CreatedTwice(0)));
}

#[test]
fn a_record_that_changes_or_comes_from_nowhere_is_seen() {
    assert_eq!(judge(vec![ended(1, None, false)], &[]), Some(Violation::Unknown(UID)));
    assert_eq!(judge(with(succeeded(), [ended(3, None, false)]), &[(UID, true)]), Some(Violation::AlreadyEnded(UID)));
    assert_eq!(judge(succeeded(), &[(UID, false)]), Some(Violation::RecordChanged(UID)));
    assert_eq!(judge(succeeded(), &[]), Some(Violation::RecordChanged(UID)));
    assert_eq!(judge(vec![], &[(UID, true)]), Some(Violation::Unknown(UID)));
    let invented = with(owned(0), [ended(2, Some(run(1, 1, 7)), true)]);
    assert_eq!(judge(invented, &[(UID, true)]), Some(Violation::NeverRan(run(1, 1, 7))));
    let deleted = with(owned(0), [Fact::Deleted { uid: UID }, ended(2, None, false)]);
    assert_eq!(judge(deleted, &[]), Some(Violation::Unknown(UID)));
}

#[test]
fn files_of_two_runs_or_a_missing_file_are_seen() {
    for files in [vec![Some(RunId(7)), Some(RunId(8))], vec![Some(RunId(7)), None]] {
        let facts = with(succeeded(), [Fact::Final { uid: UID, by: RunId(7), files: files.clone() }]);
        assert_eq!(judge(facts, &[(UID, true)]), Some(Violation::Mixed(UID, files)));
    }
}

#[test]
fn counters_that_differ_from_rows_are_seen() {
    let (kept, counted) = (Counts { active: 1, ..Counts::default() }, Counts { running: 1, ..Counts::default() });
    let facts = vec![Fact::Counted { job: JobUid(1), kept, counted }];
    assert_eq!(judge(facts, &[]), Some(Violation::Counters { job: JobUid(1), kept, counted }));
}

#[test]
fn old_fences_and_strangers_are_seen() {
    let requeued = |fence| Fact::Requeued { uid: UID, fence: Fence(fence), cause: RequeueCause::Recovery, at: 0 };
    assert_eq!(judge(with(owned(0), [requeued(1)]), &[]), Some(Violation::OldFence(UID, Fence(1))));
    let stranger = run(1, 1, 8);
    let facts = with(owned(0), [Fact::RunEnded { run: stranger, has_failed: false }, ended(2, Some(stranger), true)]);
    assert!(matches!(judge(facts, &[(UID, true)]), Some(Violation::OutOfTurn(_))));
    let second = with(owned(0), [Fact::Owned { run: stranger }]);
    assert!(matches!(judge(second, &[]), Some(Violation::OutOfTurn(_))));
    let again = with(owned(0), [Fact::Released { key: key(2, 2), at: 0 }]);
    assert!(matches!(judge(again, &[]), Some(Violation::OutOfTurn(_))));
    assert_eq!(judge(with(owned(0), [Fact::Granted { run: stranger }]), &[]), Some(Violation::GrantedToStranger(stranger)));
    let old = [requeued(2), Fact::Released { key: key(2, 3), at: 0 }, Fact::Owned { run: run(2, 3, 9) }];
    let facts = with(owned(0), old);
    let facts = with(facts, [Fact::RunEnded { run: run(1, 1, 7), has_failed: false }, ended(4, Some(run(1, 1, 7)), true)]);
    assert!(matches!(judge(facts, &[(UID, true)]), Some(Violation::OutOfTurn(_))));
}

#[test]
fn retries_beyond_the_limit_or_without_a_failure_are_seen() {
    let failed = Fact::RunEnded { run: run(1, 1, 7), has_failed: true };
    let retry = Fact::Requeued { uid: UID, fence: Fence(2), cause: RequeueCause::Retry, at: 0 };
    assert_eq!(judge(with(owned(0), [failed, retry.clone()]), &[]), Some(Violation::TooManyRetries(UID)));
    assert_eq!(judge(with(owned(3), [retry]), &[]), Some(Violation::RetryForNothing(UID)));
}

#[test]
fn a_success_beside_an_acknowledged_cancel_is_seen() {
    let cancelled = Fact::CancelAcknowledged { uid: UID, life: 0 };
    let wrong = Some(Violation::SuccessAfterCancel(UID));
    assert_eq!(judge(with(succeeded(), [cancelled.clone()]), &[(UID, true)]), wrong);
    assert_eq!(judge(with(owned(0), [cancelled]), &[]), wrong, "acknowledged before it was ended");
}

#[test]
fn a_reactivation_out_of_action_or_under_an_old_fence_is_seen() {
    let again = |fence| Fact::Reactivated { uid: UID, fence: Fence(fence), life: 1 };
    assert_eq!(judge(with(owned(0), [again(9)]), &[]), Some(Violation::OutOfTurn(Box::new(again(9)))));
    assert_eq!(judge(with(succeeded(), [again(9)]), &[]), Some(Violation::OutOfTurn(Box::new(again(9)))));
    let failed = || with(owned(0), [ended(2, None, false)]);
    assert_eq!(judge(with(failed(), [again(2)]), &[]), Some(Violation::OldFence(UID, Fence(2))));
    let late = Fact::CancelAcknowledged { uid: UID, life: 0 };
    assert_eq!(judge(with(failed(), [again(3), late, ended(4, None, true)]), &[(UID, true)]), None);
}

#[test]
fn a_task_of_a_stopped_job_that_starts_is_seen() {
    assert_eq!(judge(with(owned(0), [Fact::Disobeyed { key: key(1, 1) }]), &[]), Some(Violation::Disobeyed(key(1, 1))));
}

#[test]
fn a_run_that_is_listed_and_forgotten_is_seen() {
    assert_eq!(judge(with(created(0), [Fact::Forgotten { key: key(1, 1) }]), &[]), Some(Violation::Forgotten(key(1, 1))));
}

#[test]
fn a_window_that_is_overrun_is_seen() {
    assert_eq!(judge(vec![Fact::Window { live: 9, most: 8 }], &[]), Some(Violation::WindowOverrun { live: 9, most: 8 }));
}

#[test]
fn a_run_given_up_in_a_calm_world_is_seen() {
    let mut checker = Checker::default();
    checker.is_calm = true;
    with(owned(0), [Fact::Requeued { uid: UID, fence: Fence(2), cause: RequeueCause::Recovery, at: 0 }])
        .into_iter()
        .for_each(|fact| checker.observe(fact));
    assert_eq!(checker.violation(), Some(&Violation::LostForNothing(UID)));
    let lost = |facts: Vec<Fact>| {
        let mut checker = Checker::default();
        checker.is_calm = true;
        facts.into_iter().for_each(|fact| checker.observe(fact));
        checker.violation().cloned()
    };
    let requeued = Fact::Requeued { uid: UID, fence: Fence(2), cause: RequeueCause::Recovery, at: 0 };
    assert_eq!(lost(with(owned(0), [Fact::AllDied, requeued.clone()])), None);
    assert_eq!(lost(with(owned(0), [Fact::AllDied, Fact::Crashed { uid: UID }, requeued])), Some(Violation::BlamedForNothing(UID)));
}

#[test]
fn a_second_retry_without_a_pause_is_seen() {
    let fails = |attempt: u32, fence: u64, at| {
        let run = run(attempt, fence, 7);
        let retry = Fact::Requeued { uid: UID, fence: Fence(fence + 1), cause: RequeueCause::Retry, at };
        [Fact::Owned { run }, Fact::RunEnded { run, has_failed: true }, retry]
    };
    let twice = |at| {
        let facts = with(created(9), [Fact::Released { key: key(1, 1), at: 0 }]);
        let facts = with(with(facts, fails(1, 1, 10)), [Fact::Released { key: key(2, 3), at: 10 }]);
        with(with(facts, fails(2, 3, 20)), [Fact::Released { key: key(3, 5), at }, ended(6, None, false)])
    };
    assert_eq!(judge(twice(770), &[(UID, false)]), None);
    assert_eq!(judge(twice(769), &[(UID, false)]), Some(Violation::RetriedAtOnce(key(3, 5))));
}

#[test]
fn in_a_crowd_a_starved_task_of_several_slots_and_a_node_kept_too_long_are_seen() {
    let crowd = |fact| {
        let mut checker = Checker::default();
        checker.wide_ms_max = Some((100, 10));
        checker.observe(fact);
        checker.violation().cloned()
    };
    let started = |waited_ms| Fact::WideStarted { run: run(1, 1, 7), waited_ms };
    assert_eq!((crowd(started(100)), crowd(started(101))), (None, Some(Violation::WideStarved(key(1, 1), 101))));
    let given_back = |kept_ms| Fact::GivenBack { key: key(1, 1), kept_ms };
    assert_eq!((crowd(given_back(10)), crowd(given_back(11))), (None, Some(Violation::KeptTooLong(key(1, 1), 11))));
    assert_eq!(judge(vec![started(i64::MAX), given_back(i64::MAX)], &[]), None, "elsewhere anything may take long");
}
