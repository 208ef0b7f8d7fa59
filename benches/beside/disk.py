"""The disk below the sides: a moment when it has nothing to do, and how fast it is by itself."""

import os, shutil, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .data import TAIL
from .load import Meter
from .sides import cpu_of

QUIET = 0.5  # seconds without anything read, written or discarded
LIMIT = 10  # seconds to wait for them: somebody else may use the disk all the time


class Disk:
    """Measured as if it were a side: plain writers in its place, who sync what they wrote as all sides do."""

    letter, name = "D", "the disk itself, plain files with fdatasync"

    def __init__(self, directory):
        self.directory, self.folders = directory, 0
        directory.mkdir()
        number = os.stat(directory).st_dev
        self.device = [str(os.major(number)), str(os.minor(number))]

    def settle(self):
        """Waits until what others left to be written, or to be discarded, is done."""
        os.sync()
        until, before, quiet_since = time.monotonic() + LIMIT, None, 0
        while (at := time.monotonic()) < until:
            now = self.counters()
            if now != before:
                before, quiet_since = now, at
            elif at - quiet_since >= QUIET:
                break
            time.sleep(0.05)

    def counters(self):
        """What it has done so far and has in hand; nothing, if the kernel does not count it."""
        for line in Path("/proc/diskstats").read_text().splitlines():
            fields = line.split()
            if fields[:2] == self.device:
                return fields[3:]
        return None

    def write(self, payload, size, count, writers, seconds=None):
        """So many files, by several writers at once, or as many as there is time for."""
        until, numbers = time.monotonic() + (seconds or float("inf")), iter(range(count))
        self.folders += 1
        folder = self.directory / str(self.folders)
        folder.mkdir()

        def writer(_):
            mine = [write(folder / str(number), payload, size, number) for number in numbers if time.monotonic() < until]
            return len(mine)

        with Meter(self) as meter, ThreadPoolExecutor(writers) as pool:
            done = sum(pool.map(writer, range(writers)))
        if not seconds:  # as what was pushed
            shutil.rmtree(folder)
        return meter.add({"operations": done, "bytes": done * size, "seconds": meter.wall})

    def cpu(self):
        """As of a side: nothing ends TLS, and the writers are threads of this process."""
        return 0, cpu_of(os.getpid())


def write(path, payload, size, number):
    payload.write(path, size, f"{number:0{TAIL}x}")
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
