"""What container runtimes start or talk to: `pyvxlan-cni` and its kin."""
