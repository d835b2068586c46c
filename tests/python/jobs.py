"""Every operation on jobs and tasks by the official Python client azure-batch 14.2.0, unmodified, without a node.

Arguments: URL, account, key, and an existing pool and another one. Prints "done" at the end.
"""

import datetime
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

URL, ACCOUNT, KEY, POOL, OTHER = sys.argv[1:6]
client = BatchServiceClient(SharedKeyCredentials(ACCOUNT, KEY), batch_url=URL)
JOB = "PythonJob"


def until(state):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = client.job.get(JOB)
        if job.state == state:
            return job
        time.sleep(0.05)
    raise SystemExit(f"{JOB} is {job.state}, not {state}")


def refused(code, call, *arguments):
    try:
        call(*arguments)
    except models.BatchErrorException as error:
        assert error.error.code == code, (error.error.code, code)
        return
    raise SystemExit(f"{code} was expected of {call.__name__}")


manager = models.JobManagerTask(id="boss", command_line="x", kill_job_on_completion=False, run_exclusive=False)
pool_info = models.PoolInformation(pool_id=POOL)
client.job.add(
    models.JobAddParameter(
        id=JOB,
        pool_info=pool_info,
        job_manager_task=manager,
        priority=5,
        constraints=models.JobConstraints(max_wall_clock_time=datetime.timedelta(hours=1), max_task_retry_count=2),
        common_environment_settings=[models.EnvironmentSetting(name="A", value="b")],
        metadata=[models.MetadataItem(name="k", value="v")],
        on_task_failure=models.OnTaskFailure.perform_exit_options_job_action,
        uses_task_dependencies=True,
    )
)
job = client.job.get(JOB)
assert (job.priority, job.constraints.max_task_retry_count, job.uses_task_dependencies) == (5, 2, True)
assert job.constraints.max_wall_clock_time == datetime.timedelta(hours=1)
assert (job.job_manager_task.id, job.job_manager_task.kill_job_on_completion, job.job_manager_task.allow_low_priority_node) == ("boss", False, True)
assert (job.previous_state, job.execution_info.pool_id, job.execution_info.end_time) == (None, POOL, None)
assert [item.id for item in client.job.list()] == [JOB]

client.task.add(
    JOB,
    models.TaskAddParameter(
        id="t",
        command_line="x",
        affinity_info=models.AffinityInformation(affinity_id="node"),
        user_identity=models.UserIdentity(auto_user=models.AutoUserSpecification(scope="task", elevation_level="nonadmin")),
        exit_conditions=models.ExitConditions(default=models.ExitOptions(job_action="none", dependency_action="satisfy")),
        depends_on=models.TaskDependencies(task_ids=["boss"], task_id_ranges=[models.TaskIdRange(start=1, end=3)]),
    ),
)
task = client.task.get(JOB, "t")
assert (task.state, task.affinity_info.affinity_id, task.user_identity.auto_user.scope) == ("active", "node", "task")
assert (task.exit_conditions.default.dependency_action, task.depends_on.task_id_ranges[0].end) == ("satisfy", 3)
client.task.update(JOB, "t", models.TaskConstraints(max_task_retry_count=7, max_wall_clock_time=datetime.timedelta(minutes=5)))
constraints = client.task.get(JOB, "t").constraints
assert (constraints.max_task_retry_count, constraints.max_wall_clock_time) == (7, datetime.timedelta(minutes=5))
refused("TaskNotCompleted", client.task.reactivate, JOB, "t")
client.task.terminate(JOB, "t")
refused("TaskCompleted", client.task.terminate, JOB, "t")
refused("TaskCompleted", client.task.update, JOB, "t")
assert client.task.get(JOB, "t").execution_info.failure_info.code == "TaskEnded"
client.task.reactivate(JOB, "t")
task = client.task.get(JOB, "t")
assert (task.state, task.previous_state, task.execution_info.retry_count, task.execution_info.failure_info) == ("active", "completed", 0, None)
results = client.task.add_collection(JOB, [models.TaskAddParameter(id=name, command_line="x") for name in ("a", "t")]).value
brief = sorted((result.task_id, result.status.value, result.error and result.error.code) for result in results)
assert brief == [("a", "success", None), ("t", "clienterror", "TaskExists")], brief
assert list(client.task.list_subtasks(JOB, "a").value) == []
client.task.delete(JOB, "a")
counts = client.job.get_task_counts(JOB)
assert (counts.task_counts.active, counts.task_slot_counts.active) == (2, 2)

refused("OperationInvalidForCurrentState", client.job.enable, JOB)
refused("OperationInvalidForCurrentState", client.job.patch, JOB, models.JobPatchParameter(pool_info=models.PoolInformation(pool_id=OTHER)))
refused("JobPreparationTaskNotSpecified", lambda: list(client.job.list_preparation_and_release_task_status(JOB)))
for option in (models.DisableJobOption.wait, models.DisableJobOption.requeue, models.DisableJobOption.terminate):
    client.job.disable(JOB, option)
    until(models.JobState.disabled)
client.job.patch(JOB, models.JobPatchParameter(pool_info=models.PoolInformation(pool_id=OTHER)))
assert client.job.get(JOB).pool_info.pool_id == OTHER
client.job.enable(JOB)
until(models.JobState.active)
client.job.update(JOB, models.JobUpdateParameter(pool_info=models.PoolInformation(pool_id=OTHER), max_parallel_tasks=4))
job = client.job.get(JOB)
assert (job.priority, job.max_parallel_tasks, job.metadata, job.constraints.max_task_retry_count) == (0, 4, None, 0)
client.job.terminate(JOB, "enough")
job = until(models.JobState.completed)
assert (job.execution_info.terminate_reason, job.previous_state) == ("enough", "terminating")
refused("JobCompleted", client.job.enable, JOB)
refused("JobCompleted", client.task.reactivate, JOB, "t")
refused("JobCompleted", client.task.add, JOB, models.TaskAddParameter(id="late", command_line="x"))
client.job.delete(JOB)

preparation = models.JobPreparationTask(command_line="x", constraints=models.TaskConstraints(max_task_retry_count=2), wait_for_success=False)
release = models.JobReleaseTask(id="tidy", command_line="y", max_wall_clock_time=datetime.timedelta(minutes=1))
client.job.add(
    models.JobAddParameter(id="Prepared", pool_info=pool_info, job_preparation_task=preparation, job_release_task=release)
)
job = client.job.get("Prepared")
shown = job.job_preparation_task
assert (shown.id, shown.wait_for_success, shown.rerun_on_node_reboot_after_success) == ("jobpreparation", False, True)
assert (shown.constraints.max_task_retry_count, job.job_release_task.max_wall_clock_time) == (2, datetime.timedelta(minutes=1))
options = models.JobListPreparationAndReleaseTaskStatusOptions(filter="jobReleaseTaskExecutionInfo/exitCode gt 0", select="nodeId")
assert list(client.job.list_preparation_and_release_task_status("Prepared", options)) == []
refused("TaskIdSameAsJobReleaseTask", client.task.add, "Prepared", models.TaskAddParameter(id="Tidy", command_line="x"))
client.job.delete("Prepared")
refused("CertificateNotFound", client.certificate.get, "sha1", "ff")
refused("InvalidInput", client.certificate.add, models.CertificateAddParameter(thumbprint="ff", thumbprint_algorithm="sha1", data="AA=="))
assert list(client.certificate.list()) == []
print("done")
