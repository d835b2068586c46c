#!/usr/bin/env bash
# What rclone, as it comes, expects of S3. One check a function; prints "ok NAME" for each; ends with 1 when one fails.
# Usage: rclone.sh ENDPOINT FOLDER; credentials and region are in the environment, FOLDER is empty.
set -uo pipefail
endpoint=$1 folder=$2
cd "$folder" || exit 1
export RCLONE_CONFIG="$folder/none" RCLONE_CONFIG_STORE_TYPE=s3 RCLONE_CONFIG_STORE_PROVIDER=Other RCLONE_CONFIG_STORE_ENDPOINT=$endpoint
export RCLONE_CONFIG_STORE_ENV_AUTH=true RCLONE_CONFIG_STORE_REGION=${AWS_DEFAULT_REGION:-us-east-1} RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=1
: > none
bucket=rclone-$RANDOM$RANDOM failed=0
check() {
  # Not as the condition of an if, where -e would be ignored.
  (set -e; "$1") > log 2>&1
  if [ $? = 0 ]; then echo "ok $1"; else failed=1; echo "FAILED $1"; cat log; fi
}
not() { if "$@"; then echo "succeeded: $*"; return 1; fi; }
same() { [ "$1" = "$2" ] || { echo "expected: $2"; echo "found:    $1"; return 1; }; }

mkdir_makes_a_bucket() { rclone mkdir "store:$bucket"; rclone lsd store: | grep -q "$bucket"; }
copy_moves_a_tree() {
  mkdir -p tree/a/b 'tree/with space' tree/ünïcödé; echo 1 > tree/a/1; echo 2 > tree/a/b/2; : > tree/empty
  echo 3 > 'tree/with space/+3&%=?#'; echo 4 > tree/ünïcödé/ключ-鍵-🦀; echo 5 > "tree/quote'\""; echo 6 > 'tree/star*[x]'
  rclone copy tree "store:$bucket/tree"; rclone copy "store:$bucket/tree" tree.back; diff -r tree tree.back
}
check_compares_by_md5() { rclone check tree "store:$bucket/tree" --one-way; rclone check tree "store:$bucket/tree" --download; }
check_finds_a_change() { cp -r tree changed; echo 9 > changed/a/1; not rclone check changed "store:$bucket/tree"; }
copy_moves_a_large_file_in_parts() {
  head -c 16000003 /dev/urandom > large; rclone copy large "store:$bucket" --s3-upload-cutoff 5M --s3-chunk-size 5M
  rclone copyto "store:$bucket/large" large.back; cmp large large.back
}
modification_times_are_kept() {
  touch -d '2020-01-02 03:04:05.678' tree/a/1; rclone copy tree "store:$bucket/tree"; rclone copy "store:$bucket/tree/a/1" time.back
  same "$(stat -c %Y time.back/1)" "$(stat -c %Y tree/a/1)"
  out=$(rclone lsjson "store:$bucket/tree/a/1"); grep -q 2020-01-02T <<< "$out"
}
lsjson_tells_names_and_sizes() {
  out=$(rclone lsjson -R --files-only "store:$bucket" | grep -o '"Size":16000003'); same "$out" '"Size":16000003'
  same "$(rclone lsf -R --files-only "store:$bucket/tree" | wc -l)" 7
}
size_counts() { out=$(rclone size "store:$bucket/tree" --json); grep -q '"count":7' <<< "$out"; }
cat_reads_a_range() { out=$(rclone cat "store:$bucket/tree/a/1" --offset 0 --count 1); same "$out" 1; }
rcat_streams() { head -c 6000000 large | rclone rcat "store:$bucket/streamed" --s3-chunk-size 5M; rclone cat "store:$bucket/streamed" | cmp - <(head -c 6000000 large); }
sync_deletes_what_is_gone() {
  rm tree/a/b/2; echo new > tree/new; rclone sync tree "store:$bucket/tree"; rclone check tree "store:$bucket/tree"
}
copyto_copies_within_the_store() { rclone copyto "store:$bucket/large" "store:$bucket/copy"; rclone cat "store:$bucket/copy" | cmp - large; }
moveto_moves_within_the_store() { rclone moveto "store:$bucket/copy" "store:$bucket/moved"; same "$(rclone lsf --files-only "store:$bucket" --include copy)" ""; rclone cat "store:$bucket/moved" | cmp - large; }
checksums_are_md5() { out=$(rclone md5sum "store:$bucket/tree/new" | cut -d' ' -f1); same "$out" "$(md5sum tree/new | cut -d' ' -f1)"; }
links_can_be_fetched() {
  url=$(rclone link "store:$bucket/tree/new" --expire 60s)
  out=$(python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' "$url"); same "$out" new
}
cleanup_drops_unfinished_uploads() { rclone cleanup "store:$bucket"; }
delete_empties_and_rmdir_removes() { rclone purge "store:$bucket/tree"; rclone delete "store:$bucket"; rclone rmdir "store:$bucket"; not rclone lsf "store:$bucket"; }

for name in mkdir_makes_a_bucket copy_moves_a_tree check_compares_by_md5 check_finds_a_change copy_moves_a_large_file_in_parts \
  modification_times_are_kept lsjson_tells_names_and_sizes size_counts cat_reads_a_range rcat_streams sync_deletes_what_is_gone \
  copyto_copies_within_the_store moveto_moves_within_the_store checksums_are_md5 links_can_be_fetched cleanup_drops_unfinished_uploads \
  delete_empties_and_rmdir_removes; do
  check "$name"
done
exit "$failed"
