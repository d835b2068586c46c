"""Every operation that the official Python client azure-batch 14.2.0 has, once, unmodified, against a whole stack.

Arguments: URL, account, key. Prints JSON: operations that were refused with their codes, and how many were called.
"""

import datetime
import json
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

URL, ACCOUNT, KEY = sys.argv[1:4]
TASKS = 250
client = BatchServiceClient(SharedKeyCredentials(ACCOUNT, KEY), batch_url=URL)
GROUPS = "account application certificate compute_node compute_node_extension file job job_schedule pool task".split()
called = set()
refused = {}


def call(name, *arguments, **named):
    """Calls `group.operation`; lists are read to their end, and a refusal is noted."""
    group, operation = name.split(".")
    called.add(name)
    try:
        answer = getattr(getattr(client, group), operation)(*arguments, **named)
        return list(answer) if hasattr(answer, "advance_page") or hasattr(answer, "__next__") else answer
    except models.BatchErrorException as error:
        refused[name] = [error.response.status_code, error.error.code]
        return None


def until(what, look):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come")


def steady():
    until("a steady pool", lambda: client.pool.get("pool").allocation_state == "steady")


def well():
    states = lambda: {node.state.value for node in client.compute_node.list("pool")}
    until("nodes that are well", lambda: (seen := states()) and seen <= {"idle", "running"})


hour = datetime.timedelta(hours=1)
ago = datetime.datetime.now(datetime.timezone.utc) - hour
image = models.ImageReference(publisher="canonical", offer="ubuntu", sku="22_04-lts")
machine = models.VirtualMachineConfiguration(image_reference=image, node_agent_sku_id="batch.node.ubuntu 22.04")
on_pool = models.PoolInformation(pool_id="pool")

call("pool.add", models.PoolAddParameter(id="pool", vm_size="s", target_dedicated_nodes=2, virtual_machine_configuration=machine, task_slots_per_node=2))
assert call("pool.exists", "pool") is True and client.pool.exists("nothing") is False
call("pool.get", "pool")
call("pool.list")
call("pool.patch", "pool", models.PoolPatchParameter(metadata=[models.MetadataItem(name="a", value="b")]))
call("pool.update_properties", "pool", models.PoolUpdatePropertiesParameter(certificate_references=[], application_package_references=[], metadata=[]))
steady()
call("pool.resize", "pool", models.PoolResizeParameter(target_dedicated_nodes=3))
call("pool.stop_resize", "pool")
steady()
call("pool.enable_auto_scale", "pool", auto_scale_formula="$TargetDedicatedNodes=2;")
assert "x=1" in call("pool.evaluate_auto_scale", "pool", "$TargetDedicatedNodes=2;x=1;").results
call("pool.disable_auto_scale", "pool")
steady()
call("pool.list_usage_metrics", models.PoolListUsageMetricsOptions(start_time=ago))
call("account.list_pool_node_counts")
assert call("account.list_supported_images", models.AccountListSupportedImagesOptions(filter="osType eq 'linux'"))
call("application.list")
call("application.get", "none")

call("job.add", models.JobAddParameter(id="job", pool_info=on_pool))
call("job.patch", "job", models.JobPatchParameter(priority=3))
call("job.update", "job", models.JobUpdateParameter(pool_info=on_pool))
call("job.get", "job")
call("job.list")
call("job.disable", "job", "requeue")
until("a disabled job", lambda: client.job.get("job").state == "disabled")
# A task that cannot have ended when it is changed.
call("task.add", "job", models.TaskAddParameter(id="fails", command_line="/bin/sh -c 'echo hi; exit 3'"))
call("task.update", "job", "fails", models.TaskConstraints(max_task_retry_count=0))
call("job.enable", "job")
call("task.add_collection", "job", [models.TaskAddParameter(id=f"t{n}", command_line="/bin/echo hi") for n in range(TASKS)])
until("the end of all tasks", lambda: call("job.get_task_counts", "job").task_counts.completed == TASKS + 1)
assert call("task.get", "job", "fails").execution_info.exit_code == 3
assert len(call("task.list", "job", models.TaskListOptions(max_results=7, filter="state eq 'completed'"))) == TASKS + 1
stats = call("task.get", "job", "fails", models.TaskGetOptions(expand="stats")).stats
assert stats.wall_clock_time.total_seconds() > 0 and stats.url.endswith("/jobs/job/tasks/fails"), stats
stats = call("job.get", "job", models.JobGetOptions(expand="stats")).stats
assert (stats.num_succeeded_tasks, stats.num_failed_tasks, stats.num_task_retries) == (TASKS, 1, 0), stats
each = [task.stats for task in client.task.list("job", models.TaskListOptions(expand="stats"))]
assert sum((one.wall_clock_time for one in each), datetime.timedelta()) == stats.wall_clock_time, (each, stats)
assert call("pool.get", "pool", models.PoolGetOptions(expand="stats")).stats.usage_stats.dedicated_core_time.total_seconds() >= 0
call("task.list_subtasks", "job", "fails")
call("task.reactivate", "job", "fails")
call("task.terminate", "job", "t0")
call("job.list_preparation_and_release_task_status", "job")
assert call("file.list_from_task", "job", "t1", True)
assert b"".join(call("file.get_from_task", "job", "t1", "stdout.txt")) == b"hi\n"
call("file.get_properties_from_task", "job", "t1", "stdout.txt")
call("file.delete_from_task", "job", "t1", "stderr.txt")

nodes = call("compute_node.list", "pool")
first = nodes[0].id
call("compute_node.get", "pool", first)
task = client.task.get("job", "t2")
where, path = task.node_info.node_id, task.node_info.task_root_directory + "/stdout.txt"
call("file.list_from_compute_node", "pool", where, True)
assert b"".join(call("file.get_from_compute_node", "pool", where, path)) == b"hi\n"
call("file.get_properties_from_compute_node", "pool", where, path)
call("file.delete_from_compute_node", "pool", where, path)
call("compute_node.disable_scheduling", "pool", first)
call("compute_node.enable_scheduling", "pool", first)
call("compute_node.get_remote_login_settings", "pool", first)
call("compute_node.get_remote_desktop", "pool", first)
call("compute_node.add_user", "pool", first, models.ComputeNodeUser(name="u", password="p"))
call("compute_node.update_user", "pool", first, "u", models.NodeUpdateUserParameter(password="x"))
call("compute_node.delete_user", "pool", first, "u")
logs = models.UploadBatchServiceLogsConfiguration(container_url="s3://logs/x", start_time=ago)
call("compute_node.upload_batch_service_logs", "pool", first, logs)
call("compute_node_extension.list", "pool", first)
call("compute_node_extension.get", "pool", first, "none")
call("compute_node.reboot", "pool", first)
call("compute_node.reimage", "pool", nodes[1].id)

specification = models.JobSpecification(pool_info=on_pool)
call("job_schedule.add", models.JobScheduleAddParameter(id="schedule", schedule=models.Schedule(recurrence_interval=hour), job_specification=specification))
assert call("job_schedule.exists", "schedule") is True
call("job_schedule.get", "schedule")
call("job_schedule.list")
call("job_schedule.patch", "schedule", models.JobSchedulePatchParameter(metadata=[]))
twice = models.Schedule(recurrence_interval=2 * hour)
call("job_schedule.update", "schedule", models.JobScheduleUpdateParameter(schedule=twice, job_specification=specification))
made = until("the schedule's job", lambda: call("job.list_from_job_schedule", "schedule"))
assert [job.id for job in made] == ["schedule:job-1"], made
call("job_schedule.disable", "schedule")
call("job_schedule.enable", "schedule")
call("job_schedule.terminate", "schedule")
call("job_schedule.delete", "schedule")

call("certificate.list")
call("certificate.add", models.CertificateAddParameter(thumbprint="ab", thumbprint_algorithm="sha1", data="eA=="))
call("certificate.get", "sha1", "ab")
call("certificate.delete", "sha1", "ab")
call("certificate.cancel_deletion", "sha1", "ab")

well()
steady()
call("pool.remove_nodes", "pool", models.NodeRemoveParameter(node_list=[first]))
steady()
call("task.delete", "job", "fails")
call("job.terminate", "job")
call("job.delete", "job")
call("pool.delete", "pool")

groups = {group: getattr(client, group) for group in GROUPS}
offered = {f"{group}.{name}" for group, operations in groups.items() for name in vars(type(operations)) if not name.startswith("_")}
missing = sorted(name for name in offered - called if callable(getattr(groups[name.split(".")[0]], name.split(".")[1])))
assert not missing, missing
print(json.dumps({"called": len(called), "refused": refused}))
