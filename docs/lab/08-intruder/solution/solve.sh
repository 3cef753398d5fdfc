#!/bin/sh
# Host a takes datagrams of its remotes only, and is told where c3 lives.
set -e
pyvxlan lab exec --lab 08-intruder a -- sh -c '
    sed -i "s/^accept = .*/accept = \"known\"/" "$PYVXLAN_CONFIG"
    pyvxlan reload
    pyvxlan fdb flush
    pyvxlan fdb replace 02:42:0a:2a:00:0d dst 192.0.2.3 static'
