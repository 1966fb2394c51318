#!/bin/sh
# Install packages of the distribution inside a build, with what the build was told about certificates and proxies.
#
#   apt.sh [--upgrade] PACKAGE…
set -eu
export DEBIAN_FRONTEND=noninteractive
ca=/run/secrets/ca
# shellcheck source=/dev/null
if [ -s /run/secrets/packages ]; then set -a; . /run/secrets/packages; set +a; fi
if [ -s $ca ]; then set -- -o "Acquire::https::CaInfo=$ca" "$@"; else set -- -o APT::Color=0 "$@"; fi
option=$1 value=$2; shift 2
upgrade=false
if [ "$1" = --upgrade ]; then upgrade=true; shift; fi

get() { apt-get "$option" "$value" -qq -o Dpkg::Use-Pty=0 "$@" >/tmp/apt.log 2>&1 || { cat /tmp/apt.log >&2; exit 1; }; }

get update
if $upgrade; then get -y upgrade; fi
get -y --no-install-recommends install "$@"
rm -f /tmp/apt.log
