"""`make demo`: a node at real work, and the proof that nothing was lost.

The work is the source of the Python standard library: one job per file, which parses it and counts. It is real (files
of all sizes, some of which do not parse, CPU bound), it is on every machine, and it can be done a second time in one
plain loop, so that what came out of the queues is not believed but compared.

    analysis   the work: pure functions from a file to its counts, the plain loop, counts merged into figures
    verdict    who ran what, on record; what was lost, repeated, unequal
    report     figures as text, for the screen and for the file
    tasks      the work as tasks: one per file, a periodic, a delayed, an inline one, one for all members
    screen     a live bar and tables on a terminal, plain lines elsewhere
    run        the jobs handed over, and their results taken
    __main__   options, the order of things, the exit code

What is counted is measured: each run of a handler is appended to a file before anything else happens in it, so
`repeated` would show a job that ran twice, and `lost` one that was accepted and gave no result.
"""
