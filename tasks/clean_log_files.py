"""cleanLogFiles: each node deletes the log files of its own host that have grown too large.

It looks once a minute, in the folder `log` below the working directory; where there is none, there is nothing to clean.
An application that logs elsewhere derives from it:

    class CleanOurLogs(CleanLogFiles):
        name = "cleanOurLogs"

        def run(self, folder: str = "/var/log/shop", max_bytes: int = 50_000_000) -> int:
            return self.clean(folder, max_bytes)
"""

from __future__ import annotations

from pathlib import Path

import zhero


class CleanLogFiles(zhero.Task):
    """Delete log files above a size."""

    name = "cleanLogFiles"
    description = "delete log files above a size"
    scope = "all"
    frequency = 60_000  # milliseconds

    def run(self, folder: str = "log", max_bytes: int = 10_000_000) -> int:
        """A plain function, so it runs in a thread: a slow disk does not hold up the loop.

        Args:
            folder: whose `*.log` files are looked at; folders in it are left alone.
            max_bytes: a file may have so many, and stays.

        Returns:
            How many files were deleted here.
        """
        return self.clean(folder, max_bytes)

    def clean(self, folder: str, max_bytes: int) -> int:
        """What `run` does. A program that has a deleted file open writes on in it, and nobody sees that: reopen it."""
        deleted = 0
        for file in sorted(Path(folder).glob("*.log")):
            try:
                if file.is_file() and file.lstat().st_size > max_bytes:
                    file.unlink()
                    deleted += 1
            except FileNotFoundError:
                pass  # another node on this host was quicker
        return deleted
