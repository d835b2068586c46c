#!/usr/bin/env python3
"""The same as a job of Azure Batch tasks with resource and output files, through the official Python client.

usage: job.py READY_FILE CLIPS OUT
Prints a JSON object: for each clip the result, and for failed ones the reason and the end of stderr.
"""

import io
import json
import pathlib
import sys
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from blobs import Blobs, read_ready  # noqa: E402

POOL, JOB, CLIPS, RENDITIONS = "transcode", "transcode-job", "clips", "renditions"
QUIET = "ffmpeg -nostdin -hide_banner -loglevel error -y"
COMMAND = (
    f"/bin/sh -c '{QUIET} -i {{clip}} -vf scale=-2:240 -c:v mpeg4 -q:v 5 -c:a aac {{stem}}.240p.mp4"
    f" && {QUIET} -i {{clip}} -vf scale=-2:120 -c:v mpeg4 -q:v 8 -c:a aac {{stem}}.120p.mp4"
    f" && {QUIET} -i {{clip}} -frames:v 1 -vf scale=160:-2 {{stem}}.jpg'"
)


def main(ready_file, clips, out):
    ready = read_ready(ready_file)
    blobs = Blobs(ready)
    client = BatchServiceClient(SharedKeyCredentials(ready["account"], ready["key"]), batch_url=ready["url"])
    for bucket in (CLIPS, RENDITIONS):
        blobs.make_bucket(bucket)
    clips = sorted(pathlib.Path(clips).iterdir())
    for clip in clips:
        blobs.put(CLIPS, clip.name, clip)

    image = models.ImageReference(publisher="any", offer="any", sku="any")
    machine = models.VirtualMachineConfiguration(image_reference=image, node_agent_sku_id="batch.node.linux")
    client.pool.add(models.PoolAddParameter(id=POOL, vm_size="local", virtual_machine_configuration=machine, target_dedicated_nodes=1, task_slots_per_node=2))
    client.job.add(models.JobAddParameter(id=JOB, pool_info=models.PoolInformation(pool_id=POOL)))
    container = models.OutputFileBlobContainerDestination(container_url=f"s3://{RENDITIONS}")
    outputs = [
        models.OutputFile(
            file_pattern=pattern,
            destination=models.OutputFileDestination(container=container),
            upload_options=models.OutputFileUploadOptions(upload_condition=models.OutputFileUploadCondition.task_success),
        )
        for pattern in ("*.240p.mp4", "*.120p.mp4", "*.jpg")
    ]
    tasks = [
        models.TaskAddParameter(
            id=clip.stem,
            command_line=COMMAND.format(clip=clip.name, stem=clip.stem),
            resource_files=[models.ResourceFile(auto_storage_container_name=CLIPS, blob_prefix=clip.name)],
            output_files=outputs,
        )
        for clip in clips
    ]
    client.task.add_collection(JOB, tasks)
    deadline = time.monotonic() + 600
    while any(task.state != models.TaskState.completed for task in client.task.list(JOB)):
        if time.monotonic() > deadline:
            raise SystemExit("the job did not end in ten minutes")
        time.sleep(0.5)

    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for key in blobs.list(RENDITIONS):
        blobs.get(RENDITIONS, key, pathlib.Path(out) / key)
    report = {}
    for task in client.task.list(JOB):
        info = task.execution_info
        report[task.id] = {"result": info.result}
        if info.failure_info:
            buffer = io.BytesIO()
            for chunk in client.file.get_from_task(JOB, task.id, "stderr.txt"):
                buffer.write(chunk)
            report[task.id] |= {"reason": info.failure_info.message, "stderr": buffer.getvalue().decode()[-300:]}
    client.job.delete(JOB)
    client.pool.delete(POOL)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:4])
