#!/usr/bin/env python3
"""Drops files into a bucket by rclone and waits until a function has made a row of each.

    ingest.py READY_FILE TABLE FOLDER [--lose]

READY_FILE is what `piecework up --ready-file` writes. With --lose the notifications of every second file are thrown away,
so a listing of the bucket has to find those. Needs `piecework` ($PIECEWORK) and `rclone`.
"""
import hashlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time

ready_file, table_file, folder = sys.argv[1:4]
loses = "--lose" in sys.argv
ready = json.load(open(ready_file))
s3 = ready["s3"]
patience = float(os.environ.get("PATIENCE", 1800))
environment = {
    # Settings for AWS itself would reach rclone, too.
    **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")}, "PIECEWORK_SERVER": ready_file, "RCLONE_CONFIG": os.devnull,
    "RCLONE_CONFIG_STORE_TYPE": "s3", "RCLONE_CONFIG_STORE_PROVIDER": "Other", "RCLONE_CONFIG_STORE_ENDPOINT": s3["endpoint"],
    "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": s3["access_key"], "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": s3["secret_key"],
    "RCLONE_CONFIG_STORE_REGION": s3["region"],
}


def run(*words):
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def piecework(*words):
    return run(os.environ.get("PIECEWORK", "piecework"), "--json", *words)


def copy(names):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(names) + "\n")
        listed.flush()
        run("rclone", "copy", "--transfers", "16", "--no-traverse", "--files-from", listed.name, folder, "store:ingest/in")


names = sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())
table = sqlite3.connect(table_file, timeout=60, isolation_level=None)
table.execute("PRAGMA journal_mode = WAL")
table.execute("CREATE TABLE files (key TEXT PRIMARY KEY, bytes INTEGER, words INTEGER, sha256 TEXT, times INTEGER)")

run("rclone", "mkdir", "store:ingest")
piecework("pool", "create", "ingest", "--nodes", "1", "--slots", "4")
settings = {
    "S3_ENDPOINT": s3["endpoint"], "S3_REGION": s3["region"], "S3_ACCESS_KEY": s3["access_key"], "S3_SECRET_KEY": s3["secret_key"],
    "TABLE": os.path.abspath(table_file),
}
variables = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
code = tempfile.TemporaryDirectory()
pathlib.Path(code.name, "app.py").write_text(pathlib.Path(__file__).with_name("app.py").read_text())
piecework("function", "deploy", code.name, "--pool", "ingest", "--name", "ingest", "--runtime", "lines",
          "--command", f"{sys.executable} app.py", *variables)
piecework("trigger", "add", "ingest", "--bucket", "ingest", "--prefix", "in/", "--pool", "ingest", "--function", "ingest",
          "--listing", "PT0S")


def trigger():
    return json.loads(piecework("trigger", "show", "ingest"))


if loses:
    piecework("trigger", "pause", "ingest")
    copy(names[::2])
    deadline = time.time() + patience
    thrown = 0
    while thrown < len(names[::2]) and time.time() < deadline:
        thrown += json.loads(piecework("queue", "purge", trigger()["queue"]))["purged"]
        time.sleep(0.2)
    piecework("trigger", "resume", "ingest")
    copy(names[1::2])
    piecework("trigger", "run", "ingest")
else:
    copy(names)

deadline = time.time() + patience
while table.execute("SELECT count(*) FROM files").fetchone()[0] < len(names) and time.time() < deadline:
    time.sleep(0.2)

found = {key: (sha256, times) for key, sha256, times in table.execute("SELECT key, sha256, times FROM files")}
wanted = {"in/" + name: hashlib.sha256(pathlib.Path(folder, name).read_bytes()).hexdigest() for name in names}
shown = trigger()
print(json.dumps({
    "files": len(names), "rows": len(found), "missing": len(wanted.keys() - found.keys()),
    "different": sum(found[key][0] != sha256 for key, sha256 in wanted.items() if key in found),
    "twice": sum(times > 1 for _, times in found.values()), "fired": shown["eventsFired"], "byListing": shown["eventsListed"],
}))
