//! Tries every property of every shape that creates something, and compares the result with its entry.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    job::{JobChange, NewJob},
    pool::PoolChange,
    refusal::{Code, Refusal},
    task::NewTask,
};
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    body::{Object, tried},
    jobs, pools, schedules,
    schema::{Kind, Property},
    tasks,
};

/// Properties that act only together with another one, which is tried.
const TOGETHER: &[&str] = &["enableAutoScale"];

type Read = fn(Object<'_>) -> Result<String, Refusal>;

/// What was read, without the document that GET shows.
fn acting(read: &impl std::fmt::Debug) -> String {
    let mut text = format!("{read:?}");
    while let Some(start) = text.find("document: \"") {
        let from = start + "document: \"".len();
        let mut is_escaped = false;
        let end = text[from..].find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        text.replace_range(start..from + end.expect("a text ends") + 1, "document");
    }
    text
}

/// A job without its manager's document.
fn bare(mut job: NewJob) -> NewJob {
    if let Some(manager) = &mut job.manager {
        manager.task.document = Default::default();
    }
    job
}

fn pool(body: Object<'_>) -> Result<String, Refusal> {
    pools::body::read(body).map(|pool| acting(&pool))
}

fn job(body: Object<'_>) -> Result<String, Refusal> {
    jobs::body::read(body).map(|job| acting(&bare(job)))
}

fn task(body: Object<'_>) -> Result<String, Refusal> {
    tasks::body::read(body).map(|task| format!("{:?}", NewTask { document: Default::default(), ..task }))
}

fn schedule(body: Object<'_>) -> Result<String, Refusal> {
    schedules::body::read(body).map(|schedule| acting(&(&schedule.id, schedule.timetable, bare(schedule.job))))
}

fn resize(body: Object<'_>) -> Result<String, Refusal> {
    pools::body::resize(body)
        .map(|resize| format!("{:?} {:?} {:?} {:?}", resize.dedicated, resize.low_priority, resize.timeout, resize.option))
}

fn removal(body: Object<'_>) -> Result<String, Refusal> {
    let removal = pools::body::removal(body);
    Ok(format!("{:?} {:?} {:?}", removal.nodes, removal.option, removal.timeout))
}

fn patch(body: Object<'_>) -> Result<String, Refusal> {
    pools::change::patch(body).map(|change| format!("{:?}", PoolChange { fields: Map::new(), needs_no_nodes: None, ..change }))
}

fn replacement(body: Object<'_>) -> Result<String, Refusal> {
    pools::change::replacement(body).map(|change| format!("{:?}", PoolChange { fields: Map::new(), ..change }))
}

fn job_patch(body: Object<'_>) -> Result<String, Refusal> {
    jobs::body::change(body, false).map(|change| format!("{:?}", JobChange { fields: Default::default(), ..change }))
}

fn job_update(body: Object<'_>) -> Result<String, Refusal> {
    jobs::body::change(body, true).map(|change| format!("{:?}", JobChange { fields: Default::default(), ..change }))
}

fn schedule_patch(body: Object<'_>) -> Result<String, Refusal> {
    let id = "named".parse().expect("an id");
    schedules::body::change(body, &id, false).map(|change| acting(&(change.timetable, change.job.map(bare))))
}

fn schedule_update(body: Object<'_>) -> Result<String, Refusal> {
    let id = "named".parse().expect("an id");
    schedules::body::change(body, &id, true).map(|change| acting(&(change.timetable, change.job.map(bare))))
}

/// Bodies that contain every optional object.
fn roots() -> Vec<(&'static str, Read, Vec<Value>)> {
    let files = json!([
        {"httpUrl": "http://h/x", "filePath": "x"}, {"blobSource": "http://h/y", "filePath": "y"}, {"storageContainerUrl": "s3://box/p"}, {"autoStorageContainerName": "box"},
    ]);
    let identity = json!({"autoUser": {}});
    let settings = json!([{"name": "A", "value": "b"}]);
    let packages = json!([{"applicationId": "app"}]);
    let machine = json!({
        "imageReference": {"publisher": "a", "offer": "b", "sku": "c"}, "nodeAgentSKUId": "d", "nodePlacementConfiguration": {},
        "securityProfile": {"uefiSettings": {}},
    });
    let sized = json!({
        "vmSize": "x", "virtualMachineConfiguration": machine, "targetDedicatedNodes": 1, "applicationPackageReferences": packages,
        "startTask": {"commandLine": "x", "resourceFiles": files, "environmentSettings": settings, "userIdentity": identity},
        "networkConfiguration": {"publicIPAddressConfiguration": {}}, "taskSchedulingPolicy": {"nodeFillType": "spread"},
        "upgradePolicy": {"mode": "manual", "automaticOSUpgradePolicy": {}, "rollingUpgradePolicy": {}},
    });
    let mut scaled = sized.clone();
    scaled.as_object_mut().unwrap().remove("targetDedicatedNodes");
    scaled["enableAutoScale"] = json!(true);
    scaled["autoScaleFormula"] = json!("$TargetDedicatedNodes=1;");
    let named = |body: &Value| {
        let mut body = body.clone();
        body["id"] = json!("named");
        body
    };
    let bare = json!({
        "commandLine": "x", "resourceFiles": files, "environmentSettings": settings, "userIdentity": identity, "constraints": {},
    });
    let mut work = named(&bare);
    work["outputFiles"] = json!([{
        "filePattern": "*", "destination": {"container": {"containerUrl": "s3://box/p", "uploadHeaders": [{"name": "content-type", "value": "a/b"}]}},
        "uploadOptions": {"uploadCondition": "tasksuccess"},
    }]);
    work["applicationPackageReferences"] = packages.clone();
    work["authenticationTokenSettings"] = json!({});
    work["piecework"] = json!({});
    let option = json!({"jobAction": "none"});
    let mut depending = work.clone();
    depending["dependsOn"] = json!({"taskIds": ["a"], "taskIdRanges": [{"start": 1, "end": 2}]});
    depending["exitConditions"] = json!({
        "exitCodes": [{"code": 1, "exitOptions": option}], "exitCodeRanges": [{"start": 1, "end": 9, "exitOptions": option}],
        "preProcessingError": {}, "fileUploadError": {}, "default": {},
    });
    let release = json!({"commandLine": "x", "resourceFiles": files, "environmentSettings": settings, "userIdentity": identity});
    let job_of = |pool: Value| {
        json!({
            "poolInfo": pool, "constraints": {}, "commonEnvironmentSettings": settings, "jobManagerTask": work, "jobPreparationTask": bare,
            "jobReleaseTask": release,
        })
    };
    let (on_pool, own) = (job_of(json!({"poolId": "p"})), |pool: &Value| {
        job_of(json!({"autoPoolSpecification": {"poolLifetimeOption": "job", "pool": pool}}))
    });
    let scheduled = |job: &Value| json!({"id": "named", "schedule": {}, "jobSpecification": job});
    vec![
        ("PoolAddParameter", pool, vec![named(&sized), named(&scaled)]),
        ("TaskAddParameter", task, vec![depending]),
        ("JobAddParameter", job, vec![named(&on_pool), named(&own(&sized)), named(&own(&scaled))]),
        ("JobScheduleAddParameter", schedule, vec![scheduled(&on_pool), scheduled(&own(&sized)), scheduled(&own(&scaled))]),
        ("PoolPatchParameter", patch, vec![sized.clone()]),
        (
            "PoolUpdatePropertiesParameter",
            replacement,
            vec![json!({"startTask": sized["startTask"], "applicationPackageReferences": packages, "metadata": []})],
        ),
        ("JobPatchParameter", job_patch, vec![json!({"poolInfo": {"poolId": "p"}, "constraints": {}})]),
        ("JobUpdateParameter", job_update, vec![json!({"poolInfo": {"poolId": "p"}, "constraints": {}})]),
        ("JobSchedulePatchParameter", schedule_patch, vec![scheduled(&on_pool)]),
        ("JobScheduleUpdateParameter", schedule_update, vec![scheduled(&on_pool)]),
        ("JobDisableParameter", |body| Ok(format!("{:?}", jobs::body::disable(body))), vec![json!({"disableTasks": "wait"})]),
        ("TaskUpdateParameter", |body| Ok(format!("{:?}", tasks::body::constraints(&body))), vec![json!({"constraints": {}})]),
        ("PoolEnableAutoScaleParameter", |body| pools::scaling_body::enable(&body).map(|given| format!("{given:?}")), vec![json!({})]),
        ("QueuePolicy", |body| pools::body::policy(body).map(|policy| format!("{policy:?}")), vec![json!({"maxNodes": 4})]),
        ("PoolResizeParameter", resize, vec![json!({"targetDedicatedNodes": 1})]),
        ("NodeRemoveParameter", removal, vec![json!({"nodeList": ["a"]})]),
    ]
}

/// Values to try where the type alone is not enough.
fn special(name: &str) -> Option<[Value; 2]> {
    let pair = match name {
        "filePath" => ["in/a", "in/b"],
        "fileMode" => ["0700", "0711"],
        "httpUrl" | "blobSource" => ["http://h/1", "http://h/2"],
        "storageContainerUrl" | "containerUrl" => ["s3://box/1", "s3://box/2"],
        "autoScaleFormula" => ["$TargetDedicatedNodes=2;", "$TargetDedicatedNodes=3;"],
        "maxTasksPerNode" | "taskSlotsPerNode" => return Some([json!(2), json!(3)]),
        "imageReference" => {
            return Some(["1", "2"].map(|sku| json!({"publisher": "a", "offer": "b", "sku": sku})));
        }
        "azureBlobFileSystemConfiguration" => {
            return Some(
                ["a", "b"].map(|name| json!({"accountName": name, "containerName": "c", "relativeMountPath": "m", "sasKey": "s"})),
            );
        }
        // Within the bounds that another property sets.
        "start" => return Some([json!(0), json!(1)]),
        "end" => return Some([json!(11), json!(12)]),
        _ => return None,
    };
    Some(pair.map(Value::from))
}

fn samples(name: &str, kind: &Kind) -> Vec<Value> {
    if let Some(pair) = special(name) {
        return pair.to_vec();
    }
    match kind {
        Kind::List(inner, ..) => samples(name, inner).into_iter().map(|item| json!([item])).collect(),
        Kind::Id | Kind::Version | Kind::Text(..) | Kind::Formula => vec![json!("sample1"), json!("sample2")],
        Kind::Word(words) => words.iter().map(|word| json!(word)).collect(),
        Kind::Flag => vec![json!(true), json!(false)],
        Kind::Int { least, .. } => [1, 2].map(|more| json!(least.clamp(&1, &1_000) + more)).to_vec(),
        Kind::Period(..) => vec![json!("PT6M"), json!("PT7M")],
        Kind::Time => vec![json!("2099-01-01T00:00:00Z"), json!("2099-01-02T00:00:00Z")],
        Kind::Texts(_) => vec![json!({"a": "1"}), json!({"a": "2"})],
        Kind::Float | Kind::Any | Kind::Object => vec![json!({"x": 1}), json!({"x": 2})],
        Kind::Shape(_) => vec![whole(kind.object().unwrap())],
    }
}

/// An object of a shape with its required properties, or else with its first one.
fn whole(shape: &Shape) -> Value {
    let needed: Vec<_> = shape.properties.iter().filter(|property| property.is_required).collect();
    let given = if needed.is_empty() { vec![&shape.properties[0]] } else { needed };
    Value::Object(given.into_iter().map(|property| (property.name.to_owned(), samples(property.name, &property.kind).remove(0))).collect())
}

/// The results of trying one property in all bodies.
#[derive(Default)]
struct Seen {
    acts: bool,
    is_refused: bool,
    is_taken: bool,
    is_entered: bool,
}

impl Seen {
    /// Tries values of the properties of the object at `pointer`.
    fn try_out(&mut self, (root, read): (&str, Read), bodies: &[Value], pointer: &str, name: &str, values: &[Value]) {
        for body in bodies {
            let Some(Value::Object(_)) = body.pointer(pointer) else { continue };
            let mut outcomes = BTreeSet::new();
            for value in values.iter().map(Some).chain([None]) {
                let mut body = body.clone();
                let fields = body.pointer_mut(pointer).and_then(Value::as_object_mut).expect("it is an object");
                match value {
                    Some(value) => drop(fields.insert(name.to_owned(), value.clone())),
                    None => drop(fields.remove(name)),
                }
                match tried(root, &body, read) {
                    Ok(outcome) => {
                        self.is_taken |= value.is_some();
                        outcomes.insert(outcome);
                    }
                    Err(refusal) => self.is_refused |= refusal.code == Code::UnsupportedProperty,
                }
            }
            self.acts |= outcomes.len() > 1;
        }
    }
}

/// Properties by shape and name.
type Found = BTreeMap<(&'static str, &'static str), (&'static Property, Seen)>;

/// Pointers of the objects of a property.
fn within(bodies: &[Value], pointer: &str, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for body in bodies {
        match body.pointer(&format!("{pointer}/{name}")) {
            Some(Value::Object(_)) => drop(found.insert(format!("{pointer}/{name}"))),
            Some(Value::Array(items)) => found.extend((0..items.len()).map(|index| format!("{pointer}/{name}/{index}"))),
            _ => {}
        }
    }
    found
}

fn walk(shape: &'static Shape, pointers: &BTreeSet<String>, root: (&str, Read), bodies: &[Value], found: &mut Found) {
    for property in &shape.properties {
        let values = samples(property.name, &property.kind);
        let (_, seen) = found.entry((shape.name, property.name)).or_insert_with(|| (property, Seen::default()));
        for pointer in pointers {
            seen.try_out(root, bodies, pointer, property.name, &values);
        }
        let inner = property.kind.inner().filter(|_| matches!(property.effect, Effect::Acts | Effect::Refused(..)));
        let inside: BTreeSet<String> = pointers.iter().flat_map(|pointer| within(bodies, pointer, property.name)).collect();
        if let Some(inner) = inner.filter(|_| !inside.is_empty()) {
            seen.is_entered = true;
            walk(inner, &inside, root, bodies, found);
        }
    }
}

/// How the results differ from a property's entry.
fn fault(property: &Property, seen: &Seen) -> Option<&'static str> {
    let is_idle = matches!(property.effect, Effect::Ignored(_) | Effect::Label);
    let is_shape = property.kind.inner().is_some();
    match seen {
        Seen { acts: true, .. } if is_idle => Some("acts, and its entry says that it does not"),
        Seen { is_taken: false, .. } if is_idle => Some("was never taken here, so that nothing is known of it"),
        Seen { is_refused: false, is_taken: true, .. } if matches!(property.effect, Effect::Refused(..)) => {
            Some("is not refused, as its entry says")
        }
        _ if is_idle || matches!(property.effect, Effect::Refused(..)) || TOGETHER.contains(&property.name) => None,
        Seen { is_entered: false, is_refused: false, .. } if is_shape => Some("is in no body of this test"),
        Seen { acts: false, is_refused: false, is_taken: true, .. } if !is_shape => {
            Some("is taken and does nothing: act on it, or say in its entry that it is ignored or refused")
        }
        _ => None,
    }
}

#[test]
fn every_property_does_what_its_entry_says() {
    let mut found = Found::new();
    for (shape, read, bodies) in roots() {
        for body in &bodies {
            if let Err(refusal) = tried(shape, body, read) {
                panic!("the body of {shape} is refused: {refusal:?}");
            }
        }
        walk(schema::shape(shape), &BTreeSet::from([String::new()]), (shape, read), &bodies, &mut found);
    }
    let told = found.iter().filter_map(|((shape, name), (property, seen))| Some(format!("{shape}.{name} {}", fault(property, seen)?)));
    let faults: Vec<String> = told.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn paths_lead_into_objects_and_stop_at_pools_that_jobs_bring_along() {
    assert!(paths("PoolAddParameter").contains(&"`virtualMachineConfiguration.osDisk`".to_owned()));
    assert_eq!(paths("TaskAddCollectionParameter"), ["`value.affinityInfo`", "`value.userIdentity.autoUser`"]);
    assert!(paths("JobAddParameter").contains(&"of `poolInfo.autoPoolSpecification.pool` what pool.add has".to_owned()));
}
