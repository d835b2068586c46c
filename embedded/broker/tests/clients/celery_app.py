"""A Celery application as its documentation sets one up for quorum queues. CELERY_URL and CELERY_QUEUE say where."""
import os
import time

import celery

app = celery.Celery("quorum", broker=os.environ["CELERY_URL"], backend="rpc://")
app.conf.update(
    task_default_queue=os.environ["CELERY_QUEUE"],
    task_default_exchange=os.environ["CELERY_QUEUE"],
    task_default_exchange_type="topic",
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    worker_hijack_root_logger=False,
)


@app.task
def add(x, y):
    return x + y


@app.task
def now():
    return time.time()


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return self.request.retries


@app.task(acks_late=True)
def slow():
    time.sleep(0.2)
    return True
