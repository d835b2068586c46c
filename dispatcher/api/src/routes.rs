//! The table of all operations: method, path, parameters, and whether they are supported.
//!
//! The pipeline matches the raw path, so that `%2F` stays inside its segment. The compatibility page is made from the
//! same table.

use http::Method;
use model::refusal::{Code, Refusal};
use percent_encoding::percent_decode_str;

use crate::{answer::Answer, conditional::Honours, operation::Operation};

/// Whether an operation is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By this handler.
    Yes(Operation),
    /// Not yet; with what to do instead.
    NotYet(&'static str),
}

/// An operation of the API.
#[derive(Debug, Clone)]
pub struct Route {
    /// Azure's name of the operation, or Piecework's own.
    pub name: &'static str,
    pub method: Method,
    /// Path; `{x}` stands for one segment, `{x*}` for all that remain.
    pub path: &'static str,
    /// Query parameters beyond api-version and timeout.
    pub query: &'static [&'static str],
    /// The conditional headers that it supports.
    pub honours: Honours,
    /// Whether it is supported, and by which handler.
    pub served: Served,
}

impl Route {
    /// Whether the operation is Piecework's own, outside Azure's versions.
    pub fn is_ours(&self) -> bool {
        self.path.starts_with("/piecework/") || self.path == "/metrics"
    }

    /// Whether it needs no authentication.
    pub fn is_open(&self) -> bool {
        matches!(self.path, "/piecework/health" | "/piecework/openapi.json" | "/metrics" | HOOKS)
    }
}

/// The path of requests that triggers check by their own secrets.
const HOOKS: &str = "/piecework/hooks/{trigger}";
const F_M: &[&str] = &["$filter", "maxresults", "$skiptoken"];
const F_S_M: &[&str] = &["$filter", "$select", "maxresults", "$skiptoken"];
const F_S_E_M: &[&str] = &["$filter", "$select", "$expand", "maxresults", "$skiptoken"];
const U: &[&str] = &["starttime", "endtime", "$filter", "maxresults", "$skiptoken"];
const M: &[&str] = &["maxresults", "$skiptoken"];
const T: &[&str] = &["$skiptoken"];
const COUNT: &[&str] = &["count"];
const LETTERS: &[&str] = &["pool", "function", "reason", "kind", "olderthan", "newerthan", "count"];
const LETTERS_ALL: &[&str] = &["pool", "function", "reason", "kind", "olderthan", "newerthan", "all"];
const S: &[&str] = &["$select"];
const S_M: &[&str] = &["$select", "maxresults", "$skiptoken"];
const S_E: &[&str] = &["$select", "$expand"];
const R: &[&str] = &["recursive"];
const R_F_M: &[&str] = &["recursive", "$filter", "maxresults", "$skiptoken"];
const FORCE: &[&str] = &["force"];
const NONE: &[&str] = &[];

use Honours::{All, Nothing, Times};
use Served::Yes;

macro_rules! table {
    ($($name:literal $method:ident $path:literal $query:ident $honours:ident $served:expr;)+) => {
        /// All operations; when two match a path, the first one counts.
        pub const ROUTES: &[Route] = &[$(Route {
            name: $name, method: Method::$method, path: $path, query: $query, honours: $honours, served: $served,
        }),+];
    };
}

table! {
    "account.list_supported_images" GET "/supportedimages" F_M Nothing Yes(Operation::ImagesList);
    "account.list_node_agent_skus" GET "/nodeagentskus" F_M Nothing Yes(Operation::AgentsList);
    "account.list_pool_node_counts" GET "/nodecounts" F_M Nothing Yes(Operation::NodeCounts);
    "application.list" GET "/applications" M Nothing Yes(Operation::ApplicationsList);
    "application.get" GET "/applications/{application}" NONE Nothing Yes(Operation::ApplicationGet);
    "pool.list_usage_metrics" GET "/poolusagemetrics" U Nothing Yes(Operation::UsageMetrics);
    "pool.add" POST "/pools" NONE Nothing Yes(Operation::PoolAdd);
    "pool.list" GET "/pools" F_S_E_M Nothing Yes(Operation::PoolList);
    "pool.delete" DELETE "/pools/{pool}" NONE All Yes(Operation::PoolDelete);
    "pool.exists" HEAD "/pools/{pool}" NONE All Yes(Operation::PoolExists);
    "pool.get" GET "/pools/{pool}" S_E All Yes(Operation::PoolGet);
    "pool.patch" PATCH "/pools/{pool}" NONE All Yes(Operation::PoolPatch);
    "pool.disable_auto_scale" POST "/pools/{pool}/disableautoscale" NONE Nothing Yes(Operation::PoolDisableScaling);
    "pool.enable_auto_scale" POST "/pools/{pool}/enableautoscale" NONE All Yes(Operation::PoolEnableScaling);
    "pool.evaluate_auto_scale" POST "/pools/{pool}/evaluateautoscale" NONE Nothing Yes(Operation::PoolEvaluateScaling);
    "pool.resize" POST "/pools/{pool}/resize" NONE All Yes(Operation::PoolResize);
    "pool.stop_resize" POST "/pools/{pool}/stopresize" NONE All Yes(Operation::PoolStopResize);
    "pool.update_properties" POST "/pools/{pool}/updateproperties" NONE Nothing Yes(Operation::PoolUpdateProperties);
    "pool.remove_nodes" POST "/pools/{pool}/removenodes" NONE All Yes(Operation::PoolRemoveNodes);
    "compute_node.add_user" POST "/pools/{pool}/nodes/{node}/users" NONE Nothing Yes(Operation::NodeUserAdd);
    "compute_node.delete_user" DELETE "/pools/{pool}/nodes/{node}/users/{user}" NONE Nothing Yes(Operation::NodeUserDelete);
    "compute_node.update_user" PUT "/pools/{pool}/nodes/{node}/users/{user}" NONE Nothing Yes(Operation::NodeUserUpdate);
    "compute_node.get" GET "/pools/{pool}/nodes/{node}" S Nothing Yes(Operation::NodeGet);
    "compute_node.reboot" POST "/pools/{pool}/nodes/{node}/reboot" NONE Nothing Yes(Operation::NodeReboot);
    "compute_node.reimage" POST "/pools/{pool}/nodes/{node}/reimage" NONE Nothing Yes(Operation::NodeReimage);
    "compute_node.start" POST "/pools/{pool}/nodes/{node}/start" NONE Nothing Yes(Operation::NodeStart);
    "compute_node.deallocate" POST "/pools/{pool}/nodes/{node}/deallocate" NONE Nothing Yes(Operation::NodeDeallocate);
    "compute_node.disable_scheduling" POST "/pools/{pool}/nodes/{node}/disablescheduling" NONE Nothing Yes(Operation::NodeDisableScheduling);
    "compute_node.enable_scheduling" POST "/pools/{pool}/nodes/{node}/enablescheduling" NONE Nothing Yes(Operation::NodeEnableScheduling);
    "compute_node.get_remote_login_settings" GET "/pools/{pool}/nodes/{node}/remoteloginsettings" NONE Nothing Yes(Operation::NodeRemoteLogin);
    "compute_node.get_remote_desktop" GET "/pools/{pool}/nodes/{node}/rdp" NONE Nothing Yes(Operation::RemoteDesktop);
    "compute_node.upload_batch_service_logs" POST "/pools/{pool}/nodes/{node}/uploadbatchservicelogs" NONE Nothing Yes(Operation::NodeUploadLogs);
    "compute_node.list" GET "/pools/{pool}/nodes" F_S_M Nothing Yes(Operation::NodeList);
    "compute_node_extension.get" GET "/pools/{pool}/nodes/{node}/extensions/{extension}" S Nothing Yes(Operation::NodeExtensionGet);
    "compute_node_extension.list" GET "/pools/{pool}/nodes/{node}/extensions" S_M Nothing Yes(Operation::NodeExtensionsList);
    "job.delete" DELETE "/jobs/{job}" FORCE All Yes(Operation::JobDelete);
    "job.get" GET "/jobs/{job}" S_E All Yes(Operation::JobGet);
    "job.patch" PATCH "/jobs/{job}" NONE All Yes(Operation::JobPatch);
    "job.update" PUT "/jobs/{job}" NONE All Yes(Operation::JobUpdate);
    "job.disable" POST "/jobs/{job}/disable" NONE All Yes(Operation::JobDisable);
    "job.enable" POST "/jobs/{job}/enable" NONE All Yes(Operation::JobEnable);
    "job.terminate" POST "/jobs/{job}/terminate" FORCE All Yes(Operation::JobTerminate);
    "job.add" POST "/jobs" NONE Nothing Yes(Operation::JobAdd);
    "job.list" GET "/jobs" F_S_E_M Nothing Yes(Operation::JobList);
    "job.list_from_job_schedule" GET "/jobschedules/{schedule}/jobs" F_S_E_M Nothing Yes(Operation::ScheduleJobs);
    "job.list_preparation_and_release_task_status" GET "/jobs/{job}/jobpreparationandreleasetaskstatus" F_S_M Nothing Yes(Operation::JobPreparationStatus);
    "job.get_task_counts" GET "/jobs/{job}/taskcounts" NONE Nothing Yes(Operation::TaskCounts);
    "job_schedule.exists" HEAD "/jobschedules/{schedule}" NONE All Yes(Operation::ScheduleExists);
    "job_schedule.delete" DELETE "/jobschedules/{schedule}" FORCE All Yes(Operation::ScheduleDelete);
    "job_schedule.get" GET "/jobschedules/{schedule}" S_E All Yes(Operation::ScheduleGet);
    "job_schedule.patch" PATCH "/jobschedules/{schedule}" NONE All Yes(Operation::SchedulePatch);
    "job_schedule.update" PUT "/jobschedules/{schedule}" NONE All Yes(Operation::ScheduleUpdate);
    "job_schedule.disable" POST "/jobschedules/{schedule}/disable" NONE All Yes(Operation::ScheduleDisable);
    "job_schedule.enable" POST "/jobschedules/{schedule}/enable" NONE All Yes(Operation::ScheduleEnable);
    "job_schedule.terminate" POST "/jobschedules/{schedule}/terminate" FORCE All Yes(Operation::ScheduleTerminate);
    "job_schedule.add" POST "/jobschedules" NONE Nothing Yes(Operation::ScheduleAdd);
    "job_schedule.list" GET "/jobschedules" F_S_E_M Nothing Yes(Operation::ScheduleList);
    "task.add" POST "/jobs/{job}/tasks" NONE Nothing Yes(Operation::TaskAdd);
    "task.list" GET "/jobs/{job}/tasks" F_S_E_M Nothing Yes(Operation::TaskList);
    "task.add_collection" POST "/jobs/{job}/addtaskcollection" NONE Nothing Yes(Operation::TaskAddCollection);
    "task.delete" DELETE "/jobs/{job}/tasks/{task}" NONE All Yes(Operation::TaskDelete);
    "task.get" GET "/jobs/{job}/tasks/{task}" S_E All Yes(Operation::TaskGet);
    "task.update" PUT "/jobs/{job}/tasks/{task}" NONE All Yes(Operation::TaskUpdate);
    "task.list_subtasks" GET "/jobs/{job}/tasks/{task}/subtasksinfo" S Nothing Yes(Operation::SubtaskList);
    "task.terminate" POST "/jobs/{job}/tasks/{task}/terminate" NONE All Yes(Operation::TaskTerminate);
    "task.reactivate" POST "/jobs/{job}/tasks/{task}/reactivate" NONE All Yes(Operation::TaskReactivate);
    "file.list_from_task" GET "/jobs/{job}/tasks/{task}/files" R_F_M Nothing Yes(Operation::TaskFileList);
    "file.delete_from_task" DELETE "/jobs/{job}/tasks/{task}/files/{file*}" R Nothing Yes(Operation::TaskFileDelete);
    "file.get_from_task" GET "/jobs/{job}/tasks/{task}/files/{file*}" NONE Times Yes(Operation::TaskFileGet);
    "file.get_properties_from_task" HEAD "/jobs/{job}/tasks/{task}/files/{file*}" NONE Times Yes(Operation::TaskFileHead);
    "file.list_from_compute_node" GET "/pools/{pool}/nodes/{node}/files" R_F_M Nothing Yes(Operation::NodeFileList);
    "file.delete_from_compute_node" DELETE "/pools/{pool}/nodes/{node}/files/{file*}" R Nothing Yes(Operation::NodeFileDelete);
    "file.get_from_compute_node" GET "/pools/{pool}/nodes/{node}/files/{file*}" NONE Times Yes(Operation::NodeFileGet);
    "file.get_properties_from_compute_node" HEAD "/pools/{pool}/nodes/{node}/files/{file*}" NONE Times Yes(Operation::NodeFileHead);
    "certificate.add" POST "/certificates" NONE Nothing Yes(Operation::CertificateAdd);
    "certificate.list" GET "/certificates" F_S_M Nothing Yes(Operation::NothingList);
    "certificate.cancel_deletion" POST "/certificates(*)/canceldelete" NONE Nothing Yes(Operation::CertificateNone);
    "certificate.delete" DELETE "/certificates(*)" NONE Nothing Yes(Operation::CertificateNone);
    "certificate.get" GET "/certificates(*)" S Nothing Yes(Operation::CertificateNone);
    "piecework.health" GET "/piecework/health" NONE Nothing Yes(Operation::Health);
    "piecework.list_unreadable" GET "/piecework/unreadable" T Nothing Yes(Operation::UnreadableList);
    "piecework.metrics" GET "/metrics" NONE Nothing Yes(Operation::Metrics);
    "piecework.explain_pool" GET "/piecework/pools/{pool}" NONE Nothing Yes(Operation::PoolView);
    "piecework.get_policy" GET "/piecework/pools/{pool}/policy" NONE Nothing Yes(Operation::PolicyGet);
    "piecework.set_policy" PUT "/piecework/pools/{pool}/policy" NONE Nothing Yes(Operation::PolicySet);
    "piecework.remove_policy" DELETE "/piecework/pools/{pool}/policy" NONE Nothing Yes(Operation::PolicyRemove);
    "piecework.add_function" POST "/piecework/pools/{pool}/functions" NONE Nothing Yes(Operation::FunctionAdd);
    "piecework.list_functions" GET "/piecework/pools/{pool}/functions" M Nothing Yes(Operation::FunctionList);
    "piecework.get_function" GET "/piecework/pools/{pool}/functions/{function}" NONE Nothing Yes(Operation::FunctionGet);
    "piecework.change_function" PATCH "/piecework/pools/{pool}/functions/{function}" NONE All Yes(Operation::FunctionPatch);
    "piecework.delete_function" DELETE "/piecework/pools/{pool}/functions/{function}" NONE All Yes(Operation::FunctionDelete);
    "piecework.invoke_function" POST "/piecework/pools/{pool}/functions/{function}/invoke" NONE Nothing Yes(Operation::FunctionInvoke);
    "piecework.invoke_function_async" POST "/piecework/pools/{pool}/functions/{function}/invoke-async" NONE Nothing Yes(Operation::FunctionInvokeAsync);
    "piecework.invoke_function_alone" POST "/piecework/functions/{function}/invoke" NONE Nothing Yes(Operation::FunctionInvokeAlone);
    "piecework.invoke_function_async_alone" POST "/piecework/functions/{function}/invoke-async" NONE Nothing Yes(Operation::FunctionInvokeAsyncAlone);
    "piecework.begin_function_package" PUT "/piecework/functionpackages/{sha256}" NONE Nothing Yes(Operation::FunctionPackageBegin);
    "piecework.add_trigger" POST "/piecework/triggers" NONE Nothing Yes(Operation::TriggerAdd);
    "piecework.list_triggers" GET "/piecework/triggers" M Nothing Yes(Operation::TriggerList);
    "piecework.get_trigger" GET "/piecework/triggers/{trigger}" NONE Nothing Yes(Operation::TriggerGet);
    "piecework.change_trigger" PATCH "/piecework/triggers/{trigger}" NONE All Yes(Operation::TriggerPatch);
    "piecework.pause_trigger" POST "/piecework/triggers/{trigger}/pause" NONE All Yes(Operation::TriggerPause);
    "piecework.resume_trigger" POST "/piecework/triggers/{trigger}/resume" NONE All Yes(Operation::TriggerResume);
    "piecework.run_trigger" POST "/piecework/triggers/{trigger}/run" NONE All Yes(Operation::TriggerRun);
    "piecework.take_hook" POST "/piecework/hooks/{trigger}" NONE Nothing Yes(Operation::TriggerHook);
    "piecework.delete_trigger" DELETE "/piecework/triggers/{trigger}" NONE All Yes(Operation::TriggerDelete);
    "piecework.list_applications" GET "/piecework/applications" M Nothing Yes(Operation::AppsList);
    "piecework.get_application" GET "/piecework/applications/{application}" NONE Nothing Yes(Operation::AppGet);
    "piecework.put_application" PUT "/piecework/applications/{application}" NONE All Yes(Operation::AppPut);
    "piecework.change_application" POST "/piecework/applications/{application}" NONE All Yes(Operation::AppPatch);
    "piecework.delete_application" DELETE "/piecework/applications/{application}" NONE All Yes(Operation::AppDelete);
    "piecework.begin_package" PUT "/piecework/applications/{application}/versions/{version}" NONE Nothing Yes(Operation::PackageBegin);
    "piecework.activate_package" POST "/piecework/applications/{application}/versions/{version}/activate" NONE Nothing Yes(Operation::PackageActivate);
    "piecework.delete_package" DELETE "/piecework/applications/{application}/versions/{version}" NONE Nothing Yes(Operation::PackageDelete);
    "piecework.list_queues" GET "/piecework/queues" T Nothing Yes(Operation::QueueList);
    "piecework.get_queue" GET "/piecework/queues/{queue}" NONE Nothing Yes(Operation::QueueGet);
    "piecework.peek_queue" GET "/piecework/queues/{queue}/messages" COUNT Nothing Yes(Operation::QueuePeek);
    "piecework.purge_queue" POST "/piecework/queues/{queue}/purge" NONE Nothing Yes(Operation::QueuePurge);
    "piecework.list_dead_letters" GET "/piecework/dead" LETTERS Nothing Yes(Operation::DeadList);
    "piecework.get_dead_letter" GET "/piecework/dead/{letter}" NONE Nothing Yes(Operation::DeadGet);
    "piecework.replay_dead_letters" POST "/piecework/dead/replay" LETTERS_ALL Nothing Yes(Operation::DeadReplay);
    "piecework.replay_dead_letter" POST "/piecework/dead/{letter}/replay" NONE Nothing Yes(Operation::DeadReplayOne);
    "piecework.discard_dead_letters" POST "/piecework/dead/discard" LETTERS_ALL Nothing Yes(Operation::DeadDiscard);
    "piecework.discard_dead_letter" DELETE "/piecework/dead/{letter}" NONE Nothing Yes(Operation::DeadDiscardOne);
    "piecework.add_publisher" POST "/piecework/publishers" NONE Nothing Yes(Operation::PublisherAdd);
    "piecework.list_publishers" GET "/piecework/publishers" NONE Nothing Yes(Operation::PublisherList);
    "piecework.remove_publisher" DELETE "/piecework/publishers/{publisher}" NONE Nothing Yes(Operation::PublisherRemove);
    "piecework.openapi" GET "/piecework/openapi.json" NONE Nothing Yes(Operation::OpenApi);
}

/// The raw values of a pattern's segments; `None` when the path does not match.
fn fit<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut values = Vec::new();
    let mut rest = path.strip_prefix('/')?;
    let mut wanted = pattern[1..].split('/').peekable();
    while let Some(segment) = wanted.next() {
        if segment.ends_with("*}") {
            values.push(rest);
            return (!rest.is_empty()).then_some(values);
        }
        let (head, tail) = rest.split_once('/').map_or((rest, None), |(head, tail)| (head, Some(tail)));
        if segment.starts_with('{') {
            if head.is_empty() {
                return None;
            }
            values.push(head);
        } else if let Some(prefix) = segment.strip_suffix("(*)") {
            head.strip_prefix(prefix).filter(|keys| keys.starts_with('(') && keys.ends_with(')'))?;
        } else if !segment.eq_ignore_ascii_case(head) {
            return None;
        }
        match (tail, wanted.peek()) {
            (None, None) => return Some(values),
            (Some(tail), Some(_)) => rest = tail,
            _ => return None,
        }
    }
    None
}

/// An operation and the decoded values of a path.
pub type Found = (&'static Route, Vec<String>);

/// A refusal; for a wrong method, also the methods that are allowed.
pub type Refused = (Refusal, Option<String>);

/// The operation of a request and the decoded values of its path.
pub fn find(method: &Method, path: &str) -> Result<Found, Refused> {
    let fitting: Vec<_> = ROUTES.iter().filter_map(|route| fit(route.path, path).map(|values| (route, values))).collect();
    let Some((route, raw)) = fitting.iter().find(|(route, _)| route.method == *method) else {
        if fitting.is_empty() {
            let refusal = Refusal::new(Code::ResourceNotFound, "The specified resource does not exist.").with("Path", path);
            return Err((refusal.hint("Paths start at the root, such as /pools, /jobs/{jobId}/tasks or /piecework/health."), None));
        }
        let allowed = fitting.iter().map(|(route, _)| route.method.as_str()).collect::<Vec<_>>().join(", ");
        let refusal =
            Refusal::new(Code::UnsupportedHttpVerb, "The resource doesn't support the specified HTTP verb.").with("Allowed", &allowed);
        return Err((refusal, Some(allowed)));
    };
    let values = raw.iter().map(|raw| percent_decode_str(raw).decode_utf8().map(|text| text.into_owned()));
    match values.collect::<Result<Vec<_>, _>>() {
        Ok(values) => Ok((route, values)),
        Err(_) => Err((Refusal::new(Code::InvalidUri, "The requested URI holds a segment that is not UTF-8.").with("Path", path), None)),
    }
}

/// The answer of an operation that is not supported yet.
pub fn not_yet(route: &Route, hint: &str) -> Result<Answer, Refusal> {
    Err(Refusal::new(Code::NotImplemented, "The requested operation is not implemented.").with("Operation", route.name).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_slash_stays_inside_the_file_and_a_plain_one_is_taken_too() {
        for path in ["/jobs/j/tasks/t/files/wd%2Fa%20b.txt", "/jobs/j/tasks/t/files/wd/a%20b.txt"] {
            let (route, values) = find(&Method::GET, path).unwrap();
            assert_eq!((route.name, values.last().unwrap().as_str()), ("file.get_from_task", "wd/a b.txt"));
        }
    }

    #[test]
    fn all_operations_of_azure_have_a_row_and_find_themselves() {
        assert_eq!(
            ROUTES.iter().filter(|route| !route.is_ours()).count(),
            76 + 2 + 1,
            "76 of 2024-02-01.19.0, two of 2025-06-01 and one of 2018-12-01.8.0"
        );
        for route in ROUTES {
            let path = route.path.replace("(*)", "(thumbprintAlgorithm=sha1,thumbprint=ff)").replace(['{', '}', '*'], "");
            assert_eq!(find(&route.method, &path).unwrap().0.name, route.name);
        }
    }

    #[test]
    fn unknown_paths_and_wrong_verbs_are_told_apart() {
        let code = |method, path| find(&method, path).unwrap_err().0.code;
        assert_eq!(code(Method::GET, "/nothing"), Code::ResourceNotFound);
        assert_eq!(code(Method::GET, "/pools/"), Code::ResourceNotFound);
        assert_eq!(code(Method::GET, "/jobs/j/tasks/t/files/"), Code::ResourceNotFound);
        assert_eq!(code(Method::PUT, "/pools"), Code::UnsupportedHttpVerb);
        assert_eq!(code(Method::HEAD, "/jobs/j"), Code::UnsupportedHttpVerb);
        assert_eq!(code(Method::GET, "/jobs/%ff"), Code::InvalidUri);
    }
}
