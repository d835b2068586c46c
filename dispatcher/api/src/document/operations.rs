//! Descriptions of the operations for the OpenAPI document and the compatibility page.
//!
//! A row has an operation's name in `routes::ROUTES`, its success status, the shapes of its body and answer, and its
//! limits.

/// How completely an operation is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Supported except for this.
    But(&'static str),
    /// Always refused, for this reason.
    Refuses(&'static str),
}

/// The body of a successful answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// No body.
    Nothing,
    /// A resource of this shape.
    One(&'static str),
    /// A page of resources of this shape.
    Page(&'static str),
    Bytes,
    Text,
}

/// Description of one operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Name in the table of routes.
    pub name: &'static str,
    pub summary: &'static str,
    /// Status of a success.
    pub status: u16,
    /// The shape of its body; `!` marks one that is required.
    pub takes: Option<&'static str>,
    pub gives: Gives,
    /// How far it goes.
    pub extent: Extent,
}

impl Operation {
    /// The row of an operation.
    pub fn of(name: &str) -> Option<&'static Operation> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }

    /// The shape of an operation's body.
    pub fn body(name: &str) -> Option<&'static str> {
        Some(Operation::of(name)?.takes?.trim_end_matches('!'))
    }
}

use Extent::{But, Refuses, Whole};
use Gives::{Bytes, Nothing, One, Page, Text};

const fn row(name: &'static str, status: u16, takes: &'static str, gives: Gives, extent: Extent, summary: &'static str) -> Operation {
    Operation { name, summary, status, takes: if takes.is_empty() { None } else { Some(takes) }, gives, extent }
}

const STATS: Extent = But("readIOGiB and writeIOGiB of stats are what was staged in and out; disk operations are not counted: 0");
const POOL_STATS: Extent = But("stats have no resourceStats: nodes do not measure them");
const JOB_PARTS: &str = "job networks and containers are not served yet; they are refused, and so is a manager task with runExclusive \
                         while its pool does not exist";
const RETAINED: Extent = But("retaineddata acts as taskcompletion");
const MACHINES: &str = "one network, one image: mounts, virtual networks, disk encryption and extensions are refused; \
                        containers and user accounts are not served yet";
const TASK_PARTS: &str = "containers, multi-instance tasks, named users and identities are not served yet; they are refused, and so are upload headers \
     other than content-type, -encoding, -language, -disposition, cache-control and x-ms-meta-NAME, and containers outside the \
     configured blob store or with a query (a shared access signature)";
const IMAGES: &str =
    "a pool may name any image but those of Windows: the node is what its provider makes, and capabilities are those of Azure's image";
const CERTIFICATES: Extent = Refuses("certificates are retired; hand secrets over by files or environment settings");

/// All operations, in the order of the table of routes.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    row("account.list_supported_images", 200, "", Page("ImageInformation"), But(IMAGES), "Lists the images that pools may name"),
    row("account.list_node_agent_skus", 200, "", Page("NodeAgentSku"), But(IMAGES), "Lists node agents with the images they go with"),
    row("account.list_pool_node_counts", 200, "", Page("PoolNodeCounts"), Whole, "Counts the nodes of each pool by state"),
    row("application.list", 200, "", Page("ApplicationSummary"), Whole, "Lists applications"),
    row("application.get", 200, "", One("ApplicationSummary"), Whole, "Gets an application"),
    row("pool.list_usage_metrics", 200, "", Page("PoolUsageMetrics"), Whole, "Lists core hours by pool and half hour"),
    row("pool.add", 201, "PoolAddParameter!", Nothing, But(MACHINES), "Adds a pool"),
    row("pool.list", 200, "", Page("CloudPool"), POOL_STATS, "Lists pools"),
    row("pool.delete", 202, "", Nothing, Whole, "Deletes a pool and its nodes"),
    row("pool.exists", 200, "", Nothing, Whole, "Tells whether a pool exists"),
    row("pool.get", 200, "", One("CloudPool"), POOL_STATS, "Gets a pool"),
    row("pool.patch", 200, "PoolPatchParameter!", Nothing, But(MACHINES), "Changes the given properties of a pool"),
    row("pool.disable_auto_scale", 200, "", Nothing, Whole, "Ends automatic scaling"),
    row("pool.enable_auto_scale", 200, "PoolEnableAutoScaleParameter!", Nothing, Whole, "Scales a pool by a formula"),
    row("pool.evaluate_auto_scale", 200, "PoolEvaluateAutoScaleParameter!", One("AutoScaleRun"), Whole, "Tries a formula and changes nothing"),
    row("pool.resize", 202, "PoolResizeParameter!", Nothing, RETAINED, "Changes how many nodes a pool has"),
    row("pool.stop_resize", 202, "", Nothing, But("the target becomes what is there; resizeErrors tells what it was"), "Ends a resize where it is"),
    row("pool.update_properties", 204, "PoolUpdatePropertiesParameter!", Nothing, Whole, "Replaces the properties of a pool that may change"),
    row("pool.remove_nodes", 202, "NodeRemoveParameter!", Nothing, RETAINED, "Removes nodes from a pool"),
    row("compute_node.add_user", 201, "ComputeNodeUser!", Nothing, Refuses("nodes have no accounts of their own; OperationNotValidOnNode"), "Adds a user to a node"),
    row("compute_node.delete_user", 200, "", Nothing, Refuses("nodes have no accounts of their own; OperationNotValidOnNode"), "Deletes a user of a node"),
    row("compute_node.update_user", 200, "NodeUpdateUserParameter!", Nothing, Refuses("nodes have no accounts of their own; OperationNotValidOnNode"), "Changes a user of a node"),
    row("compute_node.get", 200, "", One("ComputeNode"), Whole, "Gets a node"),
    row("compute_node.reboot", 202, "NodeRebootParameter", Nothing, But("the node's agent is started anew, the machine is not"), "Restarts a node"),
    row("compute_node.reimage", 202, "NodeReimageParameter", Nothing, But("the node's folder is emptied, the machine is not set up anew"), "Sets a node up anew"),
    row("compute_node.start", 202, "", Nothing, Whole, "Starts a node that was deallocated"),
    row("compute_node.deallocate", 202, "NodeDeallocateParameter", Nothing, Whole, "Stops a node and keeps its place"),
    row("compute_node.disable_scheduling", 200, "NodeDisableSchedulingParameter", Nothing, Whole, "Gives a node no more tasks"),
    row("compute_node.enable_scheduling", 200, "", Nothing, Whole, "Gives a node tasks again"),
    row("compute_node.get_remote_login_settings", 200, "", One("RemoteLoginSettings"), Whole, "Tells a node's address and port for SSH"),
    row("compute_node.get_remote_desktop", 200, "", Bytes, Refuses("nodes run Linux; OperationNotValidOnNode"), "Gets a remote desktop file"),
    row("compute_node.upload_batch_service_logs", 200, "UploadBatchServiceLogsConfiguration!", One("UploadBatchServiceLogsResult"), Whole, "Uploads the log of a node's agent"),
    row("compute_node.list", 200, "", Page("ComputeNode"), Whole, "Lists the nodes of a pool"),
    row("compute_node_extension.get", 200, "", One("NodeVMExtension"), Refuses("nodes have no extensions"), "Gets an extension of a node"),
    row("compute_node_extension.list", 200, "", Page("NodeVMExtension"), Whole, "Lists a node's extensions: none"),
    row("job.delete", 202, "", Nothing, Whole, "Deletes a job with its tasks"),
    row("job.get", 200, "", One("CloudJob"), STATS, "Gets a job"),
    row("job.patch", 200, "JobPatchParameter!", Nothing, Whole, "Changes the given properties of a job"),
    row("job.update", 200, "JobUpdateParameter!", Nothing, Whole, "Replaces the properties of a job that may change"),
    row("job.disable", 202, "JobDisableParameter!", Nothing, Whole, "Lets no task of a job run"),
    row("job.enable", 202, "", Nothing, Whole, "Lets the tasks of a job run again"),
    row("job.terminate", 202, "JobTerminateParameter", Nothing, Whole, "Ends a job"),
    row("job.add", 201, "JobAddParameter!", Nothing, But(JOB_PARTS), "Adds a job"),
    row("job.list", 200, "", Page("CloudJob"), STATS, "Lists jobs"),
    row("job.list_from_job_schedule", 200, "", Page("CloudJob"), Whole, "Lists the jobs of a job schedule"),
    row("job.list_preparation_and_release_task_status", 200, "", Page("PreparationAndReleaseStatus"), Whole, "Lists preparation and release by node"),
    row("job.get_task_counts", 200, "", One("TaskCountsResult"), Whole, "Counts the tasks of a job by state"),
    row("job_schedule.exists", 200, "", Nothing, Whole, "Tells whether a job schedule exists"),
    row("job_schedule.delete", 202, "", Nothing, Whole, "Deletes a job schedule with its jobs"),
    row("job_schedule.get", 200, "", One("CloudJobSchedule"), STATS, "Gets a job schedule"),
    row("job_schedule.patch", 200, "JobSchedulePatchParameter!", Nothing, Whole, "Changes the given properties of a job schedule"),
    row("job_schedule.update", 200, "JobScheduleUpdateParameter!", Nothing, Whole, "Replaces the properties of a job schedule"),
    row("job_schedule.disable", 204, "", Nothing, Whole, "Starts no more jobs"),
    row("job_schedule.enable", 204, "", Nothing, Whole, "Starts jobs again"),
    row("job_schedule.terminate", 202, "", Nothing, Whole, "Ends a job schedule"),
    row("job_schedule.add", 201, "JobScheduleAddParameter!", Nothing, But(JOB_PARTS), "Adds a job schedule"),
    row("job_schedule.list", 200, "", Page("CloudJobSchedule"), STATS, "Lists job schedules"),
    row("task.add", 201, "TaskAddParameter!", Nothing, But(TASK_PARTS), "Adds a task"),
    row("task.list", 200, "", Page("CloudTask"), STATS, "Lists the tasks of a job"),
    row("task.add_collection", 200, "TaskAddCollectionParameter!", One("TaskAddCollectionResult"), But(TASK_PARTS), "Adds up to 100 tasks"),
    row("task.delete", 200, "", Nothing, Whole, "Deletes a task"),
    row("task.get", 200, "", One("CloudTask"), STATS, "Gets a task"),
    row("task.update", 200, "TaskUpdateParameter!", Nothing, Whole, "Changes the constraints of a task"),
    row("task.list_subtasks", 200, "", One("SubtaskList"), But("multi-instance tasks are not served yet, so the list is empty"), "Lists the subtasks of a task"),
    row("task.terminate", 204, "", Nothing, Whole, "Ends a task"),
    row("task.reactivate", 204, "", Nothing, Whole, "Runs a failed task again"),
    row("file.list_from_task", 200, "", Page("NodeFile"), Whole, "Lists the files of a task"),
    row("file.delete_from_task", 200, "", Nothing, Whole, "Deletes a file of a task"),
    row("file.get_from_task", 200, "", Bytes, Whole, "Reads a file of a task"),
    row("file.get_properties_from_task", 200, "", Nothing, Whole, "Tells the properties of a file of a task"),
    row("file.list_from_compute_node", 200, "", Page("NodeFile"), Whole, "Lists the files of a node"),
    row("file.delete_from_compute_node", 200, "", Nothing, Whole, "Deletes a file of a node"),
    row("file.get_from_compute_node", 200, "", Bytes, Whole, "Reads a file of a node"),
    row("file.get_properties_from_compute_node", 200, "", Nothing, Whole, "Tells the properties of a file of a node"),
    row("certificate.add", 201, "CertificateAddParameter!", Nothing, CERTIFICATES, "Adds a certificate"),
    row("certificate.list", 200, "", Page("Certificate"), Whole, "Lists certificates: none"),
    row("certificate.cancel_deletion", 204, "", Nothing, CERTIFICATES, "Cancels the deletion of a certificate"),
    row("certificate.delete", 202, "", Nothing, CERTIFICATES, "Deletes a certificate"),
    row("certificate.get", 200, "", One("Certificate"), CERTIFICATES, "Gets a certificate"),
    row("piecework.health", 200, "", One("Health"), Whole, "Tells whether the whole stack can run a task"),
    row("piecework.list_unreadable", 200, "", Page("UnreadableView"), Whole, "Looks through the store for rows that cannot be read, a slice with each page"),
    row("piecework.metrics", 200, "", Text, Whole, "Gives the dispatcher's metrics in the text format of Prometheus, unless they have an address of their own"),
    row("piecework.explain_pool", 200, "", One("PoolView"), Whole, "Shows a pool's policy, last decision and work"),
    row("piecework.get_policy", 200, "", One("QueuePolicy"), Whole, "Gets a pool's built-in scaling policy"),
    row("piecework.set_policy", 200, "QueuePolicy!", Nothing, Whole, "Scales a pool with its queue"),
    row("piecework.remove_policy", 200, "", Nothing, Whole, "Ends scaling with the queue"),
    row("piecework.add_function", 201, "FunctionAddParameter!", One("FunctionView"), Whole, "Adds a function with its first version"),
    row("piecework.list_functions", 200, "", Page("FunctionView"), Whole, "Lists the functions of a pool"),
    row("piecework.get_function", 200, "", One("FunctionView"), Whole, "Gets a function with its versions"),
    row("piecework.change_function", 200, "FunctionPatchParameter!", One("FunctionView"), Whole, "Deploys a new version with these properties changed, or goes back to the version named"),
    row("piecework.delete_function", 204, "", Nothing, Whole, "Deletes a function; its invocations that run end well"),
    row("piecework.invoke_function", 200, "", Bytes, Whole, "Sends the body, whatever it is, to a function and waits for its answer; piecework-status is ok or error"),
    row("piecework.invoke_function_async", 202, "", One("InvocationView"), Whole, "Sends the body to a function and does not wait"),
    row("piecework.invoke_function_alone", 200, "", Bytes, Whole, "The same of a function whose name no other pool has"),
    row("piecework.invoke_function_async_alone", 202, "", One("InvocationView"), Whole, "The same of a function whose name no other pool has, without waiting"),
    row("piecework.begin_function_package", 200, "", One("FunctionPackageView"), Whole, "Tells whether a package is there, and where to upload it by PUT"),
    row("piecework.add_trigger", 201, "TriggerAddParameter!", One("TriggerView"), Whole, "Adds a trigger, which starts work when something happens"),
    row("piecework.list_triggers", 200, "", Page("TriggerView"), Whole, "Lists triggers"),
    row("piecework.get_trigger", 200, "", One("TriggerView"), Whole, "Gets a trigger with what became of its events"),
    row("piecework.change_trigger", 200, "TriggerPatchParameter!", One("TriggerView"), Whole, "Changes what a trigger starts"),
    row("piecework.pause_trigger", 200, "", One("TriggerView"), Whole, "Leaves the events of a trigger where they wait"),
    row("piecework.resume_trigger", 200, "", One("TriggerView"), Whole, "Ends a pause"),
    row("piecework.run_trigger", 200, "", One("TriggerView"), Whole, "Lists the bucket of a trigger now, or lets its schedule be due now"),
    row("piecework.take_hook", 202, "", One("TriggerHooked"), Whole, "Takes a request for a trigger, signed with its secret; the body is whatever its sender sends"),
    row("piecework.delete_trigger", 204, "", Nothing, Whole, "Deletes a trigger with the events that wait"),
    row("piecework.list_applications", 200, "", Page("ApplicationView"), Whole, "Lists applications with their packages"),
    row("piecework.get_application", 200, "", One("ApplicationView"), Whole, "Gets an application with its packages"),
    row("piecework.put_application", 200, "ApplicationParameter", One("ApplicationView"), Whole, "Adds an application (201), or replaces its properties"),
    row("piecework.change_application", 200, "ApplicationParameter", One("ApplicationView"), Whole, "Changes the given properties of an application"),
    row("piecework.delete_application", 204, "", Nothing, Whole, "Deletes an application with its packages"),
    row("piecework.begin_package", 201, "", One("PackageView"), Whole, "Begins the upload of a version: uploadUrl takes the zip by PUT"),
    row("piecework.activate_package", 200, "PackageActivateParameter", One("PackageView"), Whole, "Lets nodes get what was uploaded"),
    row("piecework.delete_package", 204, "", Nothing, Whole, "Deletes a version of an application"),
    row("piecework.list_queues", 200, "", Page("QueueView"), Whole, "Lists queues with what waits in them"),
    row("piecework.get_queue", 200, "", One("QueueView"), Whole, "Shows a queue"),
    row("piecework.peek_queue", 200, "", Page("MessageView"), Whole, "Shows the first messages, which stay in the queue"),
    row("piecework.purge_queue", 200, "", One("PurgeResult"), Whole, "Removes what waits; the dispatcher releases tasks again"),
    row("piecework.list_dead_letters", 200, "", One("DeadLetters"), Whole, "Lists messages that were refused or failed for good, from the oldest"),
    row("piecework.get_dead_letter", 200, "", One("DeadLetter"), Whole, "Shows a dead letter with its body"),
    row("piecework.replay_dead_letters", 200, "", One("DeadLettersReplayed"), Whole, "Publishes dead letters again where they first came from"),
    row("piecework.replay_dead_letter", 200, "", One("DeadLettersReplayed"), Whole, "Publishes a dead letter again"),
    row("piecework.discard_dead_letters", 200, "", One("DeadLettersDiscarded"), Whole, "Removes dead letters for good"),
    row("piecework.discard_dead_letter", 204, "", Nothing, Whole, "Removes a dead letter for good"),
    row("piecework.add_publisher", 201, "PublisherParameter!", One("PublisherView"), Whole, "Adds a user of the broker who may publish work for a pool; its URL is in this answer alone"),
    row("piecework.list_publishers", 200, "", Page("PublisherView"), Whole, "Lists publishers"),
    row("piecework.remove_publisher", 200, "", One("PublisherRemoved"), Whole, "Removes a publisher and closes its connections"),
    row("piecework.openapi", 200, "", One("OpenApi"), Whole, "This document"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ROUTES;

    #[test]
    fn every_operation_is_described_once_and_in_the_order_of_the_routes() {
        let routed: Vec<_> = ROUTES.iter().map(|route| route.name).collect();
        let described: Vec<_> = OPERATIONS.iter().map(|operation| operation.name).collect();
        assert_eq!(described, routed);
    }
}
