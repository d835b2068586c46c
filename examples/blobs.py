"""Puts, lists and gets blobs of a running stack with nothing but curl, which signs requests itself."""

import json
import subprocess
import urllib.parse
import xml.etree.ElementTree as xml


class Blobs:
    """The blob store that a ready file of `piecework up --ready-file` names."""

    def __init__(self, ready):
        self.s3 = ready["s3"]

    def curl(self, *arguments):
        signing = ["--aws-sigv4", f"aws:amz:{self.s3['region']}:s3", "--user", f"{self.s3['access_key']}:{self.s3['secret_key']}"]
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "120", *signing, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def url(self, bucket, key=""):
        return f"{self.s3['endpoint']}/{bucket}/{urllib.parse.quote(key)}"

    def make_bucket(self, bucket):
        self.curl("-X", "PUT", self.url(bucket).rstrip("/"))

    def put(self, bucket, key, path):
        self.curl("-T", str(path), self.url(bucket, key))

    def get(self, bucket, key, path):
        self.curl("-o", str(path), self.url(bucket, key))

    def list(self, bucket):
        tree = xml.fromstring(self.curl(f"{self.url(bucket).rstrip('/')}?list-type=2"))
        return [node.text for node in tree.iter() if node.tag.endswith("}Key")]


def read_ready(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)
