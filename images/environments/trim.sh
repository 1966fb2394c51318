#!/bin/sh
# Take out of an environment what no running program reads: the packages' own tests, and maps of minified scripts.
set -eu
folder=$TINYTORCH_ENVS/$1

find "$folder" -path '*/site-packages/*' -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
find "$folder" -type f -name '*.js.map' -delete

if [ "$1" = proxy ]; then                        # the program itself, without npm and the wheel around it
  cp --remove-destination "$(readlink -f "$folder/node")" "$folder/node"
fi
