"""A node as a process among others: forks, limits of descriptors."""

from __future__ import annotations

import subprocess
import sys

FORKED = """
import os, sys, zhero

@zhero.task
def double(number: int) -> int:
    return 2 * number

node = zhero.Node([double], name="parent", cluster="fork-test")
node.start()
pid = os.fork()
if pid == 0:
    try:
        double.enqueue_soon(number=1)
    except zhero.NotRunning as error:
        sys.stdout.write(f"{error}\\n")
    assert node.stop() == 0
    own = zhero.Node([double], name="child", cluster="fork-test", backups=0)
    own.start()
    sys.stdout.write(f"{double.enqueue_soon(number=4).result_sync(20)}\\n")
    own.stop()
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(double.enqueue_soon(number=21).result_sync(20))
node.stop()
"""

LIMITED = """
import resource, zhero
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
try:
    zhero.Node([], cluster="limit-test").start()
except zhero.ConfigError as error:
    print(error)
"""


def told_by(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_forked_process_is_told_to_start_its_own_node_and_the_parent_is_unharmed() -> None:
    error, forked, parent = told_by(FORKED)
    assert "after the fork" in error
    assert (forked, parent) == ("8", "42")


def test_too_few_descriptors_are_a_clear_error_before_the_start() -> None:
    (error,) = told_by(LIMITED)
    assert "ulimit -n" in error
