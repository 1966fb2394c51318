#!/bin/sh
# Make one environment inside a build: install.sh uv|user|hub|exchange|proxy|caddy
set -eu
name=$1
# The index's address may hold a password, so it comes as a secret: an argument of a build can be read in the image.
# shellcheck source=/dev/null
if [ -s /run/secrets/packages ]; then set -a; . /run/secrets/packages; set +a; fi
if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi

if [ "$name" = uv ]; then
  python3 -c "from hub.environments import installer; installer()"
else
  python3 -m hub.environments "$name"
  sh images/environments/trim.sh "$name"
fi
if [ "$name" != uv ]; then rm -f "/opt/envs/$name"/.made-from "/opt/envs/$name"/.lock "/opt/envs/$name"/.gitignore; fi
find /opt/envs -exec touch -h -d "@${SOURCE_DATE_EPOCH:-1577836800}" {} +
