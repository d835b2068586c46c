#!/usr/bin/env bash
# Transcodes a folder of clips to two renditions and a thumbnail each, the way people use GNU parallel.
# With no server configured each `piecework map` runs on a stack of its own.
# usage: map.sh CLIPS OUT        Ends with 1 when some clips failed; what could be made is in OUT.
set -euo pipefail
clips=${1:?usage: map.sh CLIPS OUT} out=${2:?usage: map.sh CLIPS OUT}
piecework=${PIECEWORK:-piecework}
quiet=(-nostdin -hide_banner -loglevel error -y)
status=0
"$piecework" map --in "$clips" --out "$out/240p" --name '{stem}.mp4' -- ffmpeg "${quiet[@]}" -i {in} -vf scale=-2:240 -c:v mpeg4 -q:v 5 -c:a aac {out} || status=1
"$piecework" map --in "$clips" --out "$out/120p" --name '{stem}.mp4' -- ffmpeg "${quiet[@]}" -i {in} -vf scale=-2:120 -c:v mpeg4 -q:v 8 -c:a aac {out} || status=1
"$piecework" map --in "$clips" --out "$out/thumbs" --name '{stem}.jpg' -- ffmpeg "${quiet[@]}" -i {in} -frames:v 1 -vf scale=160:-2 {out} || status=1
exit $status
