#!/bin/sh
# Four reasons, four remedies, each on the host that its counter points to.
set -e
on() { pyvxlan lab exec --lab 09-drops "$@"; }
on a -- pyvxlan remote add 192.0.2.2
on b -- sh -c '
    sed -i "s/^reserved_bits = .*/reserved_bits = \"ignore\"/" "$PYVXLAN_CONFIG"
    pyvxlan reload'
on c -- pyvxlan remote del 192.0.2.1 vni 43
pyvxlan lab fault --lab 09-drops b clear
