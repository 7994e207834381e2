"""cleanLogFiles: each node deletes the log files of its own host that have grown too large.

It looks once a minute, in the folder `log` below the working directory; where there is none, there is nothing to clean.
An application that logs elsewhere derives from it:

    class CleanOurLogs(CleanLogFiles):
        name = "cleanOurLogs"

        def run(self, folder: str = "/var/log/shop", max_bytes: int = 50_000_000) -> int:
            return super().run(folder, max_bytes)
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

        A program that has a deleted file open goes on writing to it, where nobody sees it, until it opens it anew.

        Args:
            folder: whose `*.log` files are looked at; folders and links in it are left alone.
            max_bytes: a file may have so many, and stays.

        Returns:
            How many files were deleted here.
        """
        deleted = 0
        for file in sorted(Path(folder).glob("*.log")):
            try:
                if file.is_file() and not file.is_symlink() and file.stat().st_size > max_bytes:
                    file.unlink()
                    deleted += 1
            except FileNotFoundError:
                pass  # another node on this host was quicker
        return deleted
