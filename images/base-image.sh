#!/bin/sh
# Make a Debian base image from a package mirror: for machines that reach no image registry. What `make base-image` runs.
#
#   images/base-image.sh [NAME [SUITE [MIRROR]]]      default: tinytorch/debian:bookworm bookworm, from the distribution's own mirror
#
# Packages are verified with the keys of the distribution, as apt does. The same mirror state gives the same bytes: no
# logs, caches, machine id or times of this run stay inside. Needs root and debootstrap (apt-get install debootstrap).
set -eu
name=${1:-tinytorch/debian:bookworm} suite=${2:-bookworm} mirror=${3:-}
docker=${DOCKER:-docker}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1577836800}" LC_ALL=C

[ "$(id -u)" = 0 ] || { echo "base-image: debootstrap makes device files and owners: run it as root (sudo make base-image)" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "base-image: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }
if ! "$docker" info >/dev/null 2>&1; then
  echo "base-image: no Docker engine answers: start it (systemctl start docker)" >&2; exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
root=$work/root

echo "  base image $name: $suite${mirror:+ from $mirror} (about a minute) ..."
if ! debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"} >"$work/log" 2>&1; then
  echo "base-image: debootstrap failed. The end of its log:" >&2
  tail -n 8 "$work/log" "$root/debootstrap/debootstrap.log" >&2 2>/dev/null || true
  echo "Is the mirror right and reachable? Another one: make base-image MIRROR=http://mirror.example/debian" >&2
  exit 1
fi

# Nobody reads manuals in a container. Files of dpkg that say what is installed stay: the list of contents is made from them.
cat >"$root/etc/dpkg/dpkg.cfg.d/containers" <<'DPKG'
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
DPKG
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type l ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*

# A service that a package starts while an image is built would be gone when the image runs.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# Security updates come from the second archive of the distribution, beside the first; another mirror is used as it is.
if [ -z "$mirror" ]; then
  own=$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")
  echo "deb ${own%/}-security $suite-security main
deb $own $suite-updates main" >>"$root/etc/apt/sources.list"
fi

find "$root/var/log" "$root/var/cache" "$root/var/lib/apt/lists" -type f -delete
rm -f "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root/etc/hostname" "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
sed -i -E 's/^(([^:]*:){2})[0-9]+:/\118262:/' "$root/etc/shadow"       # the day of the last change of each (locked) password

tar -C "$root" --sort=name --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c . >"$work/root.tar"
"$docker" import -c 'CMD ["bash"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" "$name" >/dev/null
echo "  made $name ($(($(stat -c %s "$work/root.tar") / 1000000)) MB, sha256 of its files $(sha256sum "$work/root.tar" | cut -c1-16))"
