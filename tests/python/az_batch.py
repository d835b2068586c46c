"""Azure CLI's `az batch`, unmodified, against one endpoint: pools, jobs, tasks, files, nodes, job schedules.

Arguments: URL, account, key, a folder for scratch files. Prints one JSON object with what it saw.
The commands run inside one interpreter, because starting `az` anew takes a second each time.
"""

import io
import json
import os
import pathlib
import sys
import time

URL, ACCOUNT, KEY, FOLDER = sys.argv[1:5]
folder = pathlib.Path(FOLDER)
os.environ.update(
    AZURE_CONFIG_DIR=str(folder / "az"),
    AZURE_BATCH_ACCOUNT=ACCOUNT,
    AZURE_BATCH_ACCESS_KEY=KEY,
    AZURE_BATCH_ENDPOINT=URL,
    AZURE_CORE_COLLECT_TELEMETRY="no",
    AZURE_CORE_ONLY_SHOW_ERRORS="true",
)

from azure.cli.core import get_default_cli  # noqa: E402  it reads the environment

seen = {"commands": 0}


def az(*arguments, fails=None):
    """Runs one command; its JSON. With `fails` it must fail and name that code."""
    out, cli = io.StringIO(), get_default_cli()
    try:
        status = cli.invoke(["batch", *arguments, "--output", "json"], out_file=out)
    except SystemExit as end:
        status = end.code
    error = str(cli.result.error) if cli.result else ""
    seen["commands"] += 1
    if fails is not None:
        assert status, f"az batch {' '.join(arguments)} should have failed with {fails}"
        assert fails in error, (arguments, fails, error)
        return None
    assert not status, (arguments, status, error)
    text = out.getvalue().strip()
    return json.loads(text) if text else None


def wait(what, check, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"gave up waiting for {what}")


def gone(kind, *arguments):
    """Whether a thing that is being deleted is gone."""
    try:
        az(kind, "show", *arguments)
        return False
    except AssertionError as error:
        assert "NotFound" in str(error), error
        return True


def write(name, document):
    path = folder / name
    path.write_text(json.dumps(document))
    return str(path)


# Pools: by flags and by file.
image = ["--image", "canonical:0001-com-ubuntu-server-focal:20_04-lts:latest", "--node-agent-sku-id", "batch.node.ubuntu 20.04"]
az("pool", "create", "--id", "flags", "--vm-size", "Standard_A1_v2", "--target-dedicated-nodes", "1", "--task-slots-per-node", "2", *image)
az("pool", "create", "--id", "flags", "--vm-size", "Standard_A1_v2", "--target-dedicated-nodes", "1", *image, fails="PoolExists")
machine = {"imageReference": {"publisher": "a", "offer": "b", "sku": "c"}, "nodeAgentSKUId": "d"}
pool = {"id": "file", "vmSize": "small", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine}
az("pool", "create", "--json-file", write("pool.json", pool))
assert {pool["id"] for pool in az("pool", "list")} == {"flags", "file"}
assert [pool["id"] for pool in az("pool", "list", "--filter", "startswith(id,'fl')")] == ["flags"]
az("pool", "set", "--pool-id", "file", "--metadata", "owner=me")
assert az("pool", "show", "--pool-id", "file")["metadata"] == [{"name": "owner", "value": "me"}]
az("pool", "resize", "--pool-id", "file", "--target-dedicated-nodes", "1")
az("pool", "resize", "--pool-id", "file", "--abort")
wait("the resize to end", lambda: az("pool", "show", "--pool-id", "file")["allocationState"] == "steady")
az("pool", "autoscale", "enable", "--pool-id", "file", "--auto-scale-formula", "$TargetDedicatedNodes=0;")
run = az("pool", "autoscale", "evaluate", "--pool-id", "file", "--auto-scale-formula", "$TargetDedicatedNodes=7;")
assert "$TargetDedicatedNodes=7" in run["results"], run
az("pool", "autoscale", "disable", "--pool-id", "file")
assert any(count["poolId"] == "flags" for count in az("pool", "node-counts", "list"))
assert az("pool", "supported-images", "list")
az("pool", "show", "--pool-id", "nowhere", fails="PoolNotFound")

# Jobs.
az("job", "create", "--id", "j", "--pool-id", "flags", "--priority", "5")
az("job", "create", "--id", "j", "--pool-id", "flags", fails="JobExists")
az("job", "set", "--job-id", "j", "--priority", "7")
assert az("job", "show", "--job-id", "j")["priority"] == 7
az("job", "disable", "--job-id", "j", "--disable-tasks", "requeue")
wait("the job to be disabled", lambda: az("job", "show", "--job-id", "j")["state"] == "disabled")
az("job", "enable", "--job-id", "j")
wait("the job to be active", lambda: az("job", "show", "--job-id", "j")["state"] == "active")
assert [job["id"] for job in az("job", "list")] == ["j"]

# Tasks: one by flags, many by file, one that fails.
az("task", "create", "--job-id", "j", "--task-id", "one", "--command-line", "/bin/sh -c 'echo hello; echo oops >&2'")
many = [{"id": f"t{number}", "commandLine": "/bin/true"} for number in range(120)]
az("task", "create", "--job-id", "j", "--json-file", write("tasks.json", many))
az("task", "create", "--job-id", "j", "--task-id", "bad", "--command-line", "/bin/sh -c 'exit 3'")
az("task", "create", "--job-id", "j", "--task-id", "one", "--command-line", "x", fails="TaskExists")
wait("the tasks to end", lambda: az("job", "task-counts", "show", "--job-id", "j")["taskCounts"]["completed"] == 122)
seen["counts"] = az("job", "task-counts", "show", "--job-id", "j")["taskCounts"]
task = az("task", "show", "--job-id", "j", "--task-id", "one")
assert task["executionInfo"]["exitCode"] == 0, task
assert [task["id"] for task in az("task", "list", "--job-id", "j", "--filter", "executionInfo/exitCode eq 3")] == ["bad"]
az("task", "reactivate", "--job-id", "j", "--task-id", "bad")
wait("the failed task to fail again", lambda: az("task", "show", "--job-id", "j", "--task-id", "bad")["state"] == "completed")
az("task", "reset", "--job-id", "j", "--task-id", "one", "--max-task-retry-count", "1", fails="TaskCompleted")
az("task", "stop", "--job-id", "j", "--task-id", "one", fails="TaskCompleted")
assert az("task", "subtask", "list", "--job-id", "j", "--task-id", "one") in ([], {"value": []})

# Files of tasks and nodes.
names = {file["name"] for file in az("task", "file", "list", "--job-id", "j", "--task-id", "one", "--recursive")}
assert {"stdout.txt", "stderr.txt"} <= names, names
target = folder / "stdout.txt"
az("task", "file", "download", "--job-id", "j", "--task-id", "one", "--file-path", "stdout.txt", "--destination", str(target))
seen["stdout"] = target.read_text()
# `file show` is left out: az 2.91 fails on every answer to it, as it takes the response's headers for a mapping.
az("task", "file", "delete", "--job-id", "j", "--task-id", "one", "--file-path", "stderr.txt", "--yes")
node = az("node", "list", "--pool-id", "flags")[0]["id"]
assert az("node", "show", "--pool-id", "flags", "--node-id", node)["state"] in ("idle", "running")
assert az("node", "file", "list", "--pool-id", "flags", "--node-id", node)
az("node", "scheduling", "disable", "--pool-id", "flags", "--node-id", node, "--node-disable-scheduling-option", "TaskCompletion")
az("node", "scheduling", "enable", "--pool-id", "flags", "--node-id", node)
az("node", "remote-login-settings", "show", "--pool-id", "flags", "--node-id", node)
az("node", "reboot", "--pool-id", "flags", "--node-id", node)
az("task", "delete", "--job-id", "j", "--task-id", "one", "--yes")
az("task", "show", "--job-id", "j", "--task-id", "one", fails="TaskNotFound")

# Job schedules.
soon = {"doNotRunUntil": "2099-01-01T00:00:00Z", "recurrenceInterval": "PT1H"}
schedule = {"id": "s", "schedule": soon, "jobSpecification": {"poolInfo": {"poolId": "file"}}}
az("job-schedule", "create", "--json-file", write("schedule.json", schedule))
assert az("job-schedule", "show", "--job-schedule-id", "s")["state"] == "active"
az("job-schedule", "disable", "--job-schedule-id", "s")
assert az("job-schedule", "show", "--job-schedule-id", "s")["state"] == "disabled"
az("job-schedule", "enable", "--job-schedule-id", "s")
assert az("job", "list", "--job-schedule-id", "s") == []
az("job-schedule", "set", "--job-schedule-id", "s", "--recurrence-interval", "PT2H")
assert [schedule["id"] for schedule in az("job-schedule", "list")] == ["s"]
az("job-schedule", "stop", "--job-schedule-id", "s")
az("job-schedule", "delete", "--job-schedule-id", "s", "--yes")
wait("the schedule to go", lambda: gone("job-schedule", "--job-schedule-id", "s"))

# The end.
assert az("application", "summary", "list") == []
az("job", "stop", "--job-id", "j")
wait("the job to end", lambda: az("job", "show", "--job-id", "j")["state"] == "completed")
az("job", "delete", "--job-id", "j", "--yes")
wait("the job to go", lambda: gone("job", "--job-id", "j"))
for name in ("flags", "file"):
    az("pool", "delete", "--pool-id", name, "--yes")
    wait("the pool to go", lambda: gone("pool", "--pool-id", name))
print(json.dumps(seen))
