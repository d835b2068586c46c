//! Core time by half hours: added up, paged in order, kept when its pool is deleted, deleted when old.

use contract::time::Timestamp;
use model::usage::{Charge, INTERVAL_MS};
use store::{
    filter::{Field, Filter, Operator, Value},
    usage::UsagePage,
};

use crate::fixture::{Fixture, Location, id, pool, wait};

fn half_hour(number: i64) -> Timestamp {
    Timestamp(number * INTERVAL_MS)
}

fn page(from: i64, until: i64) -> UsagePage {
    UsagePage { from: half_hour(from), until: half_hour(until), after: None, rows_max: 100, filter: None, left_out: Default::default() }
}

fn seen(fixture: &Fixture, page: UsagePage) -> Vec<(i64, String, u64)> {
    let rows = wait(fixture.read.usage(page)).unwrap();
    rows.into_iter().map(|row| (row.interval.0 / INTERVAL_MS, row.pool.to_string(), row.core_ms)).collect()
}

pub fn core_time_is_kept_by_interval_and_outlives_its_pool(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let charge = |interval, core_ms| Charge { interval: half_hour(interval), core_ms, dedicated_core_ms: core_ms };
    fixture.write(|store| {
        store.put_pool(&pool("a"), Some(r#"{"vmSize":"small"}"#))?;
        store.put_pool(&pool("B"), Some("{}"))?;
        // A document that cannot be read costs no charge, and no charge of others.
        store.put_pool(&pool("z"), Some("{oops}"))?;
        for (name, interval, core_ms) in [("B", 2, 5), ("a", 2, 1), ("A", 2, 2), ("a", 3, 4), ("a", 9, 8), ("z", 20, 1)] {
            store.charge(&id(name), &charge(interval, core_ms))?;
        }
        store.charge(&id("nobody"), &charge(2, 7))?;
        store.delete_pool(&id("a"))
    });
    let text = |name: &str| name.to_owned();
    let all = [(2, text("a"), 3), (2, text("B"), 5), (3, text("a"), 4), (9, text("a"), 8)];
    assert_eq!(seen(&fixture, page(0, 10)), all);
    assert_eq!(seen(&fixture, page(2, 4)), all[..3], "an interval must end by then");
    assert_eq!(seen(&fixture, page(3, 9)), all[2..3]);
    assert_eq!(wait(fixture.read.usage(page(2, 3))).unwrap().iter().map(|row| row.vm_size.as_str()).collect::<Vec<_>>(), ["small", ""]);

    let after = UsagePage { after: Some((half_hour(2), text("A"))), rows_max: 2, ..page(0, 10) };
    assert_eq!(seen(&fixture, after), all[1..3]);
    let filter = Some(Filter::Compare(Field::Id, Operator::Eq, Value::Text(text("b"))));
    assert_eq!(seen(&fixture, UsagePage { filter, ..page(0, 10) }), all[1..2]);

    assert_eq!(seen(&fixture, page(20, 21)), [(20, text("z"), 1)]);

    fixture.write(|store| store.forget_usage(half_hour(3)));
    assert_eq!(seen(&fixture, page(0, 10)), all[2..]);
}
