#!/usr/bin/env python3
"""Counts words in text files: one task for each file, and one that merges when all of them have ended.

usage: wordcount.py READY_FILE OUT FILE...
"""

import pathlib
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from blobs import Blobs, read_ready  # noqa: E402

POOL, JOB, TEXTS, COUNTS = "wordcount", "wordcount-job", "texts", "counts"
COUNT = "/bin/sh -c 'LC_ALL=C tr -cs A-Za-z \"\\\\n\" < {name} | LC_ALL=C tr A-Z a-z | LC_ALL=C sort | uniq -c > {name}.count'"
MERGE = "/bin/sh -c 'cat parts/*.count | awk \"{ n[\\$2] += \\$1 } END { for (w in n) print n[w], w }\" | LC_ALL=C sort -k2 > total.txt'"


def output(pattern):
    container = models.OutputFileBlobContainerDestination(container_url=f"s3://{COUNTS}")
    options = models.OutputFileUploadOptions(upload_condition=models.OutputFileUploadCondition.task_success)
    return [models.OutputFile(file_pattern=pattern, destination=models.OutputFileDestination(container=container), upload_options=options)]


def main(ready_file, out, *files):
    ready = read_ready(ready_file)
    blobs = Blobs(ready)
    client = BatchServiceClient(SharedKeyCredentials(ready["account"], ready["key"]), batch_url=ready["url"])
    for bucket in (TEXTS, COUNTS):
        blobs.make_bucket(bucket)
    for number, file in enumerate(files, start=1):
        blobs.put(TEXTS, f"{number}.txt", file)

    image = models.ImageReference(publisher="any", offer="any", sku="any")
    machine = models.VirtualMachineConfiguration(image_reference=image, node_agent_sku_id="batch.node.linux")
    client.pool.add(models.PoolAddParameter(id=POOL, vm_size="local", virtual_machine_configuration=machine, target_dedicated_nodes=2, task_slots_per_node=2))
    client.job.add(models.JobAddParameter(id=JOB, pool_info=models.PoolInformation(pool_id=POOL), uses_task_dependencies=True))
    counting = [
        models.TaskAddParameter(
            id=str(number),
            command_line=COUNT.format(name=f"{number}.txt"),
            resource_files=[models.ResourceFile(auto_storage_container_name=TEXTS, blob_prefix=f"{number}.txt")],
            output_files=output("*.count"),
        )
        for number in range(1, len(files) + 1)
    ]
    merging = models.TaskAddParameter(
        id="merge",
        command_line=MERGE,
        depends_on=models.TaskDependencies(task_id_ranges=[models.TaskIdRange(start=1, end=len(files))]),
        resource_files=[models.ResourceFile(storage_container_url=f"s3://{COUNTS}", file_path="parts")],
        output_files=output("total.txt"),
    )
    for start in range(0, len(counting), 100):
        client.task.add_collection(JOB, counting[start : start + 100])
    client.task.add(JOB, merging)
    deadline = time.monotonic() + 600
    while (task := client.task.get(JOB, "merge")).state != models.TaskState.completed:
        if time.monotonic() > deadline:
            raise SystemExit("the job did not end in ten minutes")
        time.sleep(0.2)
    if task.execution_info.failure_info:
        raise SystemExit(f"merge failed: {task.execution_info.failure_info.message}")
    blobs.get(COUNTS, "total.txt", out)
    client.job.delete(JOB)
    client.pool.delete(POOL)


if __name__ == "__main__":
    main(*sys.argv[1:])
