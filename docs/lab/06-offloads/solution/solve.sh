#!/bin/sh
# Both cures are taken back: c1 may hand over large pieces, b lets TCP fill its packets.
set -e
pyvxlan lab exec --lab 06-offloads c1 -- ip link set dev eth0 gso_max_segs 65535
pyvxlan lab exec --lab 06-offloads b -- sh -c '
    sed -i "/^mss = /d" "$PYVXLAN_CONFIG"
    pyvxlan reload'
