"""The sides: their processes, their configurations, and what their processes use."""

import base64, contextlib, http.client, json, os, re, shutil, socket, ssl, subprocess, time
from pathlib import Path

from .data import APP

PATIENCE = 120  # seconds for anything that should end by itself
PASSWORD = "bench-password"
TICKS = os.sysconf("SC_CLK_TCK")


class Wrong(Exception):
    """A side did not do what it was asked to do."""


class Side:
    """A registry behind TLS on a port of the loopback interface."""

    letter, name, issuer = "?", "?", None

    def __init__(self, directory, certificates, tree=None):
        self.directory, self.certificates, self.port = directory, certificates, free_port()
        self.tree, self.log = tree or directory / "tree", directory / "log"
        directory.mkdir()
        self.tree.mkdir(exist_ok=True)
        self.trust = ssl.create_default_context(cafile=certificates.roots)
        self.front, self.registry = [], []  # processes that end TLS, and those behind them

    # Processes

    def start(self):
        """Starts it; how many seconds it took until it answered."""
        begun = time.monotonic()
        self.spawn()
        while not self.answers():
            if time.monotonic() > begun + PATIENCE or any(process.poll() is not None for process in self.processes()):
                raise Wrong(f"{self.name} does not answer:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.002)
        return time.monotonic() - begun

    def spawn(self):
        raise NotImplementedError

    def run(self, *command, **environment):
        with open(self.log, "ab") as log:
            return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                    cwd=self.directory, env=dict(os.environ, **environment))

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/v2/")[0] in (200, 401)
        return False

    def processes(self):
        return self.front + self.registry

    def stop(self):
        for process in self.processes():
            process.terminate()
        for process in self.processes():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.front, self.registry = [], []

    # Requests

    def url(self, path):
        return f"https://localhost:{self.port}{path}"

    def request(self, method, path, body=None, headers=()):
        """Status, headers (with small letters) and body."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.trust, timeout=PATIENCE)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def authorization(self, *repositories):
        """What a request for these repositories carries."""
        if not self.issuer:
            return None
        return f"Bearer {self.issuer.token(*repositories)}"

    def headers(self, *repositories, **more):
        authorization = self.authorization(*repositories)
        return dict({"Authorization": authorization} if authorization else {}, **more)

    # Its files

    def blob(self, digest):
        """Where a blob's bytes are."""
        name = digest.partition(":")[2]
        return self.tree / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def forget(self, repository, digests):
        """Takes pushed blobs off the disk again, so that it does not fill up."""
        for digest in digests:
            shutil.rmtree(self.blob(digest).parent, ignore_errors=True)
        shutil.rmtree(self.tree / "docker/registry/v2/repositories" / repository, ignore_errors=True)

    # What it uses

    def cpu(self):
        """Seconds of processor time so far: of what ends TLS, and of all."""
        front = sum(cpu_of(pid) for pid in tree_of(self.front))
        return front, front + sum(cpu_of(pid) for pid in tree_of(self.registry))

    def memory(self, key):
        """MiB of all processes: Rss, Pss (shared pages counted once), or VmHWM (the peak since `forget_peak`)."""
        file = "status" if key == "VmHWM" else "smaps_rollup"
        total = 0
        for pid in tree_of(self.processes()):
            with contextlib.suppress(OSError):
                found = re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.M)
                total += int(found[1]) if found else 0
        return total / 1024

    def forget_peak(self):
        for pid in tree_of(self.processes()):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def tree_of(processes):
    """The pids of processes and of all below them."""
    pending, found = [process.pid for process in processes], []
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (thread / "children").read_text().split())
            found.append(pid)
    return found


def cpu_of(pid):
    """User and system time of a process, and of its children that have ended."""
    with contextlib.suppress(OSError):
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15])) / TICKS
    return 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Pierhead -----------------------------------------------------------------------------------------------------------

class Embedded(Side):
    """Pierhead with its own registry and tokens. The tokens of all sides are its."""

    letter, name = "E", "Pierhead"

    def __init__(self, directory, certificates, binary, tree=None):
        super().__init__(directory, certificates, tree)
        self.binary, self.issuer = binary, self
        (directory / "pierhead.yml").write_text(front_of(self) + f"""\
state: state
registry: {{ storage: {{ filesystem: {{ rootdirectory: "{self.tree}" }} }}, http: {{ addr: "off" }} }}
token: {{ duration: 30m }}
""")

    def spawn(self):
        self.front = [self.run(self.binary, "serve", "-c", "pierhead.yml", PIERHEAD_ADMIN_PASSWORD=PASSWORD)]

    def token_path(self, *repositories):
        scopes = "".join(f"&scope=repository:{name}:pull,push" for name in repositories)
        return f"/jwt/auth?service=container_registry{scopes}"

    def login(self):
        return "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()

    def token(self, *repositories):
        status, _, body = self.request("GET", self.token_path(*repositories), headers={"Authorization": self.login()})
        if status != 200:
            raise Wrong(f"{self.name} answered the request for a token with {status}: {body[:500]!r}")
        return json.loads(body)["token"]

    def bundle(self):
        """What registries verify its tokens with."""
        return subprocess.run([self.binary, "token", "certificate", "-c", "pierhead.yml"], cwd=self.directory,
                              capture_output=True, check=True).stdout


class Before(Side):
    """Pierhead before docker-registry 2.8.2, in nginx's place."""

    letter, name = "F", "Pierhead + docker-registry"

    def __init__(self, directory, certificates, binary, issuer):
        super().__init__(directory, certificates)
        self.binary, self.issuer = binary, issuer
        self.behind = DockerRegistry(self)
        (directory / "pierhead.yml").write_text(front_of(self) + f"""\
state: state
upstreams: {{ registry: {{ peers: ["http://127.0.0.1:{self.behind.port}"] }} }}
""")

    def spawn(self):
        self.registry = [self.behind.run()]
        self.front = [self.run(self.binary, "serve", "-c", "pierhead.yml")]


def front_of(side):
    """The part of the configuration that ends TLS."""
    pairs = ", ".join(f'{{ certificate: "{side.certificates.chain(kind)}", key: "{side.certificates.key(kind)}" }}'
                      for kind in ("ecdsa", "rsa"))
    return f"""\
external_url: https://localhost:{side.port}
listeners: [{{ address: "127.0.0.1:{side.port}" }}]
tls: {{ certificates: [{pairs}] }}
log: {{ format: json, access: stdout }}
metrics: {{ address: "127.0.0.1:{free_port()}" }}
"""


# The peers ----------------------------------------------------------------------------------------------------------

class DockerRegistry:
    """Debian's docker-registry 2.8.2 with the issuer's tokens, without TLS."""

    def __init__(self, side):
        self.side, self.port = side, free_port()
        write_registry(side, f'addr: "127.0.0.1:{self.port}"')

    def run(self):
        return self.side.run("docker-registry", "serve", "registry.yml")


def write_registry(side, http):
    """The configuration that Debian's package comes with, with what the sides have in common."""
    (side.directory / "token.crt").write_bytes(side.issuer.bundle())
    (side.directory / "registry.yml").write_text(f"""\
version: 0.1
log: {{ level: info, formatter: text }}
storage: {{ cache: {{ blobdescriptor: inmemory }}, filesystem: {{ rootdirectory: "{side.tree}" }}, delete: {{ enabled: true }} }}
http: {{ {http}, secret: not-a-secret, headers: {{ X-Content-Type-Options: [nosniff] }} }}
health: {{ storagedriver: {{ enabled: true, interval: 10s, threshold: 3 }} }}
auth: {{ token: {{ realm: "{side.issuer.url('/jwt/auth')}", service: container_registry, issuer: pierhead,
                   rootcertbundle: token.crt }} }}
""")


class Nginx(Side):
    """Debian's nginx as GitLab configures it before its registry, and docker-registry 2.8.2."""

    letter, name = "N", "nginx + docker-registry"

    def __init__(self, directory, certificates, issuer, tree=None):
        super().__init__(directory, certificates, tree)
        self.issuer = issuer
        self.behind = DockerRegistry(self)
        write_nginx(self, f"""\
    add_header Strict-Transport-Security "max-age=63072000";
    location / {{
      proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_read_timeout 900; proxy_http_version 1.1;
      proxy_cache off; proxy_buffering off; proxy_request_buffering off;
      proxy_pass http://127.0.0.1:{self.behind.port};
    }}
""")

    def spawn(self):
        self.registry, self.front = [self.behind.run()], [run_nginx(self)]


class Distribution(Side):
    """Distribution 3 with its own TLS."""

    letter, name = "R", "Distribution 3"

    def __init__(self, directory, certificates, binary, issuer):
        super().__init__(directory, certificates)
        self.binary, self.issuer = binary, issuer
        write_registry(self, f'addr: "127.0.0.1:{self.port}", tls: {{ certificate: "{certificates.chain("ecdsa")}", '
                             f'key: "{certificates.key("ecdsa")}", minimumtls: tls1.2 }}')

    def spawn(self):
        self.front = [self.run(self.binary, "serve", "registry.yml", OTEL_TRACES_EXPORTER="none")]


class Static(Side):
    """nginx that serves the same bytes as files, to anybody: near what the machine can do."""

    letter, name = "S", "nginx, static files"

    def __init__(self, directory, certificates):
        super().__init__(directory, certificates)
        # A path that is a folder for others (/v2/) is a file for nobody: it is answered from the configuration.
        write_nginx(self, """\
    keepalive_requests 1000000000;
    root tree;
    default_type application/octet-stream;
    location = /v2/ { default_type application/json; return 200 "{}"; }
""")

    def spawn(self):
        self.front = [run_nginx(self)]

    def blob(self, digest):
        return self.tree / "v2" / APP / "blobs" / digest


def run_nginx(side):
    return side.run("nginx", "-p", side.directory, "-c", "nginx.conf", "-e", "log")


def write_nginx(side, location):
    """omnibus-gitlab's nginx.conf and gitlab-registry.conf, without what concerns other services."""
    pairs = " ".join(f"ssl_certificate {side.certificates.chain(kind)}; ssl_certificate_key {side.certificates.key(kind)};"
                     for kind in ("ecdsa", "rsa"))
    text = NGINX.replace("@PORT@", str(side.port)).replace("@CERTIFICATES@", pairs).replace("@LOCATION@", location)
    # Workers read the files of a root's folder: they are root as well then, as docker-registry and Pierhead are.
    (side.directory / "nginx.conf").write_text(("user root;\n" if os.geteuid() == 0 else "") + text)


NGINX = r"""
worker_processes auto;
worker_rlimit_nofile 20000;
error_log log error;
pid nginx.pid;
daemon off;
events { worker_connections 10240; }
http {
  map $request_uri $temp_request_uri_1 { default $request_uri; ~(?i)^(?<start>.*)(?<temp>[\?&]private[\-_]token)=[^&]*(?<rest>.*)$ "$start$temp=[FILTERED]$rest"; }
  map $temp_request_uri_1 $temp_request_uri_2 { default $temp_request_uri_1; ~(?i)^(?<start>.*)(?<temp>[\?&]authenticity[\-_]token)=[^&]*(?<rest>.*)$ "$start$temp=[FILTERED]$rest"; }
  map $temp_request_uri_2 $temp_request_uri_3 { default $temp_request_uri_2; ~(?i)^(?<start>.*)(?<temp>[\?&]rss[\-_]token)=[^&]*(?<rest>.*)$ "$start$temp=[FILTERED]$rest"; }
  map $temp_request_uri_3 $filtered_request_uri { default $temp_request_uri_3; ~(?i)^(?<start>.*)(?<temp>[\?&]token)=[^&]*(?<rest>.*)$ "$start$temp=[FILTERED]$rest"; }
  map $http_referer $filtered_http_referer { default $http_referer; ~^(?<temp>.*)\? $temp; }
  log_format gitlab_access '$remote_addr - $remote_user [$time_local] "$request_method $filtered_request_uri $server_protocol" $status $body_bytes_sent "$filtered_http_referer" "$http_user_agent" $gzip_ratio';
  access_log access.log gitlab_access;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 65; keepalive_time 1h; keepalive_requests 1000;
  gzip on; gzip_http_version 1.1; gzip_comp_level 2; gzip_proxied no-cache no-store private expired auth;
  gzip_types text/plain text/css application/x-javascript text/xml application/xml application/xml+rss text/javascript application/json;
  client_body_temp_path nginx-body; proxy_temp_path nginx-proxy;
  fastcgi_temp_path nginx-f; uwsgi_temp_path nginx-u; scgi_temp_path nginx-s;
  server_tokens off;
  client_max_body_size 0;
  chunked_transfer_encoding on;
  @CERTIFICATES@
  ssl_ciphers 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384';
  ssl_protocols TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers off;
  ssl_session_cache shared:SSL:10m; ssl_session_tickets off; ssl_session_timeout 1d;
  server {
    listen 127.0.0.1:@PORT@ ssl http2 backlog=4096;
    server_name localhost;
@LOCATION@
  }
}
"""
