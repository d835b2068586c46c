#!/usr/bin/env bash
# What awscli, as it comes, expects of S3. One check a function; prints "ok NAME" for each; ends with 1 when one fails.
# Usage: aws.sh PYTHON ENDPOINT FOLDER; credentials and region are in the environment, FOLDER is empty.
set -uo pipefail
python=$1 endpoint=$2 folder=$3
cd "$folder" || exit 1
aws() { "$python" -m awscli --endpoint-url "$endpoint" "$@"; }
bucket=awscli-$RANDOM$RANDOM failed=0
check() {
  # Not as the condition of an if, where -e would be ignored.
  (set -e; "$1") > log 2>&1
  if [ $? = 0 ]; then echo "ok $1"; else failed=1; echo "FAILED $1"; cat log; fi
}
not() { if "$@"; then echo "succeeded: $*"; return 1; fi; }
same() { [ "$1" = "$2" ] || { echo "expected: $2"; echo "found:    $1"; return 1; }; }

mb_makes_a_bucket() { aws s3 mb "s3://$bucket"; aws s3 ls | grep -q "$bucket"; }
cp_moves_a_small_file() {
  echo hello > small; aws s3 cp small "s3://$bucket/dir/small"
  aws s3 cp "s3://$bucket/dir/small" back; cmp small back
}
cp_moves_a_large_file_in_parts() {
  head -c 20000003 /dev/urandom > large; aws s3 cp large "s3://$bucket/large" --no-progress
  aws s3 cp "s3://$bucket/large" large.back --no-progress; cmp large large.back
  etag=$(aws s3api head-object --bucket "$bucket" --key large --query ETag --output text)
  case $etag in *-3\"*) ;; *) echo "$etag is not of three parts"; return 1 ;; esac
}
cp_streams_both_ways() {
  printf streamed | aws s3 cp - "s3://$bucket/streamed"
  out=$(aws s3 cp "s3://$bucket/streamed" -); same "$out" streamed
}
cp_copies_within_the_store() {
  aws s3 cp "s3://$bucket/large" "s3://$bucket/copy" --no-progress; aws s3 cp "s3://$bucket/copy" copy.back --no-progress; cmp large copy.back
}
mv_moves() { aws s3 mv "s3://$bucket/copy" "s3://$bucket/moved" --no-progress; not aws s3 ls "s3://$bucket/copy"; aws s3 ls "s3://$bucket/moved"; }
ls_shows_folders_and_sums() {
  out=$(aws s3 ls "s3://$bucket/"); grep -q "PRE dir/" <<< "$out"
  out=$(aws s3 ls "s3://$bucket/" --recursive --summarize); grep -q "Total Objects: 4" <<< "$out"
}
sync_copies_what_differs_and_deletes_what_is_gone() {
  mkdir -p tree/a/b 'tree/with space' tree/ü; echo 1 > tree/a/1; echo 2 > tree/a/b/2; echo 3 > 'tree/with space/+3&'; echo 4 > tree/ü/ключ
  aws s3 sync tree "s3://$bucket/tree"
  out=$(aws s3 sync tree "s3://$bucket/tree"); same "$out" ""
  echo changed-by-now > tree/a/1; rm tree/a/b/2
  out=$(aws s3 sync tree "s3://$bucket/tree" --delete); same "$(grep -c . <<< "$out")" 2
  aws s3 sync "s3://$bucket/tree" tree.back; rmdir tree/a/b; diff -r tree tree.back
}
include_and_exclude_filter() {
  mkdir -p some; touch some/x.txt some/y.log; aws s3 cp some "s3://$bucket/some" --recursive --exclude '*' --include '*.txt'
  out=$(aws s3 ls "s3://$bucket/some/"); grep -q x.txt <<< "$out"; not grep -q y.log <<< "$out"
}
presigned_urls_can_be_fetched() {
  url=$(aws s3 presign "s3://$bucket/dir/small" --expires-in 60)
  out=$("$python" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' "$url"); same "$out" hello
}
s3api_puts_and_gets_with_checksums() {
  aws s3api put-object --bucket "$bucket" --key sums --body small --checksum-algorithm SHA256 --metadata a=b --content-type text/plain
  out=$(aws s3api get-object --bucket "$bucket" --key sums --checksum-mode ENABLED --query '[ChecksumSHA256, ContentType, Metadata.a]' --output text sums.back)
  same "$out" "$(printf '%s\ttext/plain\tb' "$("$python" -c 'import base64, hashlib; print(base64.b64encode(hashlib.sha256(open("small", "rb").read()).digest()).decode())')")"; cmp small sums.back
}
s3api_gets_a_range() {
  aws s3api get-object --bucket "$bucket" --key dir/small --range bytes=1-2 range; same "$(cat range)" el
}
s3api_multipart_by_hand() {
  id=$(aws s3api create-multipart-upload --bucket "$bucket" --key hand --query UploadId --output text)
  etag=$(aws s3api upload-part --bucket "$bucket" --key hand --upload-id "$id" --part-number 1 --body small --query ETag --output text)
  out=$(aws s3api list-parts --bucket "$bucket" --key hand --upload-id "$id" --query 'length(Parts)'); same "$out" 1
  out=$(aws s3api list-multipart-uploads --bucket "$bucket" --query 'length(Uploads)'); same "$out" 1
  aws s3api complete-multipart-upload --bucket "$bucket" --key hand --upload-id "$id" --multipart-upload "{\"Parts\":[{\"PartNumber\":1,\"ETag\":$etag}]}"
  out=$(aws s3 cp "s3://$bucket/hand" -); same "$out" hello
}
s3api_tags() {
  aws s3api put-object-tagging --bucket "$bucket" --key hand --tagging 'TagSet=[{Key=a,Value=b}]'
  out=$(aws s3api get-object-tagging --bucket "$bucket" --key hand --query 'TagSet[0].Value' --output text); same "$out" b
}
s3api_conditional_put() {
  not aws s3api put-object --bucket "$bucket" --key hand --body small --if-none-match '*'
}
s3api_delete_objects() {
  out=$(aws s3api delete-objects --bucket "$bucket" --delete 'Objects=[{Key=hand},{Key=sums},{Key=missing}]' --query 'length(Deleted)'); same "$out" 3
}
s3api_lists_pages() {
  out=$(aws s3api list-objects-v2 --bucket "$bucket" --page-size 2 --query 'length(Contents)'); [ "$out" -ge 6 ]
  out=$(aws s3api list-objects --bucket "$bucket" --page-size 2 --query 'length(Contents)'); [ "$out" -ge 6 ]
}
s3api_lifecycle() {
  aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --lifecycle-configuration '{"Rules":[{"ID":"r","Status":"Enabled","Filter":{"Prefix":"tmp/"},"Expiration":{"Days":1}}]}'
  out=$(aws s3api get-bucket-lifecycle-configuration --bucket "$bucket" --query 'Rules[0].Expiration.Days'); same "$out" 1
  aws s3api delete-bucket-lifecycle --bucket "$bucket"
}
s3api_notifications() {
  aws s3api put-bucket-notification-configuration --bucket "$bucket" --notification-configuration '{"TopicConfigurations":[{"TopicArn":"arn:aws:sns:us-east-1:1:t","Events":["s3:ObjectCreated:*"]}]}'
  out=$(aws s3api get-bucket-notification-configuration --bucket "$bucket" --query 'TopicConfigurations[0].TopicArn' --output text); same "$out" arn:aws:sns:us-east-1:1:t
}
rm_removes_recursively() { aws s3 rm "s3://$bucket/tree" --recursive; not aws s3 ls "s3://$bucket/tree/"; }
rb_refuses_a_full_bucket_and_removes_it_by_force() { not aws s3 rb "s3://$bucket"; aws s3 rb "s3://$bucket" --force; not aws s3 ls "s3://$bucket"; }

for name in mb_makes_a_bucket cp_moves_a_small_file cp_moves_a_large_file_in_parts cp_streams_both_ways cp_copies_within_the_store mv_moves \
  ls_shows_folders_and_sums sync_copies_what_differs_and_deletes_what_is_gone include_and_exclude_filter presigned_urls_can_be_fetched \
  s3api_puts_and_gets_with_checksums s3api_gets_a_range s3api_multipart_by_hand s3api_tags s3api_conditional_put s3api_delete_objects \
  s3api_lists_pages s3api_lifecycle s3api_notifications rm_removes_recursively rb_refuses_a_full_bucket_and_removes_it_by_force; do
  check "$name"
done
exit "$failed"
