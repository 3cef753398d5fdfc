"""Measuring overlays on this machine: `pyvxlan bench` (vxlan/cli/bench.py).

    method     alternation, medians, ratios round by round, verdicts: pure functions
    noise      what else the machine did meanwhile
    mmsg       many datagrams for each system call
    loops      traffic in Python, where the extension was not built
    generator  traffic: what one end of a test does
    agent      the process at one end, which runs the generator when told to
    load       tests: two agents, one sample
    world      two hosts for each overlay, with a container each
    overlays   what joins the hosts: nothing, the kernel's driver, pyvxlan
    tools      the same by other programs that may be installed
    docker     the other ways in which docker joins containers
    matrix     overlays x tests: the run
    report     results as rows, as a table, as Markdown
    claim      "VXLAN adds 10-20 % latency and takes 50-75 % of the throughput"
    remote     between two real hosts
    memory     figures of the in-memory suites (bench/)
    canvas     the look of all pictures
    pictures   the plots
    page       a run as one page that opens offline

This package drives nodes as processes and imports no engine; of the extension it takes
the loops that make traffic.
"""
