"""`make demo`: three nodes at real work, two of them killed, and the proof that nothing was lost.

The work is the source of the Python standard library: one job per file, which parses it and counts. It is real (files
of all sizes, some of which do not parse, CPU bound), it is on every machine, and it can be done a second time in one
plain loop, so that what the cluster says in the end is not believed but compared.

    analysis   the work: pure functions from a file to its counts, the plain loop, counts merged into figures
    record     who ran what, when: written by the handlers, read from outside
    picture    the cluster at one moment, as rows and as a line
    report     figures as text, for the screen and for the file
    screen     the live cluster and tables on a terminal, plain lines elsewhere
    verdict    what was lost, repeated, unequal
    tasks      the work as tasks: one per file, a periodic one, a delayed one, one for all members
    node       a process that is a node, until whoever started it is gone
    nodes      such processes, from outside
    run        the story: jobs handed over, nodes killed, results asked for
    __main__   options, the order of things, the exit code

What is counted is measured: each run of a handler is put on record before anything else happens in it, so `repeated`
shows a job that ran twice, and `lost` one that was accepted and gave no result.
"""
