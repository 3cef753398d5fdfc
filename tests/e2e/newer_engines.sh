#!/bin/sh
# The root of a Debian with newer container engines than this machine's, for PYVXLAN_ENGINES.
#
#   newer_engines.sh SUITE FOLDER        trixie: dockerd 26, podman 5;  forky, sid: newer still
#
# Root, debootstrap, about 1 GB.  Nothing of this machine's is changed; `rm -r FOLDER` removes it.
set -eu
suite=$1 folder=$2
script=/usr/share/debootstrap/scripts/$suite
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # newer than debootstrap is
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | head -n 1)

rm -rf "$folder"
debootstrap --variant=minbase --include=ca-certificates,iproute2 "$suite" "$folder" "$mirror" "$script"
printf '#!/bin/sh\nexit 101\n' >"$folder/usr/sbin/policy-rc.d" # nothing is started here
chmod 755 "$folder/usr/sbin/policy-rc.d"
mount -t proc proc "$folder/proc"
trap 'umount "$folder/proc"' EXIT
inside() { chroot "$folder" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }
inside apt-get -qq -o Acquire::Check-Valid-Until=false update
inside apt-get -qq install -y --no-install-recommends docker.io docker-cli podman netavark \
    aardvark-dns containerd runc iptables nftables kmod procps
inside dpkg-query -W docker.io podman netavark containerd runc | tee "$folder/complete"
