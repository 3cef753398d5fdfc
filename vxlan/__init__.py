"""pyvxlan: a userspace VXLAN overlay dataplane for Linux."""

__version__ = "0.1.0"
