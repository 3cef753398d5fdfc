#!/bin/sh
# Host a has no opinion of its own about c2, and forgets who is silent.
set -e
pyvxlan lab exec --lab 03-ageing-and-moves a -- sh -c '
    sed -i -e "/^fdb = /d" -e "s/^ageing = .*/ageing = 300/" "$PYVXLAN_CONFIG"
    pyvxlan reload'
