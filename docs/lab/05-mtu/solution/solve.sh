#!/bin/sh
# a finds out what the path carries by pinging c2, a station behind b.
set -e
pyvxlan lab exec --lab 05-mtu a -- sh -c '
    printf "%s\n" "address = [\"10.42.0.1/16\"]" "echo = { \"198.51.100.1\" = \"10.42.0.12\" }" \
        >> "$PYVXLAN_CONFIG"
    pyvxlan reload'
