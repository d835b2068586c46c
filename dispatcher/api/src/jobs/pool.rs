//! Reads a job's `poolInfo`: an existing pool, or one that is created with the job and is read like a pool request.

use contract::ids::{IdError, PoolId};
use model::{
    auto_pool::{self, AUTO, AutoPool, JobPool, Lifetime, Tie},
    pool::NewPool,
    refusal::Refusal,
};
use serde_json::{Map, Value, json};

use crate::{
    body::{Object, prune},
    pools,
};

/// Slots per node under both names; each API version shows its own.
const SLOTS: [&str; 2] = ["taskSlotsPerNode", "maxTasksPerNode"];

/// A given automatic pool; the pool itself may be left out in a change.
struct Given {
    prefix: Option<PoolId>,
    lifetime: Lifetime,
    keep_alive: Option<bool>,
    pool: Option<NewPool>,
    shown: Value,
}

/// A change of `poolInfo`.
pub enum Change {
    /// Another existing pool.
    Named(PoolId),
    /// The specification of the job's own pool.
    Own(auto_pool::PoolChange),
}

fn prefix(given: &Object<'_>) -> Result<Option<PoolId>, Refusal> {
    let Some(text) = given.text("autoPoolIdPrefix").filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|reason: IdError| given.invalid("autoPoolIdPrefix", reason))
}

/// The pool as GET shows it: the given properties with the values they were understood as.
fn shown(given: &Object<'_>, pool: &NewPool) -> Value {
    let document: Map<String, Value> = serde_json::from_str(&pool.document).expect("a pool's document is an object");
    let settings = json!(pool.settings);
    let property = |name: &str| {
        let value = match name {
            "taskSlotsPerNode" | "maxTasksPerNode" => json!(pool.slots_per_node),
            "targetDedicatedNodes" => json!(pool.target_dedicated),
            "targetLowPriorityNodes" => json!(pool.target_low_priority),
            "enableAutoScale" => json!(pool.scaling.is_some()),
            "autoScaleFormula" => json!(pool.scaling.as_ref().map(|(formula, _)| formula)),
            "autoScaleEvaluationInterval" => json!(pool.scaling.as_ref().map(|(_, interval)| interval)),
            name => settings.get(name).or_else(|| document.get(name))?.clone(),
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
    let Some(given) = info.object(AUTO) else { return Ok(None) };
    let prefix = prefix(&given)?;
    let lifetime = if given.word("poolLifetimeOption") == Some("job") { Lifetime::Job } else { Lifetime::JobSchedule };
    let keep_alive = given.flag("keepAlive");
    let (pool, shown) = match given.object("pool") {
        None => (None, None),
        Some(body) => {
            let id = "named-when-made".parse().expect("an id");
            let pool = pools::body::specification(body, id)?;
            let shown = shown(&body, &pool);
            (Some(pool), Some(shown))
        }
    };
    let shown = prune(json!({
        "autoPoolIdPrefix": prefix, "poolLifetimeOption": lifetime.as_str(), "keepAlive": keep_alive.unwrap_or(false), "pool": shown,
    }));
    Ok(Some(Given { prefix, lifetime, keep_alive, pool, shown }))
}

/// `poolInfo` of a new job, and the JSON that GET shows when it is more than an id.
pub fn read(body: &Object<'_>, is_scheduled: bool) -> Result<(JobPool, Option<Value>), Refusal> {
    let info = body.required_object("poolInfo");
    let Some(given) = given(&info)? else { return Ok((JobPool::Named(info.required_id("poolId")), None)) };
    let auto = info.required_object(AUTO);
    if given.lifetime == Lifetime::JobSchedule && !is_scheduled {
        return Err(auto.invalid("poolLifetimeOption", "jobschedule is for job schedules; a single job takes job."));
    }
    let pool = given.pool.ok_or_else(|| auto.missing("pool"))?;
    let tie = Tie { lifetime: given.lifetime, keep_alive: given.keep_alive.unwrap_or(false) };
    let auto = AutoPool { prefix: given.prefix, tie, pool };
    Ok((JobPool::Auto(Box::new(auto)), Some(json!({ AUTO: given.shown }))))
}

/// `poolInfo` of an existing job.
pub fn change(body: &Object<'_>, is_whole: bool) -> Result<Option<Change>, Refusal> {
    let Some(info) = body.object("poolInfo") else { return Ok(None) };
    match given(&info)? {
        Some(given) => Ok(Some(Change::Own(auto_pool::PoolChange { given: given.shown, is_whole }))),
        None => Ok(Some(Change::Named(info.required_id("poolId")))),
    }
}

#[cfg(test)]
mod tests {
    use model::refusal::Code::{self, *};

    use super::*;
    use crate::body::tried;

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
        let body = json!({"id": "j", "poolInfo": info});
        let property = |refusal: &Refusal| refusal.values.iter().find(|(name, _)| name == "PropertyName").map(|(_, path)| path.clone());
        tried("JobAddParameter", &body, |body| read(&body, is_scheduled)).map_err(|refusal| (refusal.code, property(&refusal)))
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
}
