//! Load balancers and proxies that others run before registries, on this machine, in the foreground and as one process.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::process::Process;

/// Where a balancer listens: addresses, and one port of all of them.
pub(crate) struct Door<'a> {
    pub(crate) addresses: &'a [&'a str],
    pub(crate) port: u16,
}

impl Door<'_> {
    fn listening(&self, mut process: Process) -> Process {
        process.wait_until("listen", 20, |_| TcpStream::connect((self.addresses[0], self.port)).is_ok());
        process
    }
}

/// HAProxy that ends TLS with `server.pem` of `directory` and names its client by version 2 of the PROXY protocol.
pub(crate) fn haproxy(directory: &Path, door: &Door<'_>, to: u16) -> Process {
    let mut settings = String::from(
        "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend door\n  default_backend pierhead\n",
    );
    for address in door.addresses {
        let pem = directory.join("server.pem");
        let _ = writeln!(settings, "  bind {address}:{} ssl crt {}", door.port, pem.display()); // to a String
    }
    let _ = writeln!(settings, "backend pierhead\n  server pierhead 127.0.0.1:{to} send-proxy-v2"); // likewise
    let file = directory.join("haproxy.cfg");
    fs::write(&file, settings).expect("the directory can be written");
    door.listening(Process::start("haproxy", directory, Command::new("haproxy").arg("-db").arg("-f").arg(file)))
}

/// nginx as an application load balancer of AWS: it ends TLS, adds the client to X-Forwarded-For, sets X-Forwarded-Proto
/// and -Port, keeps Host, and knows nothing of X-Forwarded-Host and Forwarded.
pub(crate) fn application_balancer(directory: &Path, door: &Door<'_>, to: u16) -> Process {
    application_balancer_to(directory, door, &format!("http://127.0.0.1:{to}"))
}

/// The same to an origin, whose certificate it takes as it is.
pub(crate) fn application_balancer_to(directory: &Path, door: &Door<'_>, to: &str) -> Process {
    let location = format!(
        "location / {{\n\
           proxy_pass {to};\n\
           proxy_set_header Host $http_host;\n\
           proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
           proxy_set_header X-Forwarded-Proto $scheme;\n\
           proxy_set_header X-Forwarded-Port $server_port;\n\
           proxy_redirect off; proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1;\n\
         }}\n"
    );
    nginx("application-balancer", directory, door, &location)
}

/// nginx as GitLab sets it up before its registry, with several registries by the beginning of the path.
pub(crate) fn gitlabs_nginx(directory: &Path, door: &Door<'_>, registries: &[(String, String)]) -> Process {
    let mut locations = String::new();
    for (path, origin) in registries {
        let _ = writeln!(
            locations,
            "location {path} {{\n\
               proxy_set_header Host $http_host;\n\
               proxy_set_header X-Real-IP $remote_addr;\n\
               proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
               proxy_set_header X-Forwarded-Proto https;\n\
               proxy_set_header X-Forwarded-Ssl on;\n\
               proxy_read_timeout 900;\n\
               proxy_cache off; proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1;\n\
               proxy_pass {origin};\n\
             }}"
        ); // to a String
    }
    nginx("gitlabs-nginx", directory, door, &locations)
}

/// nginx that tells a registry something of its own making: on each port these headers, and no others of those that
/// registries read.
pub(crate) fn misleading_nginx(directory: &Path, rows: &[(u16, &[(&str, String)])], to: &str) -> Process {
    const READ: [&str; 4] = ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded"];
    let mut servers = String::new();
    for (port, told) in rows {
        let untold = READ.iter().filter(|name| !told.iter().any(|(other, _)| other == *name));
        let untold = untold.map(|name| format!("proxy_set_header {name} \"\";\n"));
        let told = told.iter().map(|(name, value)| format!("proxy_set_header {name} \"{value}\";\n"));
        let headers: String = told.chain(untold).collect();
        let _ = writeln!(
            servers,
            "server {{ listen 127.0.0.1:{port}; client_max_body_size 0;\n\
             location / {{ {headers} proxy_pass {to}; proxy_redirect off; proxy_request_buffering off; \
             proxy_http_version 1.1; }} }}"
        ); // to a String
    }
    let process = run_nginx("misleading-nginx", directory, &servers);
    let last = rows.last().map_or(0, |(port, _)| *port);
    Door { addresses: &["127.0.0.1"], port: last }.listening(process)
}

/// nginx that serves the files of a folder on a port, without TLS.
pub(crate) fn serve_folder(directory: &Path, port: u16, folder: &Path) -> Process {
    let server = format!("server {{ listen 127.0.0.1:{port}; root {}; }}\n", folder.display());
    let process = run_nginx("webroot-nginx", directory, &server);
    Door { addresses: &["127.0.0.1"], port }.listening(process)
}

/// HAProxy that passes connections on as they are, to one port of this machine after the other, and leaves out those
/// that nobody listens on.
pub(crate) fn passing_haproxy(directory: &Path, port: u16, to: &[u16]) -> Process {
    let mut settings = format!(
        "global\n  maxconn 500\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen door\n  bind 127.0.0.1:{port}\n  balance roundrobin\n  option redispatch\n  retries 3\n"
    );
    for to in to {
        let _ = writeln!(settings, "  server s{to} 127.0.0.1:{to} check inter 200ms"); // to a String
    }
    let file = directory.join("passing-haproxy.cfg");
    fs::write(&file, settings).expect("the directory can be written");
    let process = Process::start("passing-haproxy", directory, Command::new("haproxy").arg("-db").arg("-f").arg(file));
    Door { addresses: &["127.0.0.1"], port }.listening(process)
}

fn nginx(name: &str, directory: &Path, door: &Door<'_>, locations: &str) -> Process {
    let listen: String =
        door.addresses.iter().map(|address| format!("listen {address}:{} ssl;\n", door.port)).collect();
    let shown = directory.display();
    let server = format!(
        "server {{\n\
           {listen}\
           ssl_certificate {shown}/server.crt; ssl_certificate_key {shown}/server.key;\n\
           client_max_body_size 0; chunked_transfer_encoding on;\n\
           {locations}\
         }}\n"
    );
    door.listening(run_nginx(name, directory, &server))
}

fn run_nginx(name: &str, directory: &Path, servers: &str) -> Process {
    let at = directory.join(name);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}-{kind};\n", at.display()))
        .collect();
    let settings = format!(
        "daemon off; master_process off; user root; pid {}.pid; error_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; server_tokens off;\n{temporary}{servers}}}\n",
        at.display()
    );
    let file = directory.join(format!("{name}.conf"));
    fs::write(&file, settings).expect("the directory can be written");
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "stderr"]);
    Process::start(name, directory, &mut nginx)
}
