"""Puts, lists and gets blobs of a running stack with nothing but Python's own library, signing each request (SigV4)."""

import datetime
import hashlib
import hmac
import json
import pathlib
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

TIMEOUT_SECONDS = 120


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Blobs:
    """The blob store that a ready file of `piecework up --ready-file` names."""

    def __init__(self, ready):
        self.s3 = ready["s3"]

    def request(self, method, bucket, key="", query="", body=b""):
        endpoint = urllib.parse.urlsplit(self.s3["endpoint"])
        path = f"/{bucket}/{urllib.parse.quote(key)}" if key else f"/{bucket}"
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": endpoint.netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
        names = ";".join(sorted(headers))
        listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"{method}\n{path}\n{query}\n{listed}\n{names}\n{digest}"
        scope = f"{moment[:8]}/{self.s3['region']}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signing = sign(b"AWS4" + self.s3["secret_key"].encode(), moment[:8])
        for part in (self.s3["region"], "s3", "aws4_request"):
            signing = sign(signing, part)
        signature = sign(signing, text).hex()
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.s3['access_key']}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = f"{self.s3['endpoint']}{path}" + (f"?{query}" if query else "")
        request = urllib.request.Request(url, method=method, headers=headers, data=body if method == "PUT" else None)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.read()

    def make_bucket(self, bucket):
        try:
            self.request("PUT", bucket)
        except urllib.error.HTTPError as error:
            if error.code != 409:  # it is there from the last time
                raise

    def put(self, bucket, key, path):
        self.request("PUT", bucket, key, body=pathlib.Path(path).read_bytes())

    def get(self, bucket, key, path):
        pathlib.Path(path).write_bytes(self.request("GET", bucket, key))

    def list(self, bucket):
        tree = xml.fromstring(self.request("GET", bucket, query="list-type=2"))
        return [node.text for node in tree.iter() if node.tag.endswith("}Key")]


def read_ready(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)
