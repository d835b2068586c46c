//! Reads a task as it is asked for, and writes the document that GET shows.

use std::collections::HashSet;

use broker_config::{
    blobs::BlobHeaders,
    ids::TaskId,
    period::Period,
    spec::{
        EnvironmentSetting, HttpHeader, OutputContainer, OutputDestination, OutputFile, PackageReference, ResourceFile, TaskConstraints,
        TaskSpec, UploadCondition, UploadOptions,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    command::{DependencyAction, ExitCode, ExitCodeRange, ExitConditions, ExitOptions, JobAction, NewTask},
    engine::shown_constraints,
    http::{
        shared_body::{
            COMMAND_LINE_MAX, ITEMS_MAX, display_name, environment, packages, path_fault, resource_files, retries, url, user_identity,
        },
        validate::{Object, prune},
    },
    refusal::{Code, Refusal},
    task_token,
};

/// Characters of all ids a task depends on.
const DEPENDENCY_CHARS_MAX: usize = 64_000;
/// Tasks one task may depend on, ranges counted out.
const DEPENDENCIES_MAX: u64 = 10_000;
/// Slots a task may want: those of the largest node.
const SLOTS_MAX: i64 = 256;
/// Characters of a name or value among the headers of an upload.
const HEADER_CHARS_MAX: usize = 2_048;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    command_line: &'a str,
    #[serde(skip_serializing_if = "<[ResourceFile]>::is_empty")]
    resource_files: &'a [ResourceFile],
    #[serde(skip_serializing_if = "<[OutputFile]>::is_empty")]
    output_files: &'a [OutputFile],
    #[serde(skip_serializing_if = "<[EnvironmentSetting]>::is_empty")]
    environment_settings: &'a [EnvironmentSetting],
    #[serde(skip_serializing_if = "<[PackageReference]>::is_empty")]
    application_package_references: &'a [PackageReference],
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity_info: Option<Value>,
    constraints: TaskConstraints,
    required_slots: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_identity: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depends_on: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_conditions: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_token_settings: Option<Value>,
}

/// Reads one task.
pub fn read(body: Object<'_>) -> Result<NewTask, Refusal> {
    let id: TaskId = body.required("id")?;
    body.unsupported(&["containerSettings"], "Tasks run as processes of the node; containers are not served yet.")?;
    body.unsupported(&["multiInstanceSettings"], "Multi-instance tasks are not served yet.")?;
    let token_settings = token_settings(&body)?;
    let constraints = constraints(&body)?;
    let mut spec = TaskSpec {
        command_line: body.required_text("commandLine", COMMAND_LINE_MAX)?.to_owned(),
        resource_files: resource_files(&body)?,
        output_files: output_files(&body)?,
        environment_settings: environment(&body, "environmentSettings")?,
        constraints,
        required_slots: body.integer("requiredSlots", 1..=SLOTS_MAX)?.map(|slots| slots as u32),
        application_package_references: packages(&body)?,
        ..TaskSpec::default()
    };
    if spec.command_line.trim().is_empty() {
        return Err(body.invalid("commandLine", "It may not be blank."));
    }
    let (depends_on, shown_dependencies) = dependencies(&body)?;
    if let Some(own) = depends_on.iter().find(|other| other.eq_ignore_ascii_case(id.as_str())) {
        return Err(body.invalid("dependsOn", format!("The task {own} depends on itself.")));
    }
    let exit_conditions = exit_conditions(&body)?;
    let document = Document {
        display_name: display_name(&body)?,
        command_line: &spec.command_line,
        resource_files: &spec.resource_files,
        output_files: &spec.output_files,
        environment_settings: &spec.environment_settings,
        application_package_references: &spec.application_package_references,
        affinity_info: affinity(&body)?,
        constraints: shown_constraints(constraints),
        required_slots: spec.slots(),
        user_identity: user_identity(&body)?,
        depends_on: shown_dependencies,
        exit_conditions: exit_conditions.as_ref().map(|conditions| prune(json!(conditions))),
        authentication_token_settings: token_settings.clone(),
    };
    let document = serde_json::to_string(&document).expect("a task has a JSON form");
    if token_settings.is_some() {
        spec.environment_settings.push(task_token::setting(String::new()));
    }
    Ok(NewTask { id, document, spec, depends_on, exit_conditions })
}

/// A task's limits; those that are left out have no value.
pub fn constraints(body: &Object<'_>) -> Result<TaskConstraints, Refusal> {
    let Some(given) = body.object("constraints")? else { return Ok(TaskConstraints::default()) };
    Ok(TaskConstraints {
        max_wall_clock_time: given.period("maxWallClockTime", Period::from_ms(1))?,
        retention_time: given.period("retentionTime", Period::from_ms(0))?,
        max_task_retry_count: retries(&given)?,
    })
}

/// What the task's own token shall open; `job` is all there is.
fn token_settings(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(given) = body.object(task_token::PROPERTY)? else { return Ok(None) };
    let access: Vec<String> = given.list("access", ITEMS_MAX)?.texts()?;
    match access.iter().find(|word| !word.eq_ignore_ascii_case("job")) {
        Some(_) => Err(given.invalid("access", "It must be one of: job.")),
        None => Ok((!access.is_empty()).then(|| json!({"access": ["job"]}))),
    }
}

fn affinity(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(given) = body.object("affinityInfo")? else { return Ok(None) };
    Ok(Some(json!({"affinityId": given.required_text("affinityId", 1_024)?})))
}

fn upload_headers(container: &Object<'_>) -> Result<Vec<HttpHeader>, Refusal> {
    let headers = container.list("uploadHeaders", ITEMS_MAX)?.each(|item| {
        let value = item.text("value", HEADER_CHARS_MAX)?.unwrap_or_default();
        Ok(HttpHeader { name: item.required_text("name", HEADER_CHARS_MAX)?.to_owned(), value: value.to_owned() })
    })?;
    let read = BlobHeaders::read(headers.iter().map(|header| (header.name.as_str(), header.value.as_str())));
    read.map_err(|(name, reason)| container.invalid("uploadHeaders", format!("{name}: {reason}")))?;
    Ok(headers)
}

fn output_files(body: &Object<'_>) -> Result<Vec<OutputFile>, Refusal> {
    body.list("outputFiles", ITEMS_MAX)?.each(|item| {
        let destination = item.required_object("destination")?;
        let container = destination.required_object("container")?;
        container.unsupported(&["identityReference"], "Uploads use the configured blob store's own credentials.")?;
        let Some(container_url) = url(&container, "containerUrl", &["s3://", "http://", "https://"])? else {
            return Err(container.missing("containerUrl"));
        };
        let path = container.text("path", 1_024)?;
        if let Some(reason) = path.and_then(path_fault) {
            return Err(container.invalid("path", reason));
        }
        let options = item.required_object("uploadOptions")?;
        let condition = match options.choice("uploadCondition", &["tasksuccess", "taskfailure", "taskcompletion"])? {
            None => return Err(options.missing("uploadCondition")),
            Some("tasksuccess") => UploadCondition::TaskSuccess,
            Some("taskfailure") => UploadCondition::TaskFailure,
            Some(_) => UploadCondition::TaskCompletion,
        };
        Ok(OutputFile {
            file_pattern: item.required_text("filePattern", 4_096)?.to_owned(),
            destination: OutputDestination {
                container: OutputContainer {
                    container_url: container_url.to_owned(),
                    path: path.map(str::to_owned),
                    upload_headers: upload_headers(&container)?,
                },
            },
            upload_options: UploadOptions { upload_condition: condition },
        })
    })
}

/// All ids, each once, and what GET shows.
fn dependencies(body: &Object<'_>) -> Result<(Vec<String>, Option<Value>), Refusal> {
    let Some(given) = body.object("dependsOn")? else { return Ok((Vec::new(), None)) };
    let ids: Vec<TaskId> = given.list("taskIds", DEPENDENCY_CHARS_MAX)?.texts()?;
    if ids.iter().map(|id| id.as_str().len()).sum::<usize>() > DEPENDENCY_CHARS_MAX {
        return Err(Refusal::new(
            Code::TaskDependencyListTooLong,
            "The total number of characters of the ids a task depends on exceeds the limit.",
        )
        .with("MaxLimit", DEPENDENCY_CHARS_MAX));
    }
    let ranges = given.list("taskIdRanges", ITEMS_MAX)?.each(|item| {
        let bound = |name| item.integer(name, 0..=i64::from(i32::MAX))?.ok_or_else(|| item.missing(name));
        let (start, end) = (bound("start")?, bound("end")?);
        if start > end { Err(item.invalid("end", "It must not be below start.")) } else { Ok((start, end)) }
    })?;
    let total = ids.len() as u64 + ranges.iter().map(|(start, end)| (end - start + 1) as u64).sum::<u64>();
    if total > DEPENDENCIES_MAX {
        return Err(Refusal::new(Code::TaskDependencyRangesTooLong, "The number of tasks that a task depends on exceeds the limit.")
            .with("MaxLimit", DEPENDENCIES_MAX)
            .hint("Put a task between that depends on a part of them."));
    }
    let shown_ranges: Vec<_> = ranges.iter().map(|(start, end)| json!({"start": start, "end": end})).collect();
    let shown = prune(json!({"taskIds": ids, "taskIdRanges": shown_ranges}));
    let numbers = ranges.iter().flat_map(|(start, end)| *start..=*end).map(|number| number.to_string());
    let mut seen = HashSet::new();
    let mut all: Vec<String> = ids.into_iter().map(|id| id.as_str().to_owned()).chain(numbers).collect();
    all.retain(|id| seen.insert(id.to_ascii_lowercase()));
    Ok((all, Some(shown).filter(|shown| shown != &json!({}))))
}

fn exit_options(body: &Object<'_>) -> Result<ExitOptions, Refusal> {
    let job_action = match body.choice("jobAction", &["none", "disable", "terminate"])? {
        None => None,
        Some("none") => Some(JobAction::None),
        Some("disable") => Some(JobAction::Disable),
        Some(_) => Some(JobAction::Terminate),
    };
    let dependency_action = match body.choice("dependencyAction", &["satisfy", "block"])? {
        None => None,
        Some("satisfy") => Some(DependencyAction::Satisfy),
        Some(_) => Some(DependencyAction::Block),
    };
    Ok(ExitOptions { job_action, dependency_action })
}

fn exit_conditions(body: &Object<'_>) -> Result<Option<ExitConditions>, Refusal> {
    let Some(given) = body.object("exitConditions")? else { return Ok(None) };
    const CODE: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
    let code = |item: &Object<'_>, name: &str| item.integer(name, CODE)?.map(|code| code as i32).ok_or_else(|| item.missing(name));
    let options = |name: &str| given.object(name)?.map(|options| exit_options(&options)).transpose();
    let of = |item: &Object<'_>| exit_options(&item.required_object("exitOptions")?);
    Ok(Some(ExitConditions {
        exit_codes: given
            .list("exitCodes", ITEMS_MAX)?
            .each(|item| Ok(ExitCode { code: code(&item, "code")?, exit_options: of(&item)? }))?,
        exit_code_ranges: given.list("exitCodeRanges", ITEMS_MAX)?.each(|item| {
            let (start, end) = (code(&item, "start")?, code(&item, "end")?);
            if start > end {
                return Err(item.invalid("end", "It must not be below start."));
            }
            Ok(ExitCodeRange { start, end, exit_options: of(&item)? })
        })?,
        pre_processing_error: options("preProcessingError")?,
        file_upload_error: options("fileUploadError")?,
        otherwise: options("default")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(body: Value) -> Result<NewTask, Refusal> {
        read(Object::root(body.as_object().unwrap()))
    }

    #[test]
    fn a_document_is_what_was_asked_for_in_azures_spelling() {
        let task = task(json!({
            "id": "T1", "commandLine": "/bin/true", "requiredSlots": "2", "unknown": 1,
            "constraints": {"maxWallClockTime": "PT05M00S", "maxTaskRetryCount": 3},
            "outputFiles": [{"filePattern": "*.txt", "destination": {"container": {"containerUrl": "s3://b/p"}}, "uploadOptions": {"uploadCondition": "TaskSuccess"}}],
            "dependsOn": {"taskIds": ["a", "A"], "taskIdRanges": [{"start": 1, "end": 3}]},
            "exitConditions": {"exitCodes": [{"code": 7, "exitOptions": {"dependencyAction": "Satisfy"}}]},
        }))
        .unwrap();
        let document: Value = serde_json::from_str(&task.document).unwrap();
        assert_eq!(
            document,
            json!({
                "commandLine": "/bin/true", "requiredSlots": 2,
                "constraints": {"maxWallClockTime": "PT5M", "retentionTime": "P7D", "maxTaskRetryCount": 3},
                "outputFiles": [{"filePattern": "*.txt", "destination": {"container": {"containerUrl": "s3://b/p"}}, "uploadOptions": {"uploadCondition": "tasksuccess"}}],
                "dependsOn": {"taskIds": ["a", "A"], "taskIdRanges": [{"start": 1, "end": 3}]},
                "exitConditions": {"exitCodes": [{"code": 7, "exitOptions": {"dependencyAction": "satisfy"}}]},
            })
        );
        assert_eq!(task.depends_on, ["a", "1", "2", "3"]);
        assert_eq!(task.spec.constraints.max_task_retry_count, Some(3));
    }

    #[test]
    fn what_is_not_served_is_refused_and_not_ignored() {
        for (name, value) in
            [("containerSettings", json!({"imageName": "x"})), ("multiInstanceSettings", json!({"coordinationCommandLine": "x"}))]
        {
            let body = json!({"id": "t", "commandLine": "x", name: value});
            assert_eq!(task(body).unwrap_err().code, Code::UnsupportedProperty, "{name}");
        }
    }

    #[test]
    fn a_task_that_wants_a_token_is_marked_as_secret() {
        let wanting = |access: Value| task(json!({"id": "t", "commandLine": "x", "authenticationTokenSettings": {"access": access}}));
        let marked = wanting(json!(["Job"])).unwrap();
        assert!(marked.spec.holds_secrets());
        assert!(task_token::is_wanted(&marked.document));
        assert!(!marked.document.contains(task_token::VARIABLE));
        assert!(!wanting(json!([])).unwrap().spec.holds_secrets());
        assert_eq!(wanting(json!(["account"])).unwrap_err().code, Code::InvalidPropertyValue);
    }

    #[test]
    fn dependencies_are_bounded() {
        let code = |depends_on: Value| {
            task(json!({"id": "t", "commandLine": "x", "dependsOn": depends_on})).map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!(code(json!({"taskIdRanges": [{"start": 1, "end": 10_000}]})), Ok(()));
        assert_eq!(code(json!({"taskIdRanges": [{"start": 0, "end": 10_000}]})), Err(Code::TaskDependencyRangesTooLong));
        assert_eq!(code(json!({"taskIdRanges": [{"start": 0, "end": 2147483647}]})), Err(Code::TaskDependencyRangesTooLong));
        assert_eq!(code(json!({"taskIdRanges": [{"start": 2, "end": 1}]})), Err(Code::InvalidPropertyValue));
        let long: Vec<_> = (0..1001).map(|n| format!("{n:064}")).collect();
        assert_eq!(code(json!({"taskIds": long})), Err(Code::TaskDependencyListTooLong));
        assert_eq!(code(json!({"taskIds": ["T"]})), Err(Code::InvalidPropertyValue));
    }
}
