"""Jobs that bring their pool along, by the official Python client azure-batch 14.2.0, unmodified, against a whole stack.

Arguments: URL, account, key, scratch folder. Prints JSON of what it saw.
"""

import datetime
import json
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

URL, ACCOUNT, KEY = sys.argv[1:4]
client = BatchServiceClient(SharedKeyCredentials(ACCOUNT, KEY), batch_url=URL)


def until(what, look, limit=120):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come")


def job_in(job, state):
    return until(f"{job} in {state}", lambda: (lambda found: found if found.state == state else None)(client.job.get(job)))


machine = models.VirtualMachineConfiguration(
    image_reference=models.ImageReference(publisher="p", offer="o", sku="s"), node_agent_sku_id="batch.node.linux"
)
auto = models.AutoPoolSpecification(
    auto_pool_id_prefix="py",
    pool_lifetime_option=models.PoolLifetimeOption.job,
    keep_alive=False,
    pool=models.PoolSpecification(
        vm_size="local",
        virtual_machine_configuration=machine,
        target_dedicated_nodes=1,
        task_slots_per_node=2,
        start_task=models.StartTask(command_line="/bin/true"),
        resize_timeout=datetime.timedelta(minutes=15),
    ),
)
client.job.add(models.JobAddParameter(id="own", pool_info=models.PoolInformation(auto_pool_specification=auto)))
job = client.job.get("own")
shown = job.pool_info.auto_pool_specification
assert job.pool_info.pool_id is None and job.execution_info.pool_id.startswith("py_"), job
assert (shown.auto_pool_id_prefix, shown.pool_lifetime_option, shown.keep_alive) == ("py", "job", False), shown
assert (shown.pool.task_slots_per_node, shown.pool.resize_timeout) == (2, datetime.timedelta(minutes=15)), shown.pool
assert client.pool.get(job.execution_info.pool_id).start_task.command_line == "/bin/true"
client.task.add_collection("own", [models.TaskAddParameter(id=name, command_line=f"/bin/echo {name}") for name in ("a", "b")])
# What was read goes back as it is: that changes nothing but what is named.
client.job.update("own", models.JobUpdateParameter(pool_info=job.pool_info, on_all_tasks_complete="terminatejob"))
ended = job_in("own", models.JobState.completed)
exits = [task.execution_info.exit_code for task in client.task.list("own")]
until("the end of the pool", lambda: not client.pool.exists(job.execution_info.pool_id))

client.job.add(models.JobAddParameter(id="kept", pool_info=models.PoolInformation(auto_pool_specification=auto)))
client.job.disable("kept", models.DisableJobOption.requeue)
kept = job_in("kept", models.JobState.disabled)
kept.pool_info.auto_pool_specification.keep_alive = True
client.job.patch("kept", models.JobPatchParameter(pool_info=kept.pool_info))
assert client.job.get("kept").pool_info.auto_pool_specification.keep_alive is True
client.job.delete("kept")


def is_gone():
    try:
        client.job.get("kept")
    except models.BatchErrorException as error:
        return error.error.code == "JobNotFound"


until("the end of the job", is_gone)
kept_state = client.pool.get(kept.execution_info.pool_id).state
client.pool.delete(kept.execution_info.pool_id)
print(json.dumps({"exits": exits, "reason": ended.execution_info.terminate_reason, "kept": kept_state.value}))
