"""What boto3, as it comes, expects of S3. One check a function; prints "ok NAME" for each; ends with 1 when one fails.

Usage: suite.py ENDPOINT [SKIPPED,…]; the access key, its secret and the region are in the environment, as boto3 reads them."""
import datetime
import hashlib
import io
import os
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request
import uuid

import boto3
import botocore.config
import botocore.exceptions

ENDPOINT = sys.argv[1]
SKIPPED = set(sys.argv[2].split(",")) if len(sys.argv) > 2 else set()
MIB = 1024 * 1024
CHECKS = []
SPECIAL = ["../escape", "x", "x/y", "a b+c&d=e?f#g%h", "ünïcödé/ключ/鍵", "dot/./dot", "//double", "k" * 1024, "emoji-🦀", "quote'\"<>"]


def check(function):
    CHECKS.append(function)
    return function


def client(**settings):
    return boto3.client("s3", endpoint_url=ENDPOINT, **settings)


def refused(code, call, **arguments):
    """The call must fail with this S3 code or HTTP status."""
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        found = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert code in (found, status), f"{found} {status}"
        return error
    raise AssertionError(f"not refused, expected {code}")


def noise(size):
    return (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]


def keys(s3, bucket, **arguments):
    return [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, **arguments).get("Contents", [])]


def fetch(url, method="GET", body=None, headers={}):
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@check
def buckets_are_made_listed_and_removed(s3, bucket):
    name = f"{bucket}-more"
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)
    assert name in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    s3.get_bucket_location(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=name)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    refused(404, s3.head_bucket, Bucket=name)


@check
def waiters_see_what_exists(s3, bucket):
    quick = {"Delay": 1, "MaxAttempts": 3}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.get_waiter("bucket_exists").wait(Bucket=bucket, WaiterConfig=quick)
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="k", WaiterConfig=quick)
    s3.get_waiter("object_not_exists").wait(Bucket=bucket, Key="other", WaiterConfig=quick)


@check
def an_object_comes_back_with_its_headers_and_metadata(s3, bucket):
    expires = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentType="text/plain", CacheControl="no-cache",
                        ContentDisposition="attachment", ContentEncoding="identity", ContentLanguage="de", Expires=expires,
                        Metadata={"colour": "blue"})
    for found in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert found["ContentType"] == "text/plain" and found["CacheControl"] == "no-cache"
        assert found["ContentDisposition"] == "attachment" and found["ContentLanguage"] == "de"
        assert found["ContentEncoding"] == "identity" and found["Metadata"] == {"colour": "blue"}
        assert found["ETag"] == put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"' and found["ContentLength"] == 5
        assert found["ExpiresString"] == "Tue, 06 May 2031 07:08:09 GMT", found["ExpiresString"]
        age = datetime.datetime.now(datetime.timezone.utc) - found["LastModified"]
        assert abs(age.total_seconds()) < 300
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


@check
def an_empty_object_is_an_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="empty")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


@check
def a_missing_object_is_no_such_key(s3, bucket):
    try:
        s3.get_object(Bucket=bucket, Key="missing")
    except s3.exceptions.NoSuchKey:
        refused(404, s3.head_object, Bucket=bucket, Key="missing")
        return
    raise AssertionError("found")


@check
def streams_without_seeking_are_taken(s3, bucket):
    body = noise(300_000)
    s3.upload_fileobj(io.BufferedReader(io.BytesIO(body)), bucket, "stream")
    out = io.BytesIO()
    s3.download_fileobj(bucket, "stream", out)
    assert out.getvalue() == body


@check
def upload_file_and_download_file_move_parts(s3, bucket):
    body = noise(21 * MIB + 17)
    seen = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "a"), os.path.join(folder, "b")
        with open(source, "wb") as file:
            file.write(body)
        s3.upload_file(source, bucket, "large", Callback=seen.append, ExtraArgs={"ContentType": "x/y", "Metadata": {"a": "b"}})
        s3.download_file(bucket, "large", target)
        with open(target, "rb") as file:
            assert file.read() == body
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ETag"].endswith('-3"') and head["ContentType"] == "x/y" and head["Metadata"] == {"a": "b"}
    assert sum(seen) == len(body)


@check
def ranges_are_cut(s3, bucket):
    body = noise(200_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    def cut(given):
        return s3.get_object(Bucket=bucket, Key="k", Range=given)
    found = cut("bytes=100-199")
    assert found["Body"].read() == body[100:200] and found["ContentRange"] == "bytes 100-199/200000"
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert cut("bytes=-10")["Body"].read() == body[-10:]
    assert cut("bytes=199990-999999")["Body"].read() == body[199990:]
    refused("InvalidRange", s3.get_object, Bucket=bucket, Key="k", Range="bytes=200000-")


@check
def checksums_of_every_algorithm_are_kept_and_verified(s3, bucket):
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = s3.put_object(Bucket=bucket, Key=algorithm, Body=b"hello", ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        got = s3.get_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")
        assert got["Body"].read() == b"hello" and got[name] == put[name] and put[name]


@check
def a_wrong_checksum_stores_nothing(s3, bucket):
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert keys(s3, bucket) == []


@check
def default_puts_carry_a_checksum(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert put["ChecksumCRC32"] == "NhCmhg==", put
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumCRC32"] == "NhCmhg=="


@check
def copies_keep_or_replace_metadata(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from a", Body=b"x", Metadata={"a": "1"}, ContentType="text/plain")
    source = {"Bucket": bucket, "Key": "from a"}
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    assert s3.head_object(Bucket=bucket, Key="kept")["Metadata"] == {"a": "1"}
    s3.copy_object(Bucket=bucket, Key="new", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="new")["Metadata"] == {"b": "2"}
    refused("NoSuchKey", s3.copy_object, Bucket=bucket, Key="no", CopySource={"Bucket": bucket, "Key": "missing"})


@check
def managed_copies_of_large_objects_are_whole(s3, bucket):
    body = noise(9 * MIB)
    s3.upload_fileobj(io.BytesIO(body), bucket, "from")
    s3.copy({"Bucket": bucket, "Key": "from"}, bucket, "to")
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == body


@check
def parts_are_copied_by_range(s3, bucket):
    body = noise(6 * MIB)
    s3.put_object(Bucket=bucket, Key="from", Body=body)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="to")["UploadId"]
    parts = []
    for number, given in ((1, f"bytes=0-{5 * MIB - 1}"), (2, f"bytes={5 * MIB}-{6 * MIB - 1}")):
        copied = s3.upload_part_copy(Bucket=bucket, Key="to", UploadId=upload, PartNumber=number,
                                     CopySource={"Bucket": bucket, "Key": "from"}, CopySourceRange=given)
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="to", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == body


@check
def uploads_are_listed_continued_and_aborted(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=noise(5 * MIB))
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    parts = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert [(p["PartNumber"], p["Size"]) for p in parts] == [(1, 5 * MIB)]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    refused("NoSuchUpload", s3.list_parts, Bucket=bucket, Key="k", UploadId=upload)


@check
def small_parts_are_refused_at_the_end(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = [{"PartNumber": n, "ETag": s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=n, Body=b"x")["ETag"]} for n in (1, 2)]
    refused("EntityTooSmall", s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert keys(s3, bucket) == []


@check
def paginators_walk_every_key_once(s3, bucket):
    wanted = [f"{folder}/{at:02}" for folder in "abc" for at in range(11)]
    for key in wanted:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    for operation in ("list_objects", "list_objects_v2"):
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 5}))
        assert [o["Key"] for page in pages for o in page["Contents"]] == wanted and len(pages) == 7, operation
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})
        found = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
        assert found == ["a/", "b/", "c/"], found
    found = s3.list_objects_v2(Bucket=bucket, Prefix="b/", StartAfter="b/07", FetchOwner=True)
    assert [o["Key"] for o in found["Contents"]] == ["b/08", "b/09", "b/10"] and found["KeyCount"] == 3


@check
def special_keys_are_ordinary(s3, bucket):
    for key in SPECIAL:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert sorted(keys(s3, bucket)) == sorted(SPECIAL)
    for key in SPECIAL:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), key
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
        assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode(), key
    refused("KeyTooLongError", s3.put_object, Bucket=bucket, Key="k" * 1025, Body=b"x")


@check
def many_objects_are_deleted_at_once(s3, bucket):
    for key in SPECIAL:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    wanted = {"Objects": [{"Key": key} for key in SPECIAL + ["missing"]]}
    done = s3.delete_objects(Bucket=bucket, Delete=wanted)
    assert len(done["Deleted"]) == len(SPECIAL) + 1 and "Errors" not in done
    assert keys(s3, bucket) == []
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x"}], "Quiet": True})


@check
def tags_are_set_read_and_removed(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=2")
    def tags():
        return {t["Key"]: t["Value"] for t in s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]}
    assert tags() == {"a": "1", "b": "2"}
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "c", "Value": "3"}]})
    assert tags() == {"c": "3"}
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert tags() == {}


@check
def conditional_reads_answer_304_and_412(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    refused(304, s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)
    refused(412, s3.get_object, Bucket=bucket, Key="k", IfMatch='"other"')
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    refused(304, s3.head_object, Bucket=bucket, Key="k", IfModifiedSince=later)
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=later)["Body"].read() == b"x"


@check
def conditional_writes_hold(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"0"')
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    refused("NoSuchKey", s3.put_object, Bucket=bucket, Key="other", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"


@check
def one_of_many_racing_first_puts_wins(s3, bucket):
    won = []
    def put(at):
        try:
            s3.put_object(Bucket=bucket, Key="k", Body=str(at).encode(), IfNoneMatch="*")
            won.append(at)
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict")
    threads = [threading.Thread(target=put, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(won) == 1 and s3.get_object(Bucket=bucket, Key="k")["Body"].read() == str(won[0]).encode()


def presigned(signer, s3, bucket):
    put = signer.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "a b"}, ExpiresIn=60)
    assert fetch(put, "PUT", b"hello", {"Content-Type": ""})[0] == 200
    get = signer.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b"}, ExpiresIn=60)
    assert fetch(get) == (200, b"hello")
    assert fetch(get, headers={"Range": "bytes=1-2"}) == (206, b"el")
    head = signer.generate_presigned_url("head_object", {"Bucket": bucket, "Key": "a b"}, ExpiresIn=60)
    assert fetch(head, "HEAD")[0] == 200
    named = {"Bucket": bucket, "Key": "a b", "ResponseContentType": "text/x", "ResponseContentDisposition": "inline"}
    assert fetch(signer.generate_presigned_url("get_object", named)) == (200, b"hello")
    assert fetch(get.replace("a%20b", "other"))[0] == 403
    assert fetch(get, "DELETE")[0] == 403
    expired = signer.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b"}, ExpiresIn=-5)
    assert fetch(expired)[0] in (400, 403)
    delete = signer.generate_presigned_url("delete_object", {"Bucket": bucket, "Key": "a b"}, ExpiresIn=60)
    assert fetch(delete, "DELETE")[0] == 204 and keys(s3, bucket) == []


@check
def presigned_urls_as_boto3_makes_them_by_default(s3, bucket):
    presigned(s3, s3, bucket)


@check
def presigned_urls_of_version_4(s3, bucket):
    presigned(client(config=botocore.config.Config(signature_version="s3v4")), s3, bucket)


@check
def presigned_urls_of_version_2(s3, bucket):
    presigned(client(config=botocore.config.Config(signature_version="s3")), s3, bucket)


@check
def wrong_keys_are_told_apart(s3, bucket):
    refused("InvalidAccessKeyId", client(aws_access_key_id="nobody", aws_secret_access_key="x").list_objects_v2, Bucket=bucket)
    refused("SignatureDoesNotMatch", client(aws_secret_access_key="wrong", aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"]).list_objects_v2, Bucket=bucket)


@check
def lifecycle_rules_are_kept(s3, bucket):
    rules = [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3},
              "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}]
    refused("NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=bucket)
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    s3.delete_bucket_lifecycle(Bucket=bucket)
    refused("NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=bucket)


@check
def notifications_are_kept(s3, bucket):
    queue = {"Id": "q", "QueueArn": "arn:aws:sqs:us-east-1:1:q", "Events": ["s3:ObjectCreated:*"],
             "Filter": {"Key": {"FilterRules": [{"Name": "Prefix", "Value": "in/"}, {"Name": "Suffix", "Value": ".png"}]}}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [queue]})
    assert s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"] == [queue]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)


@check
def what_is_not_there_says_so(s3, bucket):
    refused("NotImplemented", s3.get_bucket_policy, Bucket=bucket)
    refused("NotImplemented", s3.put_object, Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms")
    assert keys(s3, bucket) == []


@check
def the_resource_interface_works_too(s3, bucket):
    held = boto3.resource("s3", endpoint_url=ENDPOINT).Bucket(bucket)
    for at in range(5):
        held.put_object(Key=f"k{at}", Body=b"x")
    assert [o.key for o in held.objects.filter(Prefix="k")] == [f"k{at}" for at in range(5)]
    assert held.Object("k1").get()["Body"].read() == b"x"
    held.objects.all().delete()
    assert list(held.objects.all()) == []


def main():
    failed = 0
    s3 = client()
    for function in CHECKS:
        if function.__name__ in SKIPPED:
            print("listed", function.__name__, flush=True)
            continue
        bucket = f"boto-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(Bucket=bucket)
        try:
            function(s3, bucket)
            print("ok", function.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", function.__name__, traceback.format_exc(), flush=True)
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=found["Key"])
        s3.delete_bucket(Bucket=bucket)
    sys.exit(1 if failed else 0)


main()
