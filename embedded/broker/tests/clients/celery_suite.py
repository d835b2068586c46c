"""What Celery expects of quorum queues: tasks, countdown, eta, retry. Prints "ok NAME" for each; ends with 1 when one fails."""
import datetime
import os
import subprocess
import sys
import tempfile
import time
import traceback
import uuid

os.environ["CELERY_URL"] = sys.argv[1]
os.environ["CELERY_QUEUE"] = "celery-" + uuid.uuid4().hex
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import celery_app as tasks  # noqa: E402

WAIT_SECONDS = 60
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def a_task_runs():
    assert tasks.add.delay(2, 3).get(timeout=WAIT_SECONDS) == 5


@check
def many_tasks_run():
    results = [tasks.add.delay(number, 1) for number in range(100)]
    assert [result.get(timeout=WAIT_SECONDS) for result in results] == list(range(1, 101))


@check
def late_acks_work():
    results = [tasks.slow.delay() for _ in range(5)]
    assert all(result.get(timeout=WAIT_SECONDS) for result in results)


@check
def a_countdown_is_kept():
    sent = time.time()
    started = tasks.now.apply_async(countdown=3).get(timeout=WAIT_SECONDS)
    assert started - sent >= 2.5, started - sent


@check
def an_eta_is_kept():
    sent = time.time()
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    started = tasks.now.apply_async(eta=eta).get(timeout=WAIT_SECONDS)
    assert started - sent >= 1, started - sent


@check
def a_retry_comes_back():
    assert tasks.third_time.delay().get(timeout=WAIT_SECONDS) == 2


def main():
    command = [sys.executable, "-B", "-m", "celery", "-A", "celery_app", "worker", "--pool=threads", "--concurrency=4", "--loglevel=INFO"]
    with tempfile.TemporaryFile("w+") as log:
        worker = subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log)
        failed = 0
        try:
            for function in CHECKS:
                try:
                    function()
                    print("ok", function.__name__, flush=True)
                except Exception:
                    failed += 1
                    print("FAILED", function.__name__, flush=True)
                    traceback.print_exc()
        finally:
            worker.terminate()
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
            if failed:
                log.seek(0)
                sys.stderr.write(log.read())
            with tasks.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(os.environ["CELERY_QUEUE"])
    sys.exit(1 if failed else 0)


main()
