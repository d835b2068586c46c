"""The quickstart flow of the official Python client azure-batch 14.2.0, unmodified, against one endpoint.

Arguments: URL, account, key, URL of an input file. Prints one JSON object with what it saw.
"""

import io
import json
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

URL, ACCOUNT, KEY, INPUT = sys.argv[1:5]
TASKS = int(sys.argv[5]) if len(sys.argv) > 5 else 100
client = BatchServiceClient(SharedKeyCredentials(ACCOUNT, KEY), batch_url=URL)
POOL, JOB = "PythonQuickstartPool", "PythonQuickstartJob"


def wait(what, check, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"gave up waiting for {what}")


client.pool.add(
    models.PoolAddParameter(
        id=POOL,
        virtual_machine_configuration=models.VirtualMachineConfiguration(
            image_reference=models.ImageReference(publisher="canonical", offer="0001-com-ubuntu-server-focal", sku="20_04-lts", version="latest"),
            node_agent_sku_id="batch.node.ubuntu 20.04",
        ),
        vm_size="STANDARD_A1_v2",
        target_dedicated_nodes=2,
        task_slots_per_node=2,
    )
)
try:
    image = models.ImageReference(publisher="a", offer="b", sku="c")
    machine = models.VirtualMachineConfiguration(image_reference=image, node_agent_sku_id="d")
    client.pool.add(models.PoolAddParameter(id=POOL, vm_size="x", target_dedicated_nodes=0, virtual_machine_configuration=machine))
    raise SystemExit("a second pool of the same name was accepted")
except models.BatchErrorException as error:
    assert error.error.code == "PoolExists", error.error.code

client.job.add(models.JobAddParameter(id=JOB, pool_info=models.PoolInformation(pool_id=POOL)))
tasks = [
    models.TaskAddParameter(
        id=f"Task{number}",
        command_line=f"/bin/bash -c \"cat input.txt; echo from $AZ_BATCH_TASK_ID {number}\"",
        resource_files=[models.ResourceFile(http_url=INPUT, file_path="input.txt")],
    )
    for number in range(TASKS)
]
for start in range(0, TASKS, 100):
    result = client.task.add_collection(JOB, tasks[start : start + 100])
    assert all(item.status == models.TaskAddStatus.success for item in result.value), [item.error for item in result.value if item.error]

wait("all tasks to complete", lambda: all(task.state == models.TaskState.completed for task in client.task.list(JOB)))

outputs, nodes, exits, urls = {}, set(), set(), []
for task in client.task.list(JOB):
    nodes.add(task.node_info.node_id)
    urls.append(task.url)
    exits.add(task.execution_info.exit_code)
    stream = client.file.get_from_task(JOB, task.id, "stdout.txt")
    buffer = io.BytesIO()
    for chunk in stream:
        buffer.write(chunk)
    outputs[task.id] = buffer.getvalue().decode()

counts = client.job.get_task_counts(JOB)
files = sorted(file.name for file in client.file.list_from_task(JOB, "Task0", recursive=True))
properties = client.file.get_properties_from_task(JOB, "Task0", "stdout.txt", raw=True)
print(
    json.dumps(
        {
            "outputs": outputs,
            "urls": urls,
            "nodes": sorted(nodes),
            "exits": sorted(exits),
            "succeeded": counts.task_counts.succeeded,
            "files": files,
            "length": int(properties.response.headers["Content-Length"]),
            "pool_nodes": sorted(node.id for node in client.compute_node.list(POOL)),
            "filtered": len(list(client.task.list(JOB, models.TaskListOptions(filter="state eq 'completed'", select="id,state", max_results=7)))),
        }
    )
)
client.job.delete(JOB)
client.pool.delete(POOL)


def gone(read):
    try:
        read()
        return False
    except models.BatchErrorException as error:
        return error.response.status_code == 404


wait("the job to go", lambda: gone(lambda: client.job.get(JOB)))
wait("the pool to go", lambda: gone(lambda: client.pool.get(POOL)))
