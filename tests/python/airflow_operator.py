"""Airflow's AzureBatchOperator, its hook and its trigger, unmodified, against a whole stack.

Arguments: URL, account, key, a folder for Airflow's files, a bucket, and scenes to play (all when none is named).
Scenes run beside each other, each on a pool of its own, for the operator waits 10 and 15 seconds between its looks.
Prints one JSON object with what each scene saw.
"""

import asyncio
import faulthandler
import json
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

URL, ACCOUNT, KEY, FOLDER, BUCKET = sys.argv[1:6]
SECONDS_MAX = 300
WAIT_MAX = 120
# The operator waits for nodes without a limit of its own.
faulthandler.dump_traceback_later(SECONDS_MAX, exit=True)


def connection(key):
    return json.dumps({"conn_type": "azure_batch", "login": ACCOUNT, "password": key, "extra": {"account_url": URL}})


os.environ.update(
    AIRFLOW_HOME=FOLDER,
    AIRFLOW_CONN_AZURE_BATCH_DEFAULT=connection(KEY),
    AIRFLOW_CONN_WRONG=connection("d3Jvbmcga2V5"),
)

from airflow.providers.common.compat.sdk import TaskDeferred  # noqa: E402  they read the environment
from airflow.providers.microsoft.azure.hooks.batch import AzureBatchHook  # noqa: E402
from airflow.providers.microsoft.azure.operators.batch import AzureBatchOperator  # noqa: E402
from airflow.providers.microsoft.azure.triggers.batch import AzureBatchTrigger  # noqa: E402
from azure.batch import models  # noqa: E402
from azure.core.exceptions import ResourceNotFoundError  # noqa: E402

client = AzureBatchHook().connection


def operator(name, task="task", command="echo hello", **changes):
    """An operator whose pool and job have the scene's name."""
    settings = dict(
        task_id=f"{name}-{task}",
        batch_pool_id=name,
        batch_pool_vm_size="standard_d2s_v3",
        batch_job_id=name,
        batch_task_id=task,
        batch_task_command_line=f"/bin/sh -c '{command}'",
        vm_publisher="canonical",
        vm_offer="0001-com-ubuntu-server-jammy",
        vm_sku="22_04-lts",
        vm_version="latest",
        vm_node_agent_sku_id="batch.node.ubuntu 22.04",
        target_dedicated_nodes=1,
        timeout=4,
    )
    return AzureBatchOperator(**settings | changes)


def until(what, look):
    deadline = time.monotonic() + WAIT_MAX
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come")


def raised(call, *arguments):
    """What the operator raised, as text; it must raise what it documents for a failed job."""
    try:
        call(*arguments)
    except RuntimeError as error:
        return str(error)
    raise SystemExit("the operator should have raised")


def is_gone(get, name):
    try:
        return get(name).state == "deleting"
    except ResourceNotFoundError:
        return True


def is_running(job, task="task"):
    try:
        return client.get_task(job, task).state == "running"
    except ResourceNotFoundError:
        return False


def stdout(job, task="task"):
    return b"".join(client.download_task_file(job, task, "stdout.txt")).decode()


def a_new_pool_is_made_and_used_again():
    """The pool is made and waited for; then pool, job and tasks that are there already are no hindrance."""
    start = models.BatchStartTask(command_line="/bin/sh -c 'echo started > $AZ_BATCH_NODE_SHARED_DIR/mark'", wait_for_success=True)
    container = models.OutputFileBlobContainerDestination(container_url=f"s3://{BUCKET}", path="first")
    upload = models.OutputFileUploadConfiguration(upload_condition="tasksuccess")
    output = models.OutputFile(
        file_pattern="*.out", destination=models.OutputFileDestination(container=container), upload_options=upload
    )
    user = models.UserIdentity(auto_user=models.AutoUserSpecification(scope="task", elevation_level="nonadmin"))
    first = operator(
        "fresh",
        "first",
        "cat $AZ_BATCH_NODE_SHARED_DIR/mark; echo 42 > answer.out",
        target_dedicated_nodes=2,
        batch_pool_display_name="a pool",
        batch_job_display_name="a job",
        batch_task_display_name="a task",
        batch_start_task=start,
        batch_task_output_files=[output],
        batch_task_user_identity=user,
    )
    first.execute({})
    first.execute({})
    pool, job, task = client.get_pool("fresh"), client.get_job("fresh"), client.get_task("fresh", "first")
    assert (pool.display_name, job.display_name, task.display_name) == ("a pool", "a job", "a task")
    assert (pool.current_dedicated_nodes, pool.start_task.command_line) == (2, start.command_line)
    assert stdout("fresh", "first") == "started\n"

    inputs = [models.ResourceFile(storage_container_url=f"s3://{BUCKET}", blob_prefix="first/")]
    failing = dict(batch_task_resource_files=inputs, target_dedicated_nodes=2)
    command = "cat first/answer.out; exit 3"
    message = raised(operator("fresh", "second", command, **failing).execute, {})
    second = client.get_task("fresh", "second").execution_info
    assert (second.exit_code, second.result, second.failure_info.code) == (3, "failure", "FailureExitCode"), second
    text = stdout("fresh", "second")
    raised(operator("fresh", "second", command, should_delete_job=True, **failing).execute, {})
    assert is_gone(client.get_job, "fresh") and not is_gone(client.get_pool, "fresh")
    return [text, message.split(":")[0]]


def job_and_pool_are_deleted():
    """Both are gone when the operator returns."""
    operator("brief", target_low_priority_nodes=1, should_delete_job=True, should_delete_pool=True).execute({})
    return [is_gone(client.get_job, "brief"), is_gone(client.get_pool, "brief")]


def a_killed_operator_ends_its_job():
    """What Airflow does when somebody marks a running task as failed."""
    running = operator("killed", command="sleep 600")
    execution = ThreadPoolExecutor(1).submit(raised, running.execute, {})
    until("a running task", lambda: is_running("killed"))
    try:
        running.on_kill()
    except ValueError:
        # azure-batch 15.1.0 fails before it sends anything: https://github.com/Azure/azure-sdk-for-python/issues/46815
        client.begin_terminate_job("killed", options={"terminateReason": "killed"}).result()
    job, task = client.get_job("killed"), client.get_task("killed", "task")
    message = execution.result(WAIT_MAX)
    assert job.execution_info.end_time is not None
    return [job.state, task.state, task.execution_info.result, task.execution_info.failure_info.code, message.split(":")[0]]


def deferred_until(running):
    """Executes until the operator defers; its trigger, through the form in which Airflow stores it."""
    try:
        running.execute({})
    except TaskDeferred as deferred:
        _, arguments = deferred.trigger.serialize()
        return AzureBatchTrigger(**json.loads(json.dumps(arguments))), getattr(running, deferred.method_name)
    raise SystemExit("the operator should have deferred")


def event_of(trigger):
    async def first():
        async for event in trigger.run():
            return event.payload

    return asyncio.run(first())


def a_deferred_operator_is_resumed_by_its_trigger():
    """Success, a failed task, and a job that takes too long."""
    shared = dict(deferrable=True, poll_interval=1, should_delete_job=True)
    trigger, resume = deferred_until(operator("deferred", command="sleep 2", **shared))
    success = event_of(trigger)
    resume({}, success)
    assert is_gone(client.get_job, "deferred")

    trigger, resume = deferred_until(operator("deferred", command="exit 1", batch_job_id="failing", **shared))
    error = event_of(trigger)
    message = raised(resume, {}, error)
    assert "Failed tasks: ['task']" in message, message

    slow = operator("deferred", command="sleep 600", batch_job_id="slow", should_delete_pool=True, **shared)
    trigger, resume = deferred_until(slow)
    until("a running task", lambda: is_running("slow"))
    trigger.end_time = time.time()
    late = event_of(trigger)
    assert "Timeout" in raised(resume, {}, late)
    assert is_gone(client.get_job, "slow") and is_gone(client.get_pool, "deferred")
    return [success["status"], error["status"], error["failed_tasks"], late["status"]]


def a_formula_sizes_the_pool_and_a_manager_adds_tasks():
    """The image is the newest verified one, as the door lists it."""
    manager = models.BatchJobManagerTask(
        id="manager", command_line="/bin/sh -c 'echo managed'", kill_job_on_completion=False, run_exclusive=False
    )
    operator(
        "formula",
        enable_auto_scale=True,
        auto_scale_formula="$TargetDedicatedNodes = 1;",
        target_dedicated_nodes=None,
        use_latest_verified_vm_image_and_sku=True,
        vm_publisher="piecework",
        vm_offer="host",
        sku_starts_with="lin",
        vm_sku="linux",
        batch_job_manager_task=manager,
    ).execute({})
    pool = client.get_pool("formula")
    return [pool.virtual_machine_configuration.node_agent_sku_id, stdout("formula", "manager"), stdout("formula")]


def a_connection_is_tested():
    """The button in Airflow's form, with the right key and with a wrong one."""
    good, bad = AzureBatchHook().test_connection(), AzureBatchHook("wrong").test_connection()
    return [good[0], bad[0], "AuthenticationFailed" in bad[1]]


SCENES = {
    "fresh": a_new_pool_is_made_and_used_again,
    "brief": job_and_pool_are_deleted,
    "killed": a_killed_operator_ends_its_job,
    "deferred": a_deferred_operator_is_resumed_by_its_trigger,
    "formula": a_formula_sizes_the_pool_and_a_manager_adds_tasks,
    "connection": a_connection_is_tested,
}
names = sys.argv[6:] or list(SCENES)
stage = ThreadPoolExecutor(len(names))
plays = {stage.submit(SCENES[name]): name for name in names}
try:
    print(json.dumps({plays[play]: play.result() for play in as_completed(plays)}), flush=True)
except BaseException:
    traceback.print_exc()
    # The other scenes would go on until their own limits.
    os._exit(1)
