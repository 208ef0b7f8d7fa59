"""What is measured, on which sides, and in which figures."""

import json, tempfile, threading, time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from .data import (APP, GIB, KIB, MANIFEST_TYPE, MIB, Certificates, Payload, digest_of, in_memory, manifest,
                   many_repositories, read)
from .disk import Disk
from .load import ECDSA, RSA, Loader
from .sides import Before, Distribution, Embedded, Nginx, Static, Wrong

TAGS = ["latest"] + [f"v{number:02}" for number in range(1, 100)]


@dataclass
class Work:
    """Something that all sides with these letters do, one after the other in each round."""
    title: str
    sides: str
    run: Callable  # of the bench and a side, to figures
    rate: str = ""  # the unit of the rate, if there is one
    windows: int = 1  # in each round, on each side; its figures are their means


def requests(work):
    """The figures of small requests (and of handshakes, and small pushes)."""
    def run(bench, side):
        seen = work(bench, side)
        thousands = seen["operations"] / 1000
        times = {name: seen[name] for name in ("p50", "p99") if name in seen}
        return rest(seen) | times | {"rate": seen["operations"] / seen["seconds"], "cpu": seen["cpu"] / thousands,
                                     "front_cpu": seen["front"] / thousands}
    return run


def bulk(work):
    """The figures of large transfers."""
    def run(bench, side):
        seen = work(bench, side)
        gibibytes = seen["bytes"] / GIB
        return rest(seen) | {"rate": seen["bytes"] / 1e6 / seen["seconds"], "cpu": seen["cpu"] / gibibytes,
                             "front_cpu": seen["front"] / gibibytes}
    return run


def rest(seen):
    return {name: seen[name] for name in ("client", "others", "operations", "bytes", "seconds") if name in seen}


def small(method, path, version, length=None, accept=None):
    """Of 64 connections: GET or HEAD of a path, or of the paths that a function of the bench gives."""
    def run(bench, side):
        paths = path(bench) if callable(path) else [path]
        size = length(bench) if callable(length) else length
        arguments = (side.authorization(APP), accept, bench.half, size)
        if version == "h2":
            return bench.load.h2load(side, method, paths, *arguments)
        if method == "HEAD":
            return bench.load.head(side, paths[0], *arguments)
        return bench.load.wrk(side, paths, *arguments)
    return run


def from_memory(work):
    """Of blobs that the kernel has in memory when the window begins."""
    def run(bench, side):
        for digest in (bench.blob, *(digest for _, digest in bench.small)):
            read(side.blob(digest))
        return work(bench, side)
    return run


def to_disk(work):
    """Of bytes that we have in memory, to a disk that is done with what others left to it."""
    def run(bench, side):
        bench.disk.settle()
        read(bench.payload.path)
        return work(bench, side)
    return run


def pull(connections):
    return bulk(lambda bench, side: bench.load.pull(side, bench.blob_path, side.authorization(APP), bench.seconds + 1,
                                                    bench.blob_size, connections))


def pull_h2(bench, side):
    return bench.load.pull_h2(side, bench.blob_path, side.authorization(APP), bench.blob_size)


def push(size, count, connections, streamed, seconds=False):
    """Of new blobs into a new repository; what was pushed is looked at, and taken away again if it is large."""
    def run(bench, side):
        length = size(bench)
        repository = bench.new_repository()
        blobs = [bench.payload.blob(length) for _ in range(count)]
        authorization = side.authorization(repository)
        try:
            seen = bench.load.push(side, repository, authorization, bench.payload, length, blobs, connections, streamed,
                                   bench.seconds if seconds else None)
            for _, digest in blobs[:min(8, seen["operations"])]:
                status, headers, _ = side.request("HEAD", f"/v2/{repository}/blobs/{digest}",
                                                  headers=side.headers(repository))
                if status != 200 or int(headers["content-length"]) != length:
                    raise Wrong(f"{side.name} does not have what was pushed: {status} {headers}")
            return seen
        finally:
            # Thousands of small ones stay: when ext4 looks for a new inode it passes one by one over those that were freed
            # not long ago, so that who pushes most in one round would pay most in the next.
            if not seconds:
                side.forget(repository, [digest for _, digest in blobs])
    return run


def written(size, count, writers, seconds=False):
    """What the disk takes of the same bytes without anybody in between."""
    return lambda bench, disk: disk.write(bench.payload, size(bench), count, writers, bench.seconds if seconds else None)


def handshakes(algorithms, resumed=False):
    return lambda bench, side: bench.load.handshakes(side, algorithms, bench.half, resumed)


def tokens(bench, side):
    path = side.token_path(APP)
    return bench.load.wrk(side, [path], side.login(), None, bench.half, None)


def memory(bench, side):
    """At rest and with idle connections, of a server that has just been started; then the same with bulk."""
    side.stop()
    side.start()
    time.sleep(1)
    resident, before = side.memory("Rss"), side.memory("Pss")
    with bench.load.idle(side, bench.idle, side.authorization(APP)):
        time.sleep(1)
        idle = (side.memory("Pss") - before) * KIB / bench.idle
    figures = {"rest": resident, "idle": idle}
    if side.letter == "S":
        return figures
    side.stop()
    side.start()
    side.forget_peak()
    failures = []
    pushing = threading.Thread(target=note, args=(failures, push(part_size, 8, 8, True), bench, side))
    pushing.start()
    pull(64)(bench, side)
    pushing.join()
    if failures:
        raise failures[0]
    return figures | {"load": side.memory("VmHWM")}


def note(failures, work, *arguments):
    try:
        work(*arguments)
    except Exception as failure:
        failures.append(failure)


def start_with_many(bench, side):
    """Milliseconds until the first answer to GET /v2/, of a server that was there before."""
    other = bench.with_many_repositories(side.letter)
    try:
        return {"milliseconds": 1000 * other.start()}
    finally:
        other.stop()


blob_size, part_size, tiny = lambda bench: bench.blob_size, lambda bench: bench.blob_size // 4, lambda _: 4 * KIB
by_tag, by_digest = lambda bench: [f"/v2/{APP}/manifests/latest"], lambda bench: [f"/v2/{APP}/manifests/{bench.digest}"]
small_paths = lambda bench: [f"/v2/{APP}/blobs/{digest}" for _, digest in bench.small]
manifest_size = lambda bench: len(bench.manifest)
PER_SECOND = "1/s"


def counted(title, sides, run):
    """Small requests: two windows in each round, so that what changes on the machine meanwhile concerns all alike."""
    return Work(title, sides, requests(run), PER_SECOND, windows=2)


WORKS = [
    counted("handshake, ECDSA", "NER", handshakes(ECDSA)),
    counted("handshake, RSA", "NE", handshakes(RSA)),
    counted("resumption", "NER", handshakes(ECDSA, resumed=True)),
    *(counted(f"GET /v2/, {version}", "NERS", small("GET", "/v2/", version, 2)) for version in ("h1", "h2")),
    *(counted(f"{method} manifest by {what}, {version}",
              "NERSF" if (method, what, version) == ("GET", "tag", "h1") else "NERS",
              small(method, path, version, manifest_size, MANIFEST_TYPE))
      for method in ("GET", "HEAD") for what, path in (("tag", by_tag), ("digest", by_digest)) for version in ("h1", "h2")),
    counted("tags list", "NER", small("GET", f"/v2/{APP}/tags/list", "h1", lambda bench: bench.tags_size)),
    *(counted(f"10 KiB blobs, {version}", "NERS", from_memory(small("GET", small_paths, version, 10 * KIB)))
      for version in ("h1", "h2")),
    counted("tokens", "E", tokens),
    *(Work(f"pull by {clients}, h1", "NERSF", from_memory(pull(clients)), "MB/s") for clients in (1, 8, 64)),
    Work("pull, h2", "NERSF", from_memory(bulk(pull_h2)), "MB/s"),
    Work("disk, 1 writer", "D", to_disk(bulk(written(blob_size, 1, 1))), "MB/s"),
    Work("push, monolithic", "NERF", to_disk(bulk(push(blob_size, 1, 1, False))), "MB/s"),
    Work("push, streamed", "NERF", to_disk(bulk(push(blob_size, 1, 1, True))), "MB/s"),
    Work("disk, 8 writers", "D", to_disk(bulk(written(part_size, 8, 8))), "MB/s"),
    Work("8 pushes at once", "NERF", to_disk(bulk(push(part_size, 8, 8, True))), "MB/s"),
    Work("disk, 4 KiB files by 16", "D", to_disk(requests(written(tiny, 20_000, 16, seconds=True))), PER_SECOND),
    Work("4 KiB blobs pushed by 16", "NERF", to_disk(requests(push(tiny, 20_000, 16, False, seconds=True))), PER_SECOND),
    Work("memory", "NERSF", memory),
    Work("start with many repositories", "NE", start_with_many),
]


class Bench:
    """All sides, started and filled with the same content."""

    def __init__(self, directory, binary, registry, letters, scale, seconds, running):
        self.directory, self.binary, self.scale, self.seconds, self.running = directory, binary, scale, seconds, running
        self.half = max(1, seconds // 2)  # of a window, where there are two in a round
        self.blob_size = max(4 * MIB, int(GIB * scale) // 4096 * 4096)
        self.idle, self.many = max(64, int(5000 * scale)), max(100, int(100_000 * scale))
        self.repositories, self.others, self.many_tree = 0, {}, None
        self.load = Loader(directory)
        self.certificates = Certificates(directory / "certificates")
        self.payload = Payload(directory / "payload", self.blob_size)
        self.disk = Disk(directory / "disk")
        self.sides = {}
        make = {"E": lambda at: Embedded(at, self.certificates, binary),
                "N": lambda at: Nginx(at, self.certificates, self.sides["E"]),
                "F": lambda at: Before(at, self.certificates, binary, self.sides["E"]),
                "R": lambda at: Distribution(at, self.certificates, registry, self.sides["E"]),
                "S": lambda at: Static(at, self.certificates)}
        for letter in [letter for letter in make if letter in letters]:
            self.sides[letter] = side = make[letter](directory / letter)
            running.callback(side.stop)
            side.start()
        self.fill()

    def taking_part(self, work):
        everyone = self.sides | {"D": self.disk}
        return [everyone[letter] for letter in work.sides if letter in everyone]

    def new_repository(self):
        self.repositories += 1
        return f"bench/push{self.repositories}"

    # Content

    def fill(self):
        tail, blob = self.payload.blob(self.blob_size)
        self.blob, self.blob_path = blob, f"/v2/{APP}/blobs/{blob}"
        self.small = [self.payload.blob(10 * KIB) for _ in range(max(32, int(1000 * min(1, self.scale))))]
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in self.small[:8]]}}).encode()
        self.manifest = manifest((digest_of(config), len(config)), [(digest, 10 * KIB) for _, digest in self.small[:8]])
        self.digest = digest_of(self.manifest)
        self.tags_size = len(json.dumps({"name": APP, "tags": TAGS}, separators=(",", ":")))
        for side in self.sides.values():
            if side.letter == "S":
                self.fill_static(side, tail, blob)
            else:
                self.fill_registry(side, tail, blob, config)
            self.check(side, blob)

    def fill_static(self, side, tail, blob):
        app = side.tree / "v2" / APP
        for name in ("manifests", "blobs"):
            (app / name).mkdir(parents=True)
        for name in ("latest", self.digest):
            (app / "manifests" / name).write_bytes(self.manifest)
        self.payload.write(side.blob(blob), self.blob_size, tail)
        for small_tail, digest in self.small:
            self.payload.write(side.blob(digest), 10 * KIB, small_tail)

    def fill_registry(self, side, tail, blob, config):
        authorization, headers = side.authorization(APP), side.headers(APP)
        self.load.push(side, APP, authorization, self.payload, self.blob_size, [(tail, blob)])
        self.load.push(side, APP, authorization, self.payload, 10 * KIB, self.small, 8)
        status, answered, body = side.request("POST", f"/v2/{APP}/blobs/uploads/", b"", headers)
        must(side, "POST", status, 202, body)
        at = answered["location"].removeprefix(side.url(""))
        at += ("&" if "?" in at else "?") + f"digest={digest_of(config)}"
        status, _, body = side.request("PUT", at, config, headers)
        must(side, "PUT blob", status, 201, body)
        for tag in TAGS:
            status, _, body = side.request("PUT", f"/v2/{APP}/manifests/{tag}", self.manifest,
                                           headers | {"Content-Type": MANIFEST_TYPE})
            must(side, "PUT manifest", status, 201, body)

    def check(self, side, blob):
        """That it answers with the very bytes which will be asked for."""
        headers = side.headers(APP, Accept=MANIFEST_TYPE)
        paths = {"/v2/": None, f"/v2/{APP}/manifests/latest": self.digest, f"/v2/{APP}/manifests/{self.digest}": self.digest,
                 self.blob_path: blob, f"/v2/{APP}/blobs/{self.small[-1][1]}": self.small[-1][1]}
        for path, digest in paths.items():
            status, _, body = side.request("GET", path, headers=headers)
            must(side, f"GET {path}", status, 200, body[:500])
            if digest and digest_of(body) != digest:
                raise Wrong(f"{side.name} answered GET {path} with {len(body)} other bytes")
        if side.letter != "S":
            status, _, body = side.request("GET", f"/v2/{APP}/tags/list", headers=headers)
            must(side, "GET tags", status, 200, body)
            if sorted(json.loads(body)["tags"]) != TAGS:  # docker-registry has them in no order
                raise Wrong(f"{side.name} lists other tags: {body!r}")

    def with_many_repositories(self, letter):
        """Another server of the same kind, stopped, on a tree of many repositories."""
        if not self.many_tree:
            above = in_memory(self.many) or self.directory
            tree = tempfile.TemporaryDirectory(prefix="side-by-side-many-", dir=above)
            self.many_tree = Path(self.running.enter_context(tree))
            many_repositories(self.many_tree, self.many)
        tree = self.many_tree
        if letter not in self.others:
            make = {"E": lambda at: Embedded(at, self.certificates, self.binary, tree),
                    "N": lambda at: Nginx(at, self.certificates, self.sides["E"], tree)}
            self.others[letter] = make[letter](self.directory / f"many-{letter}")
            self.running.callback(self.others[letter].stop)
            self.others[letter].start()  # the first start makes keys and a database
            self.others[letter].stop()
        return self.others[letter]


def must(side, what, status, expected, body):
    if status != expected:
        raise Wrong(f"{side.name} answered {what} with {status}, not {expected}: {body[:500]!r}")
