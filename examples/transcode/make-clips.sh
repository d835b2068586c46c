#!/usr/bin/env bash
# Makes a folder of 24 video clips from several generators and durations; two of them are broken on purpose.
# usage: make-clips.sh FOLDER
set -euo pipefail
folder=${1:?usage: make-clips.sh FOLDER}
mkdir -p "$folder"
generators=(testsrc testsrc2 smptebars rgbtestsrc mandelbrot life=s=320x180:mold=10:r=12:ratio=0.1 cellauto=s=320x180)
for number in $(seq -w 1 22); do
  generator=${generators[$((10#$number % ${#generators[@]}))]}
  case $generator in *=*) source=$generator ;; *) source="$generator=size=320x180:rate=12" ;; esac
  ffmpeg -nostdin -hide_banner -loglevel error -y -f lavfi -i "$source" -f lavfi -i "sine=frequency=$((200 + 10#$number * 20))" \
    -t "$((1 + 10#$number % 3))" -c:v mpeg4 -q:v 6 -pix_fmt yuv420p -c:a aac "$folder/clip-$number.mp4"
done
# One has lost its end, with the index in it; the other is not a video at all.
head -c 2000 "$folder/clip-01.mp4" > "$folder/clip-23-cut.mp4"
echo 'this is not a video' > "$folder/clip-24-text.mp4"
