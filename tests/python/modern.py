"""The second generation of the official Python client, azure-batch 15.x, unmodified, against a whole stack.

Arguments: URL, account, key, scratch folder. Prints JSON of what it saw.
"""

import datetime
import json
import sys
import time

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

URL, ACCOUNT, KEY = sys.argv[1:4]
TASKS = 230
client = BatchClient(URL, AzureNamedKeyCredential(ACCOUNT, KEY))


def until(what, look, limit=120):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come")


def refused(kind, code, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        assert error.model.code == code, (error, code)
        return
    raise SystemExit(f"{code} was expected of {call.__name__}")


def is_gone(exists, name):
    # This client raises even where its signature promises False.
    try:
        return not exists(name)
    except ResourceNotFoundError:
        return True


image = models.BatchVmImageReference(publisher="canonical", offer="0001-com-ubuntu-server-jammy", sku="22_04-lts")
machine = models.VirtualMachineConfiguration(image_reference=image, node_agent_sku_id="batch.node.ubuntu 22.04")
client.create_pool(
    models.BatchPoolCreateOptions(
        id="modern", vm_size="standard_d2", virtual_machine_configuration=machine, target_dedicated_nodes=1, task_slots_per_node=4
    )
)
assert client.pool_exists("modern") and is_gone(client.pool_exists, "nothing")
until("a node", lambda: [node for node in client.list_nodes("modern") if node.state in ("idle", "running")])
assert [pool.id for pool in client.list_pools(filter="state eq 'active'", select=["id", "state"])] == ["modern"]

pool_info = models.BatchPoolInfo(pool_id="modern")
client.create_job(models.BatchJobCreateOptions(id="job", pool_info=pool_info, priority=7))
job = client.get_job("job")
assert (job.priority, job.state, job.pool_info.pool_id) == (7, "active", "modern"), job
client.update_job("job", models.BatchJobUpdateOptions(priority=9))
assert client.get_job("job").priority == 9

result = client.create_tasks(
    "job", [models.BatchTaskCreateOptions(id=f"t{n:03}", command_line=f"/bin/sh -c 'echo {n}; exit {int(n == 5)}'") for n in range(TASKS)]
)
assert len(result.result_values) == TASKS, len(result.result_values)
counts = until("the end of all tasks", lambda: (c := client.get_job_task_counts("job").task_counts).completed == TASKS and c)
ids = [task.id for task in client.list_tasks("job", max_results=50, select=["id", "state"])]
assert ids == sorted(ids) and len(set(ids)) == TASKS
failed = list(client.list_tasks("job", filter="executionInfo/result eq 'failure'"))
assert [task.id for task in failed] == ["t005"] and failed[0].execution_info.exit_code == 1
files = {file.name for file in client.list_task_files("job", "t007", recursive=True)}
assert {"stdout.txt", "stderr.txt"} <= files, files
stdout = b"".join(client.download_task_file("job", "t007", "stdout.txt")).decode()
part = b"".join(client.download_task_file("job", "t123", "stdout.txt", ocp_range="bytes=0-1")).decode()
properties = client.get_task_file_properties("job", "t007", "stdout.txt")
assert properties.content_length == len(stdout), properties

client.reactivate_task("job", "t005")
until("the failed task again", lambda: client.get_task("job", "t005").state == "completed")
refused(ResourceNotFoundError, "TaskNotFound", client.get_task, "job", "none")
refused(ResourceExistsError, "JobExists", client.create_job, models.BatchJobCreateOptions(id="JOB", pool_info=pool_info))
refused(HttpResponseError, "InvalidQueryParameterValue", lambda: list(client.list_jobs(filter="colour eq 'red'")))

schedule = models.BatchJobScheduleConfiguration(do_not_run_until=datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc))
specification = models.BatchJobSpecification(pool_info=pool_info)
client.create_job_schedule(models.BatchJobScheduleCreateOptions(id="later", schedule=schedule, job_specification=specification))
assert client.job_schedule_exists("later") and client.get_job_schedule("later").state == "active"
client.begin_delete_job_schedule("later", polling_interval=1).result(60)

client.enable_pool_auto_scale("modern", models.BatchPoolEnableAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes = 1;"))
evaluated = client.evaluate_pool_auto_scale("modern", models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes = 2;"))
assert evaluated.error is None and "$TargetDedicatedNodes=2" in evaluated.results, evaluated
client.disable_pool_auto_scale("modern")
nodes = [count.dedicated.total for count in client.list_pool_node_counts()]
client.begin_delete_job("job", polling_interval=1).result(60)
client.begin_delete_pool("modern", polling_interval=1).result(60)
assert is_gone(client.pool_exists, "modern")
print(json.dumps({"counts": {"succeeded": counts.succeeded, "failed": counts.failed}, "stdout": stdout, "part": part, "nodes": nodes}))
