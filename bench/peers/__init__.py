"""How fast are other task queues of Python, on this machine, in the same run?

All run the same no-op job with the same params, started by one process and run by another. Each has an environment of
its own and, but for zhero, a Redis of its own, which keeps nothing on disk; they take turns, a round each, and which
begins changes. What a system guarantees is part of the table, as it is part of the price.

A run is counted where it happens: each job leaves a mark in a file, so nothing is believed of what a queue says of
itself. The adapter of a system, `adapters/*_peer.py`, holds its tasks, its settings and the call it documents for many
jobs.

    python -m bench.peers [--quick] [--json] [--repeats n] [--seconds s] [--jobs n] [--only name]... [--kill-limit s]
"""
