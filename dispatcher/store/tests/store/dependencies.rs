//! Dependencies between tasks: which tasks wait, and which become ready.

use contract::ids::TaskUid;
use store::records::Inserted;

use crate::fixture::{Fixture, Location, ending, id, task};

pub fn a_task_waits_for_all_that_it_needs(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.add("a");
    fixture.add("b");
    let (waits, inserted) = fixture.add_after("waits", &["a", "B"]);
    assert_eq!(inserted, Inserted::Blocked);
    assert!(fixture.satisfy("a").is_empty());
    assert_eq!(fixture.ready(), ["a", "b"]);
    assert_eq!(fixture.satisfy("b"), [waits]);
    assert!(fixture.head(waits).is_ready);
    assert_eq!(fixture.ready(), ["a", "b", "waits"]);
}

pub fn needs_that_are_met_already_do_not_block(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let done = fixture.add("Done");
    fixture.end(done, &ending(5));
    assert_eq!(fixture.add_after("early", &["done"]).1, Inserted::Blocked);
    fixture.satisfy("done");
    assert_eq!(fixture.add_after("late", &["DONE"]).1, Inserted::Ready);
    assert_eq!(fixture.add_after("both", &["done", "open"]).1, Inserted::Blocked);
}

pub fn a_need_may_be_named_before_it_exists(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, inserted) = fixture.add_after("waits", &["later"]);
    assert_eq!(inserted, Inserted::Blocked);
    fixture.add("later");
    assert!(!fixture.head(waits).is_ready);
    assert_eq!(fixture.satisfy("later"), [waits]);
}

pub fn integers_match_whatever_their_leading_zeros(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, _) = fixture.add_after("waits", &["4", "0005", "0"]);
    for name in ["004", "5", "000"] {
        fixture.add(name);
    }
    assert!(fixture.satisfy("004").is_empty());
    assert!(fixture.satisfy("5").is_empty());
    assert_eq!(fixture.satisfy("000"), [waits]);
    assert_eq!(fixture.add_after("late", &["04", "05", "00"]).1, Inserted::Ready);
    // A second spelling meets the dependency only once.
    let (two, _) = fixture.add_after("two", &["6", "7"]);
    fixture.add("6");
    fixture.add("06");
    assert!(fixture.satisfy("6").is_empty());
    assert!(fixture.satisfy("06").is_empty());
    assert_eq!(fixture.satisfy("7"), [two]);
}

pub fn names_that_are_no_integers_match_by_letters_alone(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, _) = fixture.add_after("waits", &["04a"]);
    fixture.add("4a");
    assert!(fixture.satisfy("4a").is_empty());
    assert_eq!(fixture.satisfy("04A"), [waits]);
}

pub fn a_need_given_twice_counts_once(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, _) = fixture.add_after("waits", &["a", "A", "7", "007"]);
    assert!(fixture.satisfy("a").is_empty());
    assert_eq!(fixture.satisfy("7"), [waits]);
}

pub fn a_need_met_twice_counts_once(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.add("a");
    let (waits, _) = fixture.add_after("waits", &["a", "b"]);
    assert!(fixture.satisfy("a").is_empty());
    assert!(fixture.satisfy("a").is_empty());
    assert!(!fixture.head(waits).is_ready);
    assert_eq!(fixture.satisfy("b"), [waits]);
    assert!(fixture.satisfy("b").is_empty());
}

pub fn an_ended_task_is_not_freed(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, _) = fixture.add_after("waits", &["a"]);
    fixture.end(waits, &ending(5));
    assert!(fixture.satisfy("a").is_empty());
    assert!(!fixture.head(waits).is_ready);
    assert!(fixture.ready().is_empty());
}

pub fn a_misfit_is_not_freed(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (job, name, needs) = (fixture.job, id("misfit"), ["a".to_owned()]);
    let mut record = task(4_000, &name);
    (record.fits, record.depends_on) = (false, &needs);
    assert_eq!(fixture.write(|store| store.insert_task(job, &record)), Inserted::Blocked);
    assert!(fixture.satisfy("a").is_empty());
    assert!(fixture.ready().is_empty());
}

pub fn deleted_tasks_are_not_freed(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (gone, _) = fixture.add_after("gone", &["a"]);
    let (stays, _) = fixture.add_after("stays", &["a"]);
    fixture.write(|store| store.delete_task(gone));
    let (again, _) = fixture.add_after("gone", &["a", "b"]);
    assert_eq!(fixture.satisfy("a"), [stays]);
    assert_eq!(fixture.satisfy("b"), [again]);
}

pub fn a_thousand_wait_for_one_and_one_for_a_thousand(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let job = fixture.job;
    let needs: Vec<String> = (1..=1000).map(|number| number.to_string()).collect();
    let names: Vec<_> = (1..=1000).map(|number| id(&format!("{number:05}"))).collect();
    let last = id("last");
    let free = fixture.write(|store| {
        let one = ["first".to_owned()];
        for (index, name) in names.iter().enumerate() {
            let mut record = task(20_000 + index as u64, name);
            record.depends_on = &one;
            store.insert_task(job, &record)?;
        }
        let mut record = task(30_000, &last);
        record.depends_on = &needs;
        store.insert_task(job, &record)?;
        store.satisfy(job, &id("first"))
    });
    assert_eq!(free, (20_000..21_000).map(TaskUid).collect::<Vec<_>>());
    let freed: Vec<TaskUid> = fixture.write(|store| {
        let freed: Result<Vec<_>, _> = names.iter().rev().map(|name| store.satisfy(job, name)).collect();
        Ok(freed?.concat())
    });
    assert_eq!(freed, [TaskUid(30_000)]);
}

pub fn jobs_do_not_free_each_other(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (waits, _) = fixture.add_after("waits", &["a"]);
    let other = fixture.add_job(600, "other");
    assert!(fixture.write(|store| store.satisfy(other, &id("a"))).is_empty());
    assert_eq!(fixture.satisfy("a"), [waits]);
}
