//! Functions of pools.

use contract::{
    function::{FunctionSpec, Runtime},
    ids::PoolId,
    period::Period,
};
use model::function::{FunctionRow, FunctionVersion};

use crate::fixture::{Fixture, Location, at, first, id, pool, wait};

fn function(pool: &str, name: &str) -> FunctionRow {
    let spec = FunctionSpec {
        runtime: Runtime::Lambda,
        handler: Some("app.handler".into()),
        command_line: None,
        package: Some("ab".repeat(32)),
        memory_mib: Some(128),
        timeout: Period::from_secs(3),
        concurrency_per_node: Some(4),
        environment_settings: vec![],
        warm_instances: 1,
        max_retry_count: 5,
        idle_time: Period::from_secs(60),
    };
    let version = |number| FunctionVersion { number, uid: u64::from(number) + 10, spec: spec.clone(), created_at: at(7) };
    FunctionRow {
        pool: id(pool),
        id: id(name),
        version: 3,
        active: 2,
        versions: vec![version(1), version(2)],
        created_at: at(1),
        modified_at: at(2),
    }
}

pub fn a_function_survives_with_its_versions_and_goes_with_its_pool(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (mine, other) = (function("Pool-A", "Resize"), function("b", "resize"));
    fixture.write(|store| {
        store.put_pool(&pool("Pool-A"), Some("{}"))?;
        store.put_pool(&pool("b"), Some("{}"))?;
        store.put_function(&function("Pool-A", "RESIZE"))?;
        store.put_function(&mine)?;
        store.put_function(&function("b", "gone"))?;
        store.put_function(&other)?;
        store.delete_function(&id("B"), &id("Gone"))
    });
    let (a, b): (PoolId, PoolId) = (id("pool-a"), id("B"));
    assert_eq!(wait(fixture.read.function(&a, &id("rEsIzE"))).unwrap(), Some(mine.clone()));
    assert_eq!(wait(fixture.read.functions(&b, first(9))).unwrap(), std::slice::from_ref(&other));
    let named = |name: &str, rows_max| wait(fixture.read.functions_named(&id(name), rows_max)).unwrap().len();
    assert_eq!((named("RESIZE", 9), named("resize", 1), named("gone", 9)), (2, 1, 0));
    let mut loaded = fixture.store.load().unwrap();
    loaded.functions.sort_by(|x, y| x.pool.cmp(&y.pool));
    assert_eq!(loaded.functions, [other.clone(), mine]);
    assert!(loaded.next_version > 3, "its version is never given again");
    fixture.write(|store| store.delete_pool(&id("POOL-A")));
    assert_eq!(wait(fixture.read.functions(&a, first(9))).unwrap(), []);
    assert_eq!(fixture.store.load().unwrap().functions, [other]);
}
