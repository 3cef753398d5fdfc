#!/bin/sh
# a sends a copy to k3, too; the others send a to what they flood.
set -e
pyvxlan lab exec --lab 04-replication a -- pyvxlan remote add 192.0.2.13
for host in k1 k2 k3; do
    pyvxlan lab exec --lab 04-replication $host -- \
        bridge fdb append 00:00:00:00:00:00 dev vxlan42 dst 192.0.2.1
done
