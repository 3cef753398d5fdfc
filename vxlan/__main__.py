"""`python -m vxlan` is `pyvxlan`."""

from vxlan.cli import main

if __name__ == "__main__":
    main()
