"""A program without asyncio: the node lives on a loop of its own, in a thread of its own.

    python examples/sync_program.py

`enqueue_soon` and `result_sync` are for any thread. Plain functions run in threads, and may enqueue and wait like the
program itself: a job that waits for another gives it its worker, so even one worker is enough.
"""

from __future__ import annotations

import threading

import zhero


@zhero.task
def resize(picture: str, width: int) -> str:
    where = "the main thread" if threading.current_thread() is threading.main_thread() else "another thread"
    return f"{picture} at {width}, resized in {where}"


@zhero.task
def publish(picture: str) -> list[str]:
    jobs = [resize.enqueue_soon(picture, width) for width in (200, 800)]
    return [job.result_sync(timeout=5) for job in jobs]


def main() -> None:
    node = zhero.Node(tasks=[resize, publish], workers=1)
    node.start()
    try:
        job = publish.enqueue_soon("cat.png")
        job.wait_accepted(timeout=5)
        print("accepted")
        for line in job.result_sync(timeout=5):
            print(line)
    finally:
        lost = node.stop()
    print("jobs that will not run:", lost)


if __name__ == "__main__":
    main()
