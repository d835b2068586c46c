"""Turns files that are dropped into a bucket into rows of a SQLite table.

A function of runtime `lines`: each line is an S3 event as AWS sends it, and is answered with a line.
"""
import datetime
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import urllib.parse
import urllib.request

ENDPOINT, REGION = os.environ["S3_ENDPOINT"], os.environ["S3_REGION"]
ACCESS_KEY, SECRET_KEY = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]


def get(bucket, key):
    """Reads an object, by a URL that is signed as S3 wants it."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    host = urllib.parse.urlsplit(ENDPOINT).netloc
    path = "/" + urllib.parse.quote(f"{bucket}/{key}", safe="/-_.~")
    query = urllib.parse.urlencode(sorted({
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{ACCESS_KEY}/{scope}", "X-Amz-Date": now,
        "X-Amz-Expires": "300", "X-Amz-SignedHeaders": "host"}.items()))
    request = "\n".join(["GET", path, query, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    signing = ("AWS4" + SECRET_KEY).encode()
    for part in scope.split("/"):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
    with urllib.request.urlopen(f"{ENDPOINT}{path}?{query}&X-Amz-Signature={signature}", timeout=60) as answer:
        return answer.read()


def main():
    table = sqlite3.connect(os.environ["TABLE"], timeout=60, isolation_level=None)
    for line in sys.stdin:
        try:
            for record in json.loads(line)["Records"]:
                bucket, found = record["s3"]["bucket"]["name"], record["s3"]["object"]
                key = urllib.parse.unquote_plus(found["key"])
                content = get(bucket, key)
                row = (key, len(content), len(content.split()), hashlib.sha256(content).hexdigest())
                # An invocation runs at least once: a second one changes nothing but its count.
                table.execute("INSERT INTO files VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET times = times + 1", row)
            answer = {"done": True}
        except Exception as error:
            answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
        print(json.dumps(answer), flush=True)


main()
