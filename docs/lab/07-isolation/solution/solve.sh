#!/bin/sh
# Take the cable away, and plug red2 in where the red ones are.
set -e
pyvxlan lab exec --lab 07-isolation a -- ip link del patch0
pyvxlan lab exec --lab 07-isolation b -- ip link set red2 master br42
