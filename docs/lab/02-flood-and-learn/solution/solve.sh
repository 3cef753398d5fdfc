#!/bin/sh
# Host a floods to c, too; host b learns.
set -e
pyvxlan lab exec --lab 02-flood-and-learn a -- sh -c '
    sed -i "s/^remotes = .*/remotes = [\"192.0.2.2\", \"192.0.2.3\"]/" "$PYVXLAN_CONFIG"
    pyvxlan reload'
pyvxlan lab exec --lab 02-flood-and-learn b -- sh -c '
    sed -i "s/^learning = .*/learning = true/" "$PYVXLAN_CONFIG"
    pyvxlan reload'
