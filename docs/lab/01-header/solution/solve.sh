#!/bin/sh
# Host b waits on the port and the VNI that a writes.
set -e
pyvxlan lab exec --lab 01-header b -- sh -c '
    sed -i -e "s/^dstport = .*/dstport = 4789/" -e "s/^vni = .*/vni = 42/" "$PYVXLAN_CONFIG"
    pyvxlan down'
pyvxlan lab up 01
