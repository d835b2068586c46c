//! Reads a task request, and writes the document that GET shows.

use std::collections::HashSet;

use clients::blobs::{BlobHeaders, KEY_BYTES_MAX};
use contract::{
    ids::TaskId,
    spec::{HttpHeader, OutputContainer, OutputDestination, OutputFile, TaskConstraints, TaskSpec, UploadCondition, UploadOptions},
};
use engine::{shown_constraints, task_token};
use model::{
    refusal::{Code, Refusal},
    task::{DependencyAction, ExitCode, ExitCodeRange, ExitConditions, ExitOptions, JobAction, NewTask},
    task_document::TaskDocument,
};
use serde_json::{Value, json};

use crate::{
    body::{Object, prune},
    shared_body::{command_line, environment, packages, path_fault, place, resource_files, user_identity},
};

/// Characters of all ids a task depends on.
const DEPENDENCY_CHARS_MAX: usize = 64_000;
/// Tasks that one task may depend on, including those in ranges.
const DEPENDENCIES_MAX: u64 = 10_000;

/// Reads one task.
pub fn read(body: Object<'_>) -> Result<NewTask, Refusal> {
    let id: TaskId = body.required_id("id");
    let constraints = constraints(&body);
    let mut spec = TaskSpec {
        command_line: command_line(&body)?,
        resource_files: resource_files(&body)?,
        output_files: output_files(&body)?,
        environment_settings: environment(&body, "environmentSettings")?,
        constraints,
        required_slots: body.integer("requiredSlots"),
        application_package_references: packages(&body)?,
        piecework: body.object("piecework").map(|given| given.plain()).unwrap_or_default(),
        ..TaskSpec::default()
    };
    let (depends_on, shown_dependencies) = dependencies(&body)?;
    if let Some(own) = depends_on.iter().find(|other| other.eq_ignore_ascii_case(id.as_str())) {
        return Err(body.invalid("dependsOn", format!("The task {own} depends on itself.")));
    }
    let exit_conditions = exit_conditions(&body)?;
    let document = TaskDocument {
        display_name: body.owned("displayName"),
        command_line: spec.command_line.clone(),
        resource_files: spec.resource_files.clone(),
        output_files: spec.output_files.clone(),
        environment_settings: spec.environment_settings.clone(),
        application_package_references: spec.application_package_references.clone(),
        affinity_info: body.object("affinityInfo").map(|given| json!({"affinityId": given.text("affinityId")})),
        constraints: shown_constraints(constraints),
        required_slots: Some(spec.slots()),
        user_identity: user_identity(&body),
        depends_on: shown_dependencies,
        exit_conditions: exit_conditions.as_ref().map(|conditions| prune(json!(conditions))),
        authentication_token_settings: token_settings(&body),
        piecework: spec.piecework.clone(),
    };
    if document.wants_token() {
        spec.environment_settings.push(task_token::setting(String::new()));
    }
    Ok(NewTask { id, document, spec, depends_on, exit_conditions })
}

/// A task's limits; `None` for those that are not given.
pub fn constraints(body: &Object<'_>) -> TaskConstraints {
    body.object("constraints").map(|given| given.plain()).unwrap_or_default()
}

/// `authenticationTokenSettings`: access to the job is the only one there is.
fn token_settings(body: &Object<'_>) -> Option<Value> {
    let access: Vec<String> = body.object("authenticationTokenSettings")?.list("access").texts();
    (!access.is_empty()).then(|| json!({"access": ["job"]}))
}

fn upload_headers(container: &Object<'_>) -> Result<Vec<HttpHeader>, Refusal> {
    let headers: Vec<HttpHeader> = container.list("uploadHeaders").map(|item| item.plain());
    let read = BlobHeaders::read(headers.iter().map(|header| (header.name.as_str(), header.value.as_str())));
    read.map_err(|(name, reason)| container.invalid("uploadHeaders", format!("{name}: {reason}")))?;
    Ok(headers)
}

fn output_files(body: &Object<'_>) -> Result<Vec<OutputFile>, Refusal> {
    body.list("outputFiles").each(|item| {
        let destination = item.required_object("destination");
        let container = destination.required_object("container");
        let Some((container_url, location)) = place(&container, "containerUrl")? else {
            return Err(container.missing("containerUrl"));
        };
        let path = container.owned("path");
        if let Some(reason) = path.as_deref().and_then(path_fault) {
            return Err(container.invalid("path", reason));
        }
        if location.prefix.len() + path.as_ref().map_or(0, |path| path.len() + 1) >= KEY_BYTES_MAX {
            return Err(container.invalid("path", format!("Container and path are longer together than a key, {KEY_BYTES_MAX} bytes.")));
        }
        let upload_condition = match item.required_object("uploadOptions").word("uploadCondition") {
            Some("tasksuccess") => UploadCondition::TaskSuccess,
            Some("taskfailure") => UploadCondition::TaskFailure,
            _ => UploadCondition::TaskCompletion,
        };
        let container = OutputContainer { container_url: container_url.to_owned(), path, upload_headers: upload_headers(&container)? };
        Ok(OutputFile {
            file_pattern: item.required_text("filePattern"),
            destination: OutputDestination { container },
            upload_options: UploadOptions { upload_condition },
        })
    })
}

/// Ids of all dependencies without repetitions, and the JSON that GET shows.
fn dependencies(body: &Object<'_>) -> Result<(Vec<String>, Option<Value>), Refusal> {
    let Some(given) = body.object("dependsOn") else { return Ok((Vec::new(), None)) };
    let ids: Vec<TaskId> = given.list("taskIds").texts();
    if ids.iter().map(|id| id.as_str().len()).sum::<usize>() > DEPENDENCY_CHARS_MAX {
        return Err(Refusal::new(
            Code::TaskDependencyListTooLong,
            "The total number of characters of the ids a task depends on exceeds the limit.",
        )
        .with("MaxLimit", DEPENDENCY_CHARS_MAX));
    }
    let ranges = given.list("taskIdRanges").each(|item| {
        let (start, end): (i64, i64) = (item.required_integer("start"), item.required_integer("end"));
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

fn exit_options(body: &Object<'_>) -> ExitOptions {
    let job_action = body.word("jobAction").map(|word| match word {
        "none" => JobAction::None,
        "disable" => JobAction::Disable,
        _ => JobAction::Terminate,
    });
    let dependency_action =
        body.word("dependencyAction").map(|word| if word == "satisfy" { DependencyAction::Satisfy } else { DependencyAction::Block });
    ExitOptions { job_action, dependency_action }
}

fn exit_conditions(body: &Object<'_>) -> Result<Option<ExitConditions>, Refusal> {
    let Some(given) = body.object("exitConditions") else { return Ok(None) };
    let options = |name: &str| given.object(name).map(|options| exit_options(&options));
    let of = |item: &Object<'_>| exit_options(&item.required_object("exitOptions"));
    Ok(Some(ExitConditions {
        exit_codes: given.list("exitCodes").map(|item| ExitCode { code: item.required_integer("code"), exit_options: of(&item) }),
        exit_code_ranges: given.list("exitCodeRanges").each(|item| {
            let range = ExitCodeRange { start: item.required_integer("start"), end: item.required_integer("end"), exit_options: of(&item) };
            if range.start > range.end { Err(item.invalid("end", "It must not be below start.")) } else { Ok(range) }
        })?,
        pre_processing_error: options("preProcessingError"),
        file_upload_error: options("fileUploadError"),
        otherwise: options("default"),
    }))
}

#[cfg(test)]
mod tests {
    use contract::{period::Period, spec::TaskExtensions};

    use super::*;
    use crate::body::tried;

    fn task(body: Value) -> Result<NewTask, Refusal> {
        tried("TaskAddParameter", &body, read)
    }

    #[test]
    fn a_document_is_what_was_asked_for_in_azures_spelling() {
        let task = task(json!({
            "id": "T1", "commandLine": "/bin/true", "requiredSlots": "2", "unknown": 1,
            "constraints": {"maxWallClockTime": "PT05M00S", "maxTaskRetryCount": 3},
            "outputFiles": [{"filePattern": "*.txt", "destination": {"container": {"containerUrl": "s3://box/p"}}, "uploadOptions": {"uploadCondition": "TaskSuccess"}}],
            "dependsOn": {"taskIds": ["a", "A"], "taskIdRanges": [{"start": 1, "end": 3}]},
            "exitConditions": {"exitCodes": [{"code": 7, "exitOptions": {"dependencyAction": "Satisfy"}}]},
        }))
        .unwrap();
        let document = serde_json::to_value(&task.document).unwrap();
        assert_eq!(
            document,
            json!({
                "commandLine": "/bin/true", "requiredSlots": 2,
                "constraints": {"maxWallClockTime": "PT5M", "retentionTime": "P7D", "maxTaskRetryCount": 3},
                "outputFiles": [{"filePattern": "*.txt", "destination": {"container": {"containerUrl": "s3://box/p"}}, "uploadOptions": {"uploadCondition": "tasksuccess"}}],
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
    fn our_own_settings_are_kept_and_checked() {
        let with = |piecework: Value| task(json!({"id": "t", "commandLine": "x", "piecework": piecework}));
        let both = with(json!({"freshDirectory": true, "killGrace": "PT1M30S"})).unwrap();
        assert_eq!(
            both.spec.piecework,
            TaskExtensions { fresh_directory: true, kill_grace: Some(Period::from_secs(90)), traceparent: None }
        );
        assert_eq!(serde_json::to_value(&both.document).unwrap()["piecework"], json!({"freshDirectory": true, "killGrace": "PT1M30S"}));
        assert!(!with(json!({})).unwrap().document.text().contains("piecework"));
        for wrong in [json!({"freshDirectory": "maybe"}), json!({"killGrace": "PT11M"}), json!({"killGrace": 2}), json!(true)] {
            assert!(with(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_task_that_wants_a_token_is_marked_as_secret() {
        let wanting = |access: Value| task(json!({"id": "t", "commandLine": "x", "authenticationTokenSettings": {"access": access}}));
        let marked = wanting(json!(["Job"])).unwrap();
        assert!(marked.spec.holds_secrets());
        assert!(marked.document.wants_token());
        assert!(!marked.document.text().contains(task_token::VARIABLE));
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
