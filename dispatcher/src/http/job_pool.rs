//! Reads where a job runs: on a pool that is there, or on one that comes with it and is read in full as pools are.

use broker_config::ids::PoolId;
use serde_json::{Map, Value, json};

use crate::{
    auto_pool::{AutoPool, JobPool, Lifetime, PREFIX_MAX, Tie},
    command::NewPool,
    http::{
        pool_body,
        validate::{Object, invalid, prune},
    },
    refusal::Refusal,
};

const AUTO: &str = "autoPoolSpecification";
/// The slots of a node, by either of their names; every version of the API shows its own.
const SLOTS: [&str; 2] = ["taskSlotsPerNode", "maxTasksPerNode"];

/// An automatic pool as it is given; its pool may be left out where it cannot change.
struct Given {
    prefix: Option<PoolId>,
    lifetime: Lifetime,
    keep_alive: Option<bool>,
    pool: Option<NewPool>,
    shown: Value,
}

/// What a change of a job says of its pool.
pub enum Change {
    /// It shall run on this one.
    Named(PoolId),
    /// The specification of its own, as GET shows it.
    Auto(Value),
}

fn prefix(given: &Object<'_>) -> Result<Option<PoolId>, Refusal> {
    match given.text("autoPoolIdPrefix", PREFIX_MAX)? {
        None | Some("") => Ok(None),
        Some(_) => given.parsed("autoPoolIdPrefix"),
    }
}

/// A pool as it was given, as its properties are understood.
fn shown(given: &Object<'_>, pool: &NewPool) -> Value {
    let document: Map<String, Value> = serde_json::from_str(&pool.document).expect("a pool's document is an object");
    let property = |name: &str| {
        let value = match name {
            "taskSlotsPerNode" | "maxTasksPerNode" => json!(pool.slots_per_node),
            "targetDedicatedNodes" => json!(pool.target_dedicated),
            "targetLowPriorityNodes" => json!(pool.target_low_priority),
            "resizeTimeout" => json!(pool.resize_timeout),
            "enableAutoScale" => json!(pool.scaling.is_some()),
            "autoScaleFormula" => json!(pool.scaling.as_ref().map(|(formula, _)| formula)),
            "autoScaleEvaluationInterval" => json!(pool.scaling.as_ref().map(|(_, interval)| interval)),
            name => document.get(name)?.clone(),
        };
        Some((name.to_owned(), value))
    };
    let mut names: Vec<&str> = given.fields().keys().map(String::as_str).filter(|name| given.value(name).is_some()).collect();
    if names.iter().any(|name| SLOTS.contains(name)) {
        names.extend(SLOTS);
    }
    names.into_iter().filter_map(property).collect()
}

fn given(info: &Object<'_>) -> Result<Option<Given>, Refusal> {
    let Some(given) = info.object(AUTO)? else { return Ok(None) };
    if info.value("poolId").is_some() {
        return Err(info.invalid("poolId", "Exactly one of poolId and autoPoolSpecification is expected."));
    }
    let prefix = prefix(&given)?;
    let lifetime = match given.choice("poolLifetimeOption", &["job", "jobschedule"])? {
        None => return Err(given.missing("poolLifetimeOption")),
        Some("job") => Lifetime::Job,
        Some(_) => Lifetime::JobSchedule,
    };
    let keep_alive = given.flag("keepAlive")?;
    let (pool, shown) = match given.object("pool")? {
        None => (None, None),
        Some(body) => {
            let id = "named-when-made".parse().expect("an id");
            let pool = pool_body::specification(body, id)?;
            let shown = shown(&body, &pool);
            (Some(pool), Some(shown))
        }
    };
    let shown = prune(json!({
        "autoPoolIdPrefix": prefix, "poolLifetimeOption": lifetime.as_str(), "keepAlive": keep_alive.unwrap_or(false), "pool": shown,
    }));
    Ok(Some(Given { prefix, lifetime, keep_alive, pool, shown }))
}

fn named(info: &Object<'_>) -> Result<PoolId, Refusal> {
    info.required("poolId")
}

/// `poolInfo` of a new job, and how it is shown when it is more than a name.
pub fn read(body: &Object<'_>, is_scheduled: bool) -> Result<(JobPool, Option<Value>), Refusal> {
    let info = body.required_object("poolInfo")?;
    let Some(given) = given(&info)? else { return Ok((JobPool::Named(named(&info)?), None)) };
    let auto = info.required_object(AUTO)?;
    if given.lifetime == Lifetime::JobSchedule && !is_scheduled {
        return Err(auto.invalid("poolLifetimeOption", "jobschedule is for job schedules; a single job takes job."));
    }
    let pool = given.pool.ok_or_else(|| auto.missing("pool"))?;
    let tie = Tie { lifetime: given.lifetime, keep_alive: given.keep_alive.unwrap_or(false) };
    let auto = AutoPool { prefix: given.prefix, tie, pool };
    Ok((JobPool::Auto(Box::new(auto)), Some(json!({ AUTO: given.shown }))))
}

/// `poolInfo` of a job that is there.
pub fn change(body: &Object<'_>) -> Result<Option<Change>, Refusal> {
    let Some(info) = body.object("poolInfo")? else { return Ok(None) };
    match given(&info)? {
        Some(given) => Ok(Some(Change::Auto(given.shown))),
        None => named(&info).map(|pool| Some(Change::Named(pool))),
    }
}

/// The first property that is given otherwise than it is; what is not given stays.
fn difference<'a>(path: &str, is: &Value, given: &'a Value) -> Option<(String, &'a Value)> {
    match (is, given) {
        (Value::Object(is), Value::Object(given)) => given.iter().find_map(|(name, given)| {
            let path = format!("{path}.{name}");
            difference(&path, is.get(name).unwrap_or(&Value::Null), given)
        }),
        _ => (is != given).then(|| (path.to_owned(), given)),
    }
}

/// Changes what a job's document says of its own pool: `keepAlive` alone can change; its new value.
pub fn merge(document: &mut Map<String, Value>, given: &Value, is_whole: bool) -> Result<Option<bool>, Refusal> {
    let path = format!("poolInfo.{AUTO}");
    let Some(is) = document.get_mut("poolInfo").and_then(|info| info.get_mut(AUTO)) else {
        return Err(invalid(path, given, "The job runs on a pool that was there before it; name the pool it shall move to."));
    };
    let mut rest = given.clone();
    let keep_alive = rest.as_object_mut().and_then(|fields| fields.remove("keepAlive")).and_then(|flag| flag.as_bool());
    if let Some((path, value)) = difference(&path, is, &rest) {
        return Err(invalid(path, value, "Of a job's own pool only keepAlive can be changed."));
    }
    let keep_alive = keep_alive.or(is_whole.then_some(false));
    let was = is.get("keepAlive").and_then(Value::as_bool).unwrap_or(false);
    if let Some(keep_alive) = keep_alive.filter(|keep_alive| *keep_alive != was) {
        is["keepAlive"] = json!(keep_alive);
    }
    Ok(keep_alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code::{self, *};

    fn auto(changes: Value) -> Value {
        let machine = json!({"imageReference": {"publisher": "a", "offer": "b", "sku": "c"}, "nodeAgentSKUId": "d"});
        let pool = json!({"vmSize": "small", "targetDedicatedNodes": "2", "virtualMachineConfiguration": machine, "unknown": 1});
        let mut auto = json!({"autoPoolIdPrefix": "Auto", "poolLifetimeOption": "Job", "pool": pool});
        for (path, value) in changes.as_object().unwrap() {
            match path.split_once('.') {
                None => auto[path] = value.clone(),
                Some((head, rest)) => auto[head][rest] = value.clone(),
            }
        }
        auto
    }

    fn ask(info: Value, is_scheduled: bool) -> Result<(JobPool, Option<Value>), (Code, Option<String>)> {
        let body = json!({ "poolInfo": info });
        let property = |refusal: &Refusal| refusal.values.iter().find(|(name, _)| name == "PropertyName").map(|(_, path)| path.clone());
        read(&Object::root(body.as_object().unwrap()), is_scheduled).map_err(|refusal| (refusal.code, property(&refusal)))
    }

    #[test]
    fn a_job_brings_its_pool_along_and_shows_it_as_it_was_given() {
        let (pool, shown) =
            ask(json!({ "autoPoolSpecification": auto(json!({"keepAlive": true, "pool.displayName": null})) }), false).unwrap();
        let JobPool::Auto(pool) = pool else { panic!("{pool:?}") };
        assert_eq!((pool.prefix.unwrap().as_str(), pool.tie), ("Auto", Tie { lifetime: Lifetime::Job, keep_alive: true }));
        assert_eq!((pool.pool.target_dedicated, pool.pool.slots_per_node), (2, 1));
        let shown = shown.unwrap()["autoPoolSpecification"].clone();
        assert_eq!((&shown["poolLifetimeOption"], &shown["keepAlive"]), (&json!("job"), &json!(true)));
        let names: Vec<_> = shown["pool"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            (names.join(" ").as_str(), &shown["pool"]["targetDedicatedNodes"]),
            ("targetDedicatedNodes virtualMachineConfiguration vmSize", &json!(2))
        );
        let (pool, shown) = ask(json!({"poolId": "p"}), false).unwrap();
        assert_eq!((pool, shown), (JobPool::Named("p".parse().unwrap()), None));
    }

    #[test]
    fn wrong_specifications_are_refused_by_the_path_of_the_property() {
        let at = |path: &str| Some(format!("poolInfo.autoPoolSpecification{path}"));
        for (changes, code, property) in [
            (json!({"autoPoolIdPrefix": "x".repeat(21)}), InvalidPropertyValue, at(".autoPoolIdPrefix")),
            (json!({"autoPoolIdPrefix": "a b"}), InvalidPropertyValue, at(".autoPoolIdPrefix")),
            (json!({"autoPoolIdPrefix": 5}), InvalidPropertyValue, at(".autoPoolIdPrefix")),
            (json!({"poolLifetimeOption": null}), MissingRequiredProperty, at(".poolLifetimeOption")),
            (json!({"poolLifetimeOption": "task"}), InvalidPropertyValue, at(".poolLifetimeOption")),
            (json!({"poolLifetimeOption": "jobSchedule"}), InvalidPropertyValue, at(".poolLifetimeOption")),
            (json!({"keepAlive": "perhaps"}), InvalidPropertyValue, at(".keepAlive")),
            (json!({"pool": null}), MissingRequiredProperty, at(".pool")),
            (json!({"pool": []}), InvalidPropertyValue, at(".pool")),
            (json!({"pool.vmSize": null}), MissingRequiredProperty, at(".pool.vmSize")),
            (json!({"pool.targetDedicatedNodes": -1}), InvalidPropertyValue, at(".pool.targetDedicatedNodes")),
            (
                json!({"pool.virtualMachineConfiguration": {}}),
                MissingRequiredProperty,
                at(".pool.virtualMachineConfiguration.imageReference"),
            ),
            (json!({"pool.metadata": [{"name": "a"}]}), MissingRequiredProperty, at(".pool.metadata[0].value")),
            (json!({"pool.startTask": {"commandLine": ""}}), InvalidPropertyValue, at(".pool.startTask.commandLine")),
            (json!({"pool.enableAutoScale": true}), InvalidPropertyValue, at(".pool.enableAutoScale")),
            (json!({"pool.autoScaleFormula": "$a"}), AutoScalingFormulaSyntaxError, None),
            (
                json!({"pool.mountConfiguration": [{}]}),
                InvalidPropertyValue,
                at(".pool.mountConfiguration[0].azureBlobFileSystemConfiguration"),
            ),
        ] {
            let asked = ask(json!({ "autoPoolSpecification": auto(changes.clone()) }), false);
            assert_eq!(asked.unwrap_err(), (code, property), "{changes}");
        }
        assert!(ask(json!({ "autoPoolSpecification": auto(json!({"poolLifetimeOption": "JobSchedule"})) }), true).is_ok());
        let both = ask(json!({"poolId": "p", "autoPoolSpecification": auto(json!({}))}), false);
        assert_eq!(both.unwrap_err(), (InvalidPropertyValue, Some("poolInfo.poolId".to_owned())));
    }

    #[test]
    fn of_a_jobs_own_pool_only_keep_alive_can_change() {
        let is = || json!({"poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "pool": {"vmSize": "a", "metadata": [1]}}}});
        let ask = |given: Value, is_whole: bool| {
            let mut document = is().as_object().unwrap().clone();
            let merged = merge(&mut document, &given, is_whole);
            merged.map(|keep_alive| (keep_alive, document["poolInfo"]["autoPoolSpecification"].get("keepAlive").cloned()))
        };
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "keepAlive": true}), false), Ok((Some(true), Some(json!(true)))));
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "keepAlive": false}), false), Ok((Some(false), None)));
        assert_eq!(ask(json!({"poolLifetimeOption": "job"}), false), Ok((None, None)));
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "pool": {"vmSize": "a"}}), true), Ok((Some(false), None)));
        for (given, path) in [
            (json!({"poolLifetimeOption": "jobschedule"}), ".poolLifetimeOption"),
            (json!({"autoPoolIdPrefix": "p"}), ".autoPoolIdPrefix"),
            (json!({"pool": {"vmSize": "b"}}), ".pool.vmSize"),
            (json!({"pool": {"metadata": [1, 2]}}), ".pool.metadata"),
        ] {
            let refusal = ask(given, false).unwrap_err();
            assert_eq!(
                (refusal.code, refusal.values[0].1.as_str()),
                (InvalidPropertyValue, format!("poolInfo.autoPoolSpecification{path}").as_str())
            );
        }
        let refusal = merge(&mut Map::new(), &json!({"poolLifetimeOption": "job"}), false).unwrap_err();
        assert_eq!((refusal.code, refusal.values[0].1.as_str()), (InvalidPropertyValue, "poolInfo.autoPoolSpecification"));
    }
}
