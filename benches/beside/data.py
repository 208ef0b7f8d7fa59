"""What all sides serve and are sent: certificates, blobs, manifests."""

import hashlib, itertools, json, os, subprocess
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
APP = "bench/app"  # the repository that is read
TAIL = 64  # bytes (hexadecimal digits) at the end of a blob that make it another one


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Certificates:
    """For each kind of key a root, an authority between and a certificate for localhost: what a public one is like."""

    KINDS = {"ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}

    def __init__(self, directory):
        directory.mkdir()
        self.directory, self.roots = directory, directory / "roots.pem"
        authority, server = directory / "authority.ext", directory / "server.ext"
        authority.write_text("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n")
        server.write_text("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
                          "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n")
        for kind, key in self.KINDS.items():
            root, between, leaf = (directory / f"{kind}-{what}" for what in ("root", "between", "leaf"))
            openssl("req", "-x509", *key, "-nodes", "-keyout", f"{root}.key", "-out", f"{root}.pem", "-days", "3",
                    "-subj", f"/CN=side by side {kind} root", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
            for name, issuer, extensions in ((between, root, authority), (leaf, between, server)):
                openssl("req", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                        f"/CN={name.name}")
                openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key",
                        "-CAcreateserial", "-days", "3", "-sha256", "-extfile", extensions, "-out", f"{name}.pem")
            self.chain(kind).write_text(Path(f"{leaf}.pem").read_text() + Path(f"{between}.pem").read_text())
        self.roots.write_text("".join((directory / f"{kind}-root.pem").read_text() for kind in self.KINDS))

    def chain(self, kind):
        return self.directory / f"{kind}-chain.pem"

    def key(self, kind):
        return self.directory / f"{kind}-leaf.key"


class Payload:
    """Random bytes on disk, of which blobs are made: its beginning, and a tail that no other blob has."""

    def __init__(self, path, size):
        self.path, self.size, self.numbers, self.hashes = path, size, itertools.count(), {}
        with open(path, "wb") as file:
            for at in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - at)))

    def blob(self, size):
        """A new blob: its tail and its digest."""
        if size not in self.hashes:
            self.hashes[size] = hashlib.sha256()
            with open(self.path, "rb") as file:
                for at in range(0, size - TAIL, MIB):
                    self.hashes[size].update(file.read(min(MIB, size - TAIL - at)))
        tail = f"{next(self.numbers):0{TAIL}x}"
        digest = self.hashes[size].copy()
        digest.update(tail.encode())
        return tail, f"sha256:{digest.hexdigest()}"

    def write(self, path, size, tail):
        """The bytes of a blob, as a file."""
        with open(self.path, "rb") as source, open(path, "wb") as file:
            for at in range(0, size - TAIL, MIB):
                file.write(source.read(min(MIB, size - TAIL - at)))
            file.write(tail.encode())


def read(path):
    """Leaves all of a file in the kernel's memory, whatever drove it out since it was used last."""
    piece = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest(config, layers):
    """A manifest of a usual size, of (digest, size) pairs."""
    part = lambda kind, digest, size: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": part("config.v1+json", *config),
                       "layers": [part("layer.v1.tar+gzip", *layer) for layer in layers]}).encode()


def in_memory(repositories):
    """A folder with room for so many that is no disk's, if there is one: from a disk they are deleted for minutes."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        about = os.statvfs(memory)
        if about.f_favail > 3 * repositories and about.f_bavail * about.f_frsize > 4 * KIB * repositories:
            return memory
    return None


def many_repositories(tree, count):
    """Repositories as a registry leaves them on disk, without their content: two folders each."""
    for number in range(count):
        os.makedirs(f"{tree}/docker/registry/v2/repositories/group{number // 300}/r{number}/_manifests")
