//! Dependencies between tasks: which tasks wait, and which become ready.

use contract::ids::TaskUid;
use store::records::Inserted;

use crate::place::{Bench, Place, ending, id, task};

pub fn a_task_waits_for_all_that_it_needs(place: &dyn Place) {
    let mut bench = Bench::new(place);
    bench.add("a");
    bench.add("b");
    let (waits, inserted) = bench.add_after("waits", &["a", "B"]);
    assert_eq!(inserted, Inserted::Blocked);
    assert!(bench.satisfy("a").is_empty());
    assert_eq!(bench.ready(), ["a", "b"]);
    assert_eq!(bench.satisfy("b"), [waits]);
    assert!(bench.head(waits).is_ready);
    assert_eq!(bench.ready(), ["a", "b", "waits"]);
}

pub fn needs_that_are_met_already_do_not_block(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let done = bench.add("Done");
    bench.end(done, &ending(5));
    assert_eq!(bench.add_after("early", &["done"]).1, Inserted::Blocked);
    bench.satisfy("done");
    assert_eq!(bench.add_after("late", &["DONE"]).1, Inserted::Ready);
    assert_eq!(bench.add_after("both", &["done", "open"]).1, Inserted::Blocked);
}

pub fn a_need_may_be_named_before_it_exists(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, inserted) = bench.add_after("waits", &["later"]);
    assert_eq!(inserted, Inserted::Blocked);
    bench.add("later");
    assert!(!bench.head(waits).is_ready);
    assert_eq!(bench.satisfy("later"), [waits]);
}

pub fn integers_match_whatever_their_leading_zeros(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, _) = bench.add_after("waits", &["4", "0005", "0"]);
    for name in ["004", "5", "000"] {
        bench.add(name);
    }
    assert!(bench.satisfy("004").is_empty());
    assert!(bench.satisfy("5").is_empty());
    assert_eq!(bench.satisfy("000"), [waits]);
    assert_eq!(bench.add_after("late", &["04", "05", "00"]).1, Inserted::Ready);
    // A second spelling meets the dependency only once.
    let (two, _) = bench.add_after("two", &["6", "7"]);
    bench.add("6");
    bench.add("06");
    assert!(bench.satisfy("6").is_empty());
    assert!(bench.satisfy("06").is_empty());
    assert_eq!(bench.satisfy("7"), [two]);
}

pub fn names_that_are_no_integers_match_by_letters_alone(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, _) = bench.add_after("waits", &["04a"]);
    bench.add("4a");
    assert!(bench.satisfy("4a").is_empty());
    assert_eq!(bench.satisfy("04A"), [waits]);
}

pub fn a_need_given_twice_counts_once(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, _) = bench.add_after("waits", &["a", "A", "7", "007"]);
    assert!(bench.satisfy("a").is_empty());
    assert_eq!(bench.satisfy("7"), [waits]);
}

pub fn a_need_met_twice_counts_once(place: &dyn Place) {
    let mut bench = Bench::new(place);
    bench.add("a");
    let (waits, _) = bench.add_after("waits", &["a", "b"]);
    assert!(bench.satisfy("a").is_empty());
    assert!(bench.satisfy("a").is_empty());
    assert!(!bench.head(waits).is_ready);
    assert_eq!(bench.satisfy("b"), [waits]);
    assert!(bench.satisfy("b").is_empty());
}

pub fn an_ended_task_is_not_freed(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, _) = bench.add_after("waits", &["a"]);
    bench.end(waits, &ending(5));
    assert!(bench.satisfy("a").is_empty());
    assert!(!bench.head(waits).is_ready);
    assert!(bench.ready().is_empty());
}

pub fn a_misfit_is_not_freed(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (job, name, needs) = (bench.job, id("misfit"), ["a".to_owned()]);
    let mut record = task(4_000, &name);
    (record.fits, record.depends_on) = (false, &needs);
    assert_eq!(bench.write(|store| store.insert_task(job, &record)), Inserted::Blocked);
    assert!(bench.satisfy("a").is_empty());
    assert!(bench.ready().is_empty());
}

pub fn deleted_tasks_are_not_freed(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (gone, _) = bench.add_after("gone", &["a"]);
    let (stays, _) = bench.add_after("stays", &["a"]);
    bench.write(|store| store.delete_task(gone));
    let (again, _) = bench.add_after("gone", &["a", "b"]);
    assert_eq!(bench.satisfy("a"), [stays]);
    assert_eq!(bench.satisfy("b"), [again]);
}

pub fn a_thousand_wait_for_one_and_one_for_a_thousand(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let job = bench.job;
    let needs: Vec<String> = (1..=1000).map(|number| number.to_string()).collect();
    let names: Vec<_> = (1..=1000).map(|number| id(&format!("{number:05}"))).collect();
    let last = id("last");
    let free = bench.write(|store| {
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
    let freed: Vec<TaskUid> = bench.write(|store| {
        let freed: Result<Vec<_>, _> = names.iter().rev().map(|name| store.satisfy(job, name)).collect();
        Ok(freed?.concat())
    });
    assert_eq!(freed, [TaskUid(30_000)]);
}

pub fn jobs_do_not_free_each_other(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (waits, _) = bench.add_after("waits", &["a"]);
    let other = bench.add_job(600, "other");
    assert!(bench.write(|store| store.satisfy(other, &id("a"))).is_empty());
    assert_eq!(bench.satisfy("a"), [waits]);
}
