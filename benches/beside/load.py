"""Load on a side, and what it took: wrk for GET over HTTP/1.1, h2load and curl for HTTP/2, our load.c for the rest.

Each function returns a dictionary: operations, seconds, and where they make sense bytes, p50 and p99 (seconds), with the
processor time of the side in between (`front`: what ends TLS, `cpu`: all of it) and `others`: the part of the machine
that neither the side nor the client had. Whatever is not answered as it should be raises Wrong.
"""

import contextlib, json, os, re, statistics, subprocess, time
from pathlib import Path

from .data import TAIL
from .sides import PATIENCE, TICKS, Wrong, cpu_of

ECDSA, RSA = "ECDSA+SHA256:RSA-PSS+SHA256", "RSA-PSS+SHA256:RSA+SHA256"
HERE = Path(__file__).parent


class Loader:
    def __init__(self, directory):
        self.directory, self.own = directory, directory / "load"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-pthread", "-o", self.own, HERE / "load.c", "-lssl",
                        "-lcrypto"], check=True)

    # Small requests

    def wrk(self, side, paths, authorization, accept, seconds, length, connections=64):
        """GET of these paths in turn. wrk counts statuses; `length` is how long a body is."""
        file = self.directory / "paths"
        file.write_text("".join(f"{path}\n" for path in paths))
        command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "wrk.lua", *fields(authorization, accept),
                   side.url("/"), "--", file]
        with Meter(side) as meter:
            out = finish(command)
        seen = json.loads(out.stdout.strip().splitlines()[-1])
        around = seen["bytes"] / max(1, seen["operations"]) - length if length else 0
        if seen["errors"] or not seen["operations"] or not 0 <= around < 2000:
            raise Wrong(f"{side.name} answered GET {paths[0]} wrongly: {around:.0f} bytes around a body of {length}\n"
                        f"{out.stdout}")
        return meter.add(seen)

    def h2load(self, side, method, paths, authorization, accept, seconds, length, connections=64):
        """The same over HTTP/2, one stream on each connection."""
        file, log = self.directory / "urls", self.directory / "h2load.log"
        file.write_text("".join(f"{side.url(path)}\n" for path in paths))
        log.unlink(missing_ok=True)
        command = ["h2load", "-D", seconds, "-t2", "-c", connections, "-m1", "-i", file, "--log-file", log,
                   *fields(authorization, accept), *(["-H", ":method: HEAD"] if method == "HEAD" else [])]
        with Meter(side) as meter:
            out = finish(command).stdout
        counts = {name: int(count) for count, name in re.findall(r"(\d+) (done|succeeded|failed|errored|timeout|2xx)", out)}
        data = int(re.search(r"\((\d+)\) data", out)[1])
        times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        done = counts["succeeded"]
        around = (0 if method == "HEAD" else length or 0) * done
        wrong = counts["failed"] + counts["errored"] + counts["timeout"] or counts["2xx"] < done
        if wrong or not done or length and not around <= data <= around + 2 * connections * length:
            raise Wrong(f"{side.name} answered {method} {paths[0]} wrongly over HTTP/2:\n{out}")
        return meter.add({"operations": done, "seconds": seconds, "bytes": data, "p50": statistics.median(times) / 1e6,
                          "p99": times[int(len(times) * 0.99)] / 1e6})

    def head(self, side, path, authorization, accept, seconds, length, connections=64):
        return self.run(side, "get", "-M", "HEAD", "-P", path, "-l", length, "-c", connections, "-s", seconds, "-w", 0.2,
                        *option("-A", authorization), *option("-H", accept))

    # Bulk

    def pull(self, side, path, authorization, seconds, length, connections):
        """GET of a large blob by several, over and over. What is on its way at the beginning and at the end of the
        window is about the same."""
        return self.run(side, "get", "-P", path, "-l", length, "-c", connections, "-s", seconds, "-w", 0.5,
                        *option("-A", authorization))

    def pull_h2(self, side, path, authorization, length):
        command = ["curl", "--silent", "--show-error", "--http2", "--cacert", side.certificates.roots, "-o", "/dev/null",
                   *fields(authorization), "-w", "%{http_code} %{http_version} %{size_download} %{time_total}",
                   side.url(path)]
        with Meter(side) as meter:
            status, version, size, seconds = finish(command).stdout.split()
        if (status, version, int(size)) != ("200", "2", length):
            raise Wrong(f"{side.name} answered a pull of {length} bytes with {status}, HTTP/{version}, {size} bytes")
        return meter.add({"operations": 1, "bytes": length, "seconds": float(seconds)})

    def push(self, side, repository, authorization, payload, size, blobs, connections=1, streamed=False, seconds=None):
        """POST and PUT, or POST, PATCH in chunks and PUT, of new blobs: all of them, or as many as there is time for."""
        file = self.directory / f"tails-{repository.replace('/', '-')}"
        file.write_text("".join(f"{tail} {digest}\n" for tail, digest in blobs))
        window = ["-s", seconds, "-w", 0.2] if seconds else ["-n", len(blobs)]
        try:
            return self.run(side, "push", "-f", payload.path, "-b", size - TAIL, "-t", file, "-R", repository, "-c",
                            connections, *window, *option("-A", authorization), *(["-k"] if streamed else []))
        finally:
            file.unlink()

    # Connections

    def handshakes(self, side, algorithms, seconds, resumed=False, connections=8):
        seen = self.run(side, "handshakes", "-a", algorithms, "-c", connections, "-s", seconds, "-w", 0.2,
                        *(["-r"] if resumed else []))
        if resumed and seen["reused"] < seen["operations"] - connections:
            raise Wrong(f"{side.name} resumed {seen['reused']} of {seen['operations']} sessions")
        return seen

    @contextlib.contextmanager
    def idle(self, side, connections, authorization):
        """Open connections, each of which had an answer to GET /v2/."""
        loader = self.spawn("idle", side, "-c", connections, "-P", "/v2/", *option("-A", authorization))
        try:
            self.line(loader, side, "begin")
            yield
            loader.stdin.close()
            open_ones = json.loads(self.line(loader, side, "end"))["operations"]
            if open_ones != connections:
                raise Wrong(f"{side.name} kept {open_ones} of {connections} connections")
        finally:
            loader.kill()
            loader.wait()

    # Our own loader

    def spawn(self, mode, side, *arguments):
        return subprocess.Popen([self.own, mode, "-p", str(side.port), *map(str, arguments)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self, loader, side, word):
        line = loader.stdout.readline()
        if not line.startswith(word):
            raise Wrong(f"{side.name}: {line}{loader.stderr.read()}")
        return line[len(word):]

    def run(self, side, mode, *arguments):
        loader = self.spawn(mode, side, *arguments)
        try:
            self.line(loader, side, "begin")
            with Meter(side, loader.pid) as meter:
                seen = json.loads(self.line(loader, side, "end"))
            loader.wait(PATIENCE)
            if seen["errors"] or not seen["operations"] and not seen["bytes"]:
                raise Wrong(f"{side.name}, {mode}: {seen['errors']} errors\n{loader.stderr.read()}")
            return meter.add(seen)
        finally:
            loader.kill()
            loader.wait()


class Meter:
    """What a side, its client and everybody else used between two moments."""

    def __init__(self, side, client=None):
        self.side, self.client = side, client

    def look(self):
        busy = sum(int(field) for index, field in enumerate(Path("/proc/stat").read_text().split()[1:8])
                   if index not in (3, 4)) / TICKS
        times = os.times()
        client = cpu_of(self.client) if self.client else times.children_user + times.children_system
        return (*self.side.cpu(), client, busy, time.monotonic())

    def __enter__(self):
        self.before = self.look()
        return self

    def __exit__(self, *_):
        self.front, self.cpu, self.client_cpu, self.busy, self.wall = (
            after - before for before, after in zip(self.before, self.look()))

    def add(self, seen):
        others = (self.busy - self.cpu - self.client_cpu) / (self.wall * os.cpu_count())
        return dict(seen, front=self.front, cpu=self.cpu, client=self.client_cpu, others=max(0.0, others))


def finish(command):
    command = list(map(str, command))
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise Wrong(f"{' '.join(command)}\nfailed ({done.returncode}): {done.stderr}{done.stdout}")
    return done


def fields(authorization, accept=None):
    return [word for name, value in (("Authorization", authorization), ("Accept", accept)) if value
            for word in ("-H", f"{name}: {value}")]


def option(letter, value):
    return [letter, value] if value else []
