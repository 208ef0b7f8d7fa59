//! What do the settings of a `gitlab.rb` mean here?
//!
//! Omnibus computes a good deal from a few settings: which port the registry's NGINX listens on, with which certificate,
//! whether port 80 redirects. The same is computed here, so that clients notice nothing.
//!
//! `registry['nginx'][...]` beats `registry_nginx[...]`, and neither takes anything from `nginx[...]`. The last of several
//! assignments counts. What only running could tell never counts.

use super::draft::{Draft, REGISTRY, https, is_word, reachable, url};
use super::ledger::Fate;
use super::ruby;
use super::value::Value;
use super::{Format, Imported, Mode, Site, nginx, words};
use crate::exchange::Origin;

mod inside;
mod leaves;

use leaves::{Leaf, leaves};

/// The port on GitLab's own name that Omnibus gives the registry when nothing else is said.
const SHARED_PORT: u16 = 5050;
/// Where GitLab keeps what it shares, below which images are.
const SHARED: &str = "/var/opt/gitlab/gitlab-rails/shared";
/// The certificate whose key signs GitLab's tokens.
const BUNDLE: &str = "/var/opt/gitlab/registry/gitlab-registry.crt";
const ISSUER: &str = "omnibus-gitlab-issuer";

/// Reads a `gitlab.rb`.
pub(super) fn import(text: &str, site: &Site<'_>) -> Imported {
    let mut omnibus = Omnibus { leaves: leaves(ruby::read(text)), lists: false, draft: Draft::new(site), named: false };
    let speaks = |leaf: &Leaf| leaf.value.text().is_some_and(|text| text.contains("allow ") || text.contains("deny "));
    omnibus.lists = omnibus.leaves.iter().any(speaks);
    omnibus.compute();
    let leaves = std::mem::take(&mut omnibus.leaves);
    for leaf in &leaves {
        omnibus.settle(leaf);
    }
    omnibus.nothing_open(&leaves);
    omnibus.draft.finish(Format::GitlabRb)
}

/// `registry['nginx']['https']`.
fn shown(path: &[String]) -> String {
    let (first, rest) = path.split_first().map_or(("", path), |(first, rest)| (first.as_str(), rest));
    rest.iter().fold(first.to_owned(), |text, key| match key.parse::<usize>() {
        Ok(number) => format!("{text}[{number}]"),
        Err(_) => format!("{text}['{key}']"),
    })
}

struct Omnibus<'s> {
    leaves: Vec<Leaf>,
    /// Whether somewhere it is said who may come in.
    lists: bool,
    draft: Draft<'s>,
    /// Whether `registry_external_url` says what clients call the registry.
    named: bool,
}

impl Omnibus<'_> {
    /// The value that counts.
    fn get(&self, path: &[&str]) -> Option<&Value> {
        let counts = |leaf: &&Leaf| leaf.beaten.is_none() && !leaf.value.is_unread();
        let leaf = self
            .leaves
            .iter()
            .filter(counts)
            .find(|leaf| leaf.path.iter().map(String::as_str).eq(path.iter().copied()));
        leaf.map(|leaf| &leaf.value).filter(|value| **value != Value::Nothing)
    }

    fn text(&self, path: &[&str]) -> Option<String> {
        self.get(path).and_then(Value::text).filter(|text| !text.contains(char::is_control)).map(str::to_owned)
    }

    fn nginx(&self, key: &str) -> Option<&Value> {
        self.get(&["registry", "nginx", key]).or_else(|| self.get(&["registry_nginx", key]))
    }

    fn nginx_text(&self, key: &str) -> Option<String> {
        self.nginx(key).and_then(Value::text).filter(|text| !text.contains(char::is_control)).map(str::to_owned)
    }

    fn nginx_is_on(&self, key: &str) -> bool {
        self.nginx(key).is_some_and(Value::is_on)
    }

    /// What Omnibus computes from several settings.
    fn compute(&mut self) {
        self.draft.gitlab = self.text(&["external_url"]).and_then(|text| Some(url(&text)?.0));
        let own = self.text(&["registry_external_url"]).and_then(|text| Some(url(&text)?.0));
        self.named = own.is_some();
        let own = own.or_else(|| self.told_to_rails());
        let unreadable =
            |leaf: &Leaf| leaf.path[0] == "registry_external_url" && matches!(leaf.value, Value::Running(_));
        let shared = own.is_none() && !self.leaves.iter().any(unreadable);
        self.draft.external = own.or_else(|| if shared { self.shared_origin() } else { None });
        let secure = self
            .nginx("listen_https")
            .map_or_else(|| self.draft.external.as_ref().is_none_or(Origin::is_secure), Value::is_on);
        if secure {
            self.clients_come_with_tls();
        }
        self.doors(secure, shared);
        if secure {
            self.certificate();
        }
        let off = |value: Option<&Value>| value == Some(&Value::Flag(false));
        self.draft.elsewhere = off(self.get(&["registry", "enable"])) || off(self.nginx("enable"));
        self.draft.proxy_protocol = self.nginx_is_on("proxy_protocol");
        match self.draft.site.mode {
            Mode::Front => self.front(),
            Mode::Embedded => self.embedded(),
        }
        self.clashes();
    }

    /// Where NGINX speaks TLS clients come with it, whatever the URL says.
    fn clients_come_with_tls(&mut self) {
        let Some(clear) = self.draft.external.take_if(|external| !external.is_secure()) else { return };
        self.draft.external = https(clear.host(), Some(&clear.port().to_string()));
        let note =
            format!("{clear} is written, but listen_https has clients speak TLS there: https:// is what they use");
        self.draft.ledger.add(0, "registry_external_url", Fate::Yours(note));
    }

    /// `gitlab_rails['registry_host']` and its port, where nothing else is said.
    fn told_to_rails(&self) -> Option<Origin> {
        let host = self.text(&["gitlab_rails", "registry_host"])?;
        https(&host, self.text(&["gitlab_rails", "registry_port"]).as_deref())
    }

    /// Without `registry_external_url` the registry is on port 5050 of GitLab's name, if GitLab gets its certificate
    /// itself: what it does unless it was told otherwise.
    fn shared_origin(&mut self) -> Option<Origin> {
        let gitlab = self.draft.gitlab.clone()?;
        let on = self.get(&["registry", "enable"]).is_some_and(Value::is_on);
        let off = self.get(&["registry", "enable"]) == Some(&Value::Flag(false));
        let encrypts = self.get(&["letsencrypt", "enable"]).is_none_or(Value::is_on) && gitlab.is_secure();
        if off || !(on || encrypts) {
            return None;
        }
        let note = format!(
            "nothing says where the registry is: port {SHARED_PORT} of GitLab's name, as Omnibus has it where it fetches certificates itself; \
             see that it is so"
        );
        self.draft.ledger.add(0, "registry_external_url", Fate::Yours(note));
        https(gitlab.host(), Some(&SHARED_PORT.to_string()))
    }

    /// What says nothing about a registry makes none; without a name there is no listener, and what stands instead is open
    /// to everybody, which it must not be where the file kept somebody out.
    fn nothing_open(&mut self, leaves: &[Leaf]) {
        if self.draft.external.is_some() || self.draft.hopeless.is_some() {
            return;
        }
        let closed = !self.draft.allow.is_empty() || !self.draft.deny.is_empty() || self.draft.proxy_protocol;
        let guarded = self.draft.ledger.lines().iter().any(|line| line.guarded);
        let about = |leaf: &Leaf| {
            let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
            leaf.suspect && !matches!(path.as_slice(), ["external_url" | "letsencrypt" | "nginx", ..])
        };
        if closed || guarded || leaves.iter().any(is_an_address) {
            let why = "nothing that could be read says what clients call this registry, and not everybody may come to it: a \
                       configuration without listeners would be open";
            self.draft.hopeless = Some(why.to_owned());
        } else if !leaves.iter().any(about) {
            self.draft.hopeless = Some("nothing in it is about a registry".to_owned());
        }
    }

    fn doors(&mut self, secure: bool, shared: bool) {
        let Some(external) = self.draft.external.clone() else { return };
        let said = self.nginx_text("listen_port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let port = said.unwrap_or_else(|| external.port());
        let addresses = self.nginx("listen_addresses").map(Value::words).filter(|words| !words.is_empty());
        let unread = addresses.is_none() && self.leaves.iter().any(is_an_address);
        let addresses = addresses.unwrap_or_else(|| if unread { Vec::new() } else { vec!["*".to_owned()] });
        let back = self.nginx_text("redirect_http_to_https_port").and_then(|port| port.parse().ok());
        let back = back.filter(|port| *port > 0).unwrap_or(80);
        let redirects = self.nginx_is_on("redirect_http_to_https") && external.is_secure() && !shared;
        for address in &addresses {
            self.draft.listen(address, port, secure, false);
        }
        if self.draft.listeners.is_empty() {
            let why = "127.0.0.1 only: none of the addresses that are written could be read; write them";
            self.draft.ledger.add(0, "listeners", Fate::Yours(why.to_owned()));
            self.draft.listen("127.0.0.1", port, secure, false);
        }
        for address in addresses.iter().filter(|_| redirects && back != port) {
            self.draft.listen(address, back, false, true);
        }
    }

    /// The certificate that is written, else that of the registry's name; where it has none GitLab's, which then has both
    /// names in it.
    fn certificate(&mut self) {
        let Some(external) = &self.draft.external else { return };
        let of = |host: &str, kind: &str| format!("/etc/gitlab/ssl/{host}.{kind}");
        let own = external.host().to_owned();
        let gitlab = self.draft.gitlab.as_ref().map_or_else(|| own.clone(), |origin| origin.host().to_owned());
        let encrypts = self.get(&["letsencrypt", "enable"]).map(Value::is_on);
        let shared = encrypts != Some(false)
            && !self.draft.exists(&of(&own, "crt"))
            && (encrypts == Some(true) || self.draft.exists(&of(&gitlab, "crt")));
        if shared && own != gitlab && self.nginx("redirect_http_to_https").is_none() {
            let note = "the certificate is GitLab's, with this name in it, and Omnibus redirected port 80 of it: that port stays with \
                        GitLab's NGINX, which knows this name no more";
            self.draft.ledger.add(0, "listeners.redirect", Fate::Yours(note.to_owned()));
        }
        let host = if shared { gitlab } else { own };
        let certificate = self.nginx_text("ssl_certificate").unwrap_or_else(|| of(&host, "crt"));
        let key = self.nginx_text("ssl_certificate_key").unwrap_or_else(|| of(&host, "key"));
        self.draft.certificate = (Some(certificate), Some(key));
    }

    /// The URL of GitLab's token endpoint.
    fn realm(&self) -> Option<String> {
        let base = self.text(&["registry", "token_realm"]).or_else(|| self.text(&["external_url"]))?;
        url(&base)?;
        Some(format!("{}/jwt/auth", base.trim().trim_end_matches('/')))
    }

    /// Where the registry is: on this machine, or where GitLab asks one that it does not run.
    fn registry_behind(&mut self) -> String {
        let address = self.text(&["registry", "registry_http_addr"]).unwrap_or_else(|| REGISTRY.to_owned());
        let here = format!("http://{}", reachable(&address));
        if self.get(&["registry", "enable"]) != Some(&Value::Flag(false)) {
            return here;
        }
        let api = self.text(&["gitlab_rails", "registry_api_url"]).and_then(|api| Some(url(&api)?.0));
        let Some(api) = api else {
            let why = format!(
                "GitLab does not run the registry, and nothing that could be read says where it is: {here} is a guess"
            );
            self.draft.ledger.add(0, "upstreams.gitlab.peers", Fate::Yours(why));
            return here;
        };
        if api.is_secure() {
            self.draft.tls_peers = true;
            let why = "its certificate is verified, by the authorities of this machine unless you name another";
            self.draft.ledger.add(0, "upstreams.gitlab.tls.ca", Fate::Yours(why.to_owned()));
        }
        api.to_string()
    }

    fn front(&mut self) {
        let peer = self.registry_behind();
        self.draft.peer(&peer);
        let redirects = self.get(&["registry", "autoredirect"]).is_some_and(Value::is_on);
        if let Some(realm) = self.realm().filter(|_| !redirects) {
            self.draft.page.put(&["upstreams", "gitlab", "realms"], vec![realm]);
        }
        if let Some(api) = self.text(&["gitlab_rails", "registry_api_url"])
            && let Some((origin, _)) = url(&api)
            && origin.to_string() != peer
        {
            self.draft.page.put(&["upstreams", "gitlab", "known_as"], vec![origin.to_string()]);
        }
        for address in [Some(peer), self.text(&["registry", "debug_addr"])].into_iter().flatten() {
            self.draft.avoid(&address);
        }
    }

    fn embedded(&mut self) {
        let address = self.text(&["registry", "registry_http_addr"]).unwrap_or_else(|| REGISTRY.to_owned());
        let path = self.text(&["gitlab_rails", "registry_path"]).unwrap_or_else(|| {
            let shared = self.text(&["gitlab_rails", "shared_path"]);
            format!("{}/registry", shared.as_deref().unwrap_or(SHARED))
        });
        let root = self.text(&["registry", "storage", "filesystem", "rootdirectory"]).unwrap_or(path);
        let delete = self
            .get(&["registry", "storage", "delete", "enabled"])
            .or_else(|| self.get(&["registry", "storage_delete_enabled"]));
        let delete = delete.is_none_or(Value::is_on);
        let issuer = self
            .text(&["gitlab_rails", "registry_issuer"])
            .or_else(|| self.text(&["registry", "issuer"]))
            .filter(|issuer| is_word(issuer));
        let bundle = self.text(&["registry", "rootcertbundle"]).unwrap_or_else(|| BUNDLE.to_owned());
        let realm = self.realm();
        let elsewhere = ["s3", "s3_v2", "s3aws", "gcs", "azure", "azure_v2", "swift", "oss", "inmemory"];
        let elsewhere = elsewhere.iter().find(|driver| {
            self.leaves.iter().any(|leaf| {
                leaf.path.starts_with(&["registry".to_owned(), "storage".to_owned(), (**driver).to_owned()])
            })
        });
        let database = self
            .get(&["registry", "database", "enabled"])
            .is_some_and(|value| *value == Value::Flag(true) || value.text() == Some("true"));
        self.draft.internal(&address);
        let page = &mut self.draft.page;
        page.put(&["registry", "storage", "filesystem", "rootdirectory"], root);
        page.put(&["registry", "storage", "delete", "enabled"], delete);
        match realm {
            Some(realm) => page.put(&["registry", "auth", "token", "realm"], realm),
            None => self.draft.hopeless = Some("neither external_url nor registry['token_realm'] could be read, so nobody would know where GitLab gives out tokens".to_owned()),
        }
        let page = &mut self.draft.page;
        page.put(&["registry", "auth", "token", "service"], "container_registry");
        page.put(&["registry", "auth", "token", "issuer"], issuer.unwrap_or_else(|| ISSUER.to_owned()));
        page.put(&["registry", "auth", "token", "rootcertbundle"], bundle);
        page.put(&["token"], false);
        if let Some(driver) = elsewhere {
            self.draft.hopeless = Some(format!(
                "the images are in {driver}, and this version serves the file system only; --mode front stands before the registry that is there"
            ));
        } else if database {
            self.draft.hopeless = Some("tags are in GitLab's metadata database, which this version does not read; --mode front stands before the registry that is there".to_owned());
        }
    }

    /// Ports that somebody has on this machine already.
    fn clashes(&mut self) {
        let registry = self.text(&["registry", "registry_http_addr"]).unwrap_or_else(|| REGISTRY.to_owned());
        let port = registry.rsplit(':').next().unwrap_or_default();
        if self.draft.listeners.iter().any(|listening| listening.address.rsplit(':').next() == Some(port)) {
            let note = format!(
                "the registry itself has port {port}: give it another, {REGISTRY} is usual (registry['registry_http_addr']), and import again"
            );
            self.draft.ledger.add(0, "listeners", Fate::Yours(note));
        }
        let Some(gitlab) = self.draft.gitlab.clone() else { return };
        if self.get(&["nginx", "enable"]) == Some(&Value::Flag(false)) || self.nginx("listen_addresses").is_some() {
            return;
        }
        let own =
            self.text(&["nginx", "listen_port"]).and_then(|port| port.parse().ok()).unwrap_or_else(|| gitlab.port());
        let redirects = gitlab.is_secure() && self.get(&["nginx", "redirect_http_to_https"]).is_none_or(Value::is_on);
        let ports: Vec<String> = self.draft.listeners.iter().map(|listening| listening.address.clone()).collect();
        for address in ports {
            let taken = |port: u16| address == format!(":{port}");
            if taken(own) || (redirects && taken(80)) {
                let note = format!(
                    "GitLab's own NGINX has this port ({address}) on the same machine: give each its address (nginx['listen_addresses'], \
                     listeners), or leave this listener out"
                );
                self.draft.ledger.add(0, "listeners", Fate::Yours(note));
            }
        }
    }

    /// What became of one setting.
    fn settle(&mut self, leaf: &Leaf) {
        let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
        let key = shown(&leaf.path);
        let known = about_the_registry(&path);
        let about = known || (leaf.suspect && leaf.value.running().is_some()) || is_a_way_around(leaf);
        if about && let Some(why) = leaf.value.running() {
            let fate = Fate::Yours(format!(
                "only running it could tell ({why}); the configuration is as if it were not there"
            ));
            // Of addresses that cannot be read the narrowest is taken.
            let guarded = leaf.guards && !is_an_address(leaf);
            return self.draft.ledger.put(leaf.line, key, fate, guarded);
        }
        if about && !known {
            let why = "it may say something about the registry in a way that is not followed here; see what it does";
            return self.draft.ledger.put(leaf.line, key, Fate::Yours(why.to_owned()), leaf.guards);
        }
        if let Some(line) = leaf.beaten.filter(|_| about) {
            return self.draft.ledger.add(leaf.line, key, Fate::Ignored(format!("line {line} counts")));
        }
        let lines = ["custom_gitlab_server_config", "custom_nginx_config", "internal_key", "internal_certificate"];
        if about
            && !lines.iter().any(|key| path.contains(key))
            && leaf.value.text().is_some_and(|text| text.contains(char::is_control))
        {
            let fate = Fate::Yours("not a value on one line; the configuration is as if it were not there".to_owned());
            return self.draft.ledger.add(leaf.line, key, fate);
        }
        let (fate, guarded) = match path.as_slice() {
            ["external_url"] => (self.gitlabs_name(), false),
            ["registry_external_url"] => (self.registrys_name(&leaf.value), false),
            ["registry", "nginx", "proxy_set_headers", name] | ["registry_nginx", "proxy_set_headers", name] => {
                let text = leaf.value.text();
                (words::request_header(name, text, &mut self.draft), false)
            }
            ["registry", "nginx", key, ..] | ["registry_nginx", key, ..] => self.door(key, leaf),
            ["registry", rest @ ..] => (self.registry(rest, &leaf.value), false),
            ["gitlab_rails", key, ..] if is_of_rails(key) => (self.rails(key), false),
            ["gitlab_rails", "shared_path"] => (self.images(), false),
            ["letsencrypt", key, ..] => (letsencrypt(key), false),
            ["nginx", key, ..] => (gitlabs_nginx(key), false),
            _ => (Fate::Elsewhere, false),
        };
        self.draft.ledger.put(leaf.line, key, fate, guarded);
    }

    fn gitlabs_name(&self) -> Fate {
        Fate::Translated(
            if self.draft.is_front() { "upstreams.gitlab.realms" } else { "registry.auth.token.realm" }.to_owned(),
        )
    }

    fn registrys_name(&self, value: &Value) -> Fate {
        match value.text().map(url) {
            Some(Some((_, ""))) => Fate::Translated("external_url, listeners".to_owned()),
            Some(Some(_)) => Fate::Yours("a registry's URL has no path; the rest of it is external_url".to_owned()),
            _ => Fate::Yours("not a URL".to_owned()),
        }
    }

    fn images(&self) -> Fate {
        if self.draft.is_front() {
            return Fate::NotNeeded("the registry behind Pierhead keeps its images".to_owned());
        }
        Fate::Translated("registry.storage.filesystem.rootdirectory".to_owned())
    }

    /// `registry['nginx'][key]`: table 1.3 of what NGINX does for the registry.
    fn door(&mut self, key: &str, leaf: &Leaf) -> (Fate, bool) {
        let value = &leaf.value;
        let words = value.words().join(" ");
        let redirects = self.draft.listeners.iter().any(|listening| listening.redirect);
        let fate = match key {
            "enable" if !value.is_on() => {
                let why =
                    "GitLab's NGINX does not serve the registry, so somebody else does: hand over there".to_owned();
                Fate::Yours(why)
            }
            "enable" => Fate::NotNeeded("it is the switch of the hand-over, see below".to_owned()),
            "https" => Fate::NotNeeded("it follows from registry_external_url".to_owned()),
            "listen_https" => Fate::Translated("listeners.tls".to_owned()),
            "listen_addresses" | "listen_port" => Fate::Translated("listeners.address".to_owned()),
            "redirect_http_to_https" if !value.is_on() => Fate::NotNeeded("no listener redirects".to_owned()),
            "redirect_http_to_https_port" if !redirects => Fate::NotNeeded("no listener redirects".to_owned()),
            "redirect_http_to_https" | "redirect_http_to_https_port" => {
                Fate::Translated("listeners.redirect".to_owned())
            }
            "proxy_protocol" if !value.is_on() => Fate::NotNeeded("it is off".to_owned()),
            "proxy_protocol" => Fate::Translated("listeners.proxy_protocol".to_owned()),
            "real_ip_trusted_addresses" => {
                let fate = self.draft.trust(&value.words());
                // Without them allow and deny are for the proxies' addresses.
                let lost = self.lists && matches!(fate, Fate::Yours(_));
                return (fate, lost);
            }
            "proxy_set_headers" => Fate::NotNeeded("there are none".to_owned()),
            "ssl_certificate" if self.draft.certificate.0.is_some() => {
                Fate::Translated("tls.certificates.certificate".to_owned())
            }
            "ssl_certificate_key" if self.draft.certificate.1.is_some() => {
                Fate::Translated("tls.certificates.key".to_owned())
            }
            "ssl_certificate" | "ssl_certificate_key" => Fate::NotNeeded("this listener speaks no TLS".to_owned()),
            "hsts_max_age" => match words.parse() {
                Ok(seconds) => words::hsts(seconds, &mut self.draft),
                Err(_) => words::hsts(0, &mut self.draft),
            },
            "hsts_include_subdomains" if !value.is_on() => Fate::NotNeeded("it is off".to_owned()),
            "hsts_include_subdomains" => Fate::NotServedYet("Strict-Transport-Security is for this host".to_owned()),
            "custom_gitlab_server_config" => return (self.custom(leaf), false),
            "client_max_body_size"
            | "proxy_read_timeout"
            | "proxy_connect_timeout"
            | "request_buffering_off_path_regex"
            | "proxy_custom_buffer_size"
            | "referrer_policy"
            | "proxy_cache"
            | "proxy_cache_path"
            | "cache_max_size"
            | "custom_error_pages"
            | "default_server_enabled" => Fate::Ignored("Omnibus' block for the registry never had it".to_owned()),
            _ if key.starts_with("gzip") => Fate::Ignored("Omnibus' block for the registry never had it".to_owned()),
            "status" => Fate::NotNeeded("metrics.address is where monitoring looks".to_owned()),
            _ if *value == Value::Nothing => Fate::NotNeeded("nil is what holds without it".to_owned()),
            "ssl_verify_client" | "ssl_client_certificate" | "real_ip_recursive" | "ssl_verify_depth"
                if *value == Value::Flag(false) =>
            {
                Fate::NotNeeded("it is off".to_owned())
            }
            _ => {
                let settled = words::settle(key, &words, &mut self.draft);
                return settled.unwrap_or_else(|| {
                    (Fate::Yours("a key that Omnibus' documentation does not have".to_owned()), false)
                });
            }
        };
        (fate, false)
    }

    /// Raw text at the end of the server block.
    fn custom(&mut self, leaf: &Leaf) -> Fate {
        let Some(text) = leaf.value.text() else { return Fate::NotNeeded("it is empty".to_owned()) };
        // The text of a heredoc begins on the line after.
        let first = leaf.line + usize::from(text.ends_with('\n'));
        let directives = nginx::read(text, first);
        super::block::custom(&directives, &mut self.draft);
        for directive in &directives {
            inside::nested(directive, &mut self.draft);
        }
        Fate::Translated("what its directives became, which are listed one by one".to_owned())
    }

    /// `registry[key]`.
    fn registry(&mut self, path: &[&str], value: &Value) -> Fate {
        let (front, key) = (self.draft.is_front(), path.first().copied().unwrap_or_default());
        let translated = |key: &str| Fate::Translated(key.to_owned());
        match key {
            "registry_http_addr" if front && self.draft.elsewhere && self.draft.tls_peers => {
                return Fate::NotNeeded("GitLab does not run its registry".to_owned());
            }
            "enable" => return Fate::NotNeeded("whether GitLab runs its registry; see the hand-over below".to_owned()),
            "registry_http_addr" if front => return translated("upstreams.gitlab.peers"),
            "registry_http_addr" => return translated("registry.http.addr"),
            "token_realm" if front => return translated("upstreams.gitlab.realms"),
            "token_realm" => return translated("registry.auth.token.realm"),
            "username" | "group" | "uid" | "gid" | "dir" | "shell" | "log_directory" | "env_directory"
            | "auto_migrate" => {
                return Fate::NotNeeded(
                    "it is about the process of GitLab's registry; Pierhead becomes the owner of the images, or `user`"
                        .to_owned(),
                );
            }
            "env" => return inside::environment(&mut self.draft, path.get(1).copied().unwrap_or_default(), value),
            "internal_key" | "internal_certificate" => {
                return Fate::NotNeeded("GitLab writes them to files, and goes on signing tokens".to_owned());
            }
            _ if front => return Fate::NotNeeded("the registry behind Pierhead keeps it".to_owned()),
            _ => {}
        }
        if *value == Value::Nothing || *value == Value::Text(String::new()) {
            return Fate::NotNeeded("nil is what holds without it".to_owned());
        }
        inside::setting(&mut self.draft, path, value)
    }

    /// `gitlab_rails[key]`.
    fn rails(&self, key: &str) -> Fate {
        let front = self.draft.is_front();
        match key {
            "registry_host" | "registry_port" if self.named => {
                Fate::NotNeeded("registry_external_url counts".to_owned())
            }
            "registry_host" | "registry_port" => Fate::Translated("external_url".to_owned()),
            "registry_api_url" if front => {
                Fate::Translated("upstreams.gitlab.peers or, where it is another, known_as".to_owned())
            }
            "registry_path" => self.images(),
            "registry_issuer" if !front => Fate::Translated("registry.auth.token.issuer".to_owned()),
            "registry_notification_secret" => Fate::NotNeeded("it is between GitLab's registry and GitLab".to_owned()),
            _ => Fate::NotNeeded("GitLab keeps it".to_owned()),
        }
    }
}

/// Keys of `gitlab_rails` that are about the registry.
fn is_of_rails(key: &str) -> bool {
    key.starts_with("registry_")
        || key.starts_with("geo_registry_")
        || key.starts_with("backup_registry_")
        || key.starts_with("restore_registry_")
        || key == "gitlab_default_projects_features_container_registry"
}

fn about_the_registry(path: &[&str]) -> bool {
    match path {
        ["external_url" | "registry_external_url" | "registry" | "registry_nginx" | "letsencrypt", ..] => true,
        ["nginx", ..] => true,
        ["gitlab_rails", key, ..] => is_of_rails(key) || *key == "shared_path",
        // Something that is no setting may be about anything.
        [first, ..] => first.starts_with("registry") || *first == "the rest of the file",
        [] => false,
    }
}

/// What is a setting of the registry by another way: through a variable, Chef's node, or another file.
fn is_a_way_around(leaf: &Leaf) -> bool {
    const AROUND: [&str; 7] = ["Gitlab", "node", "default", "override", "normal", "automatic", "force_default"];
    let first = leaf.path[0].as_str();
    let name = leaf.path.len() == 1 && !first.ends_with("external_url") && first != "roles";
    leaf.suspect && (name || AROUND.contains(&first))
}

/// Whether it says where the registry's NGINX listens.
fn is_an_address(leaf: &Leaf) -> bool {
    let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
    let key =
        matches!(path.as_slice(), ["registry", "nginx", "listen_addresses"] | ["registry_nginx", "listen_addresses"]);
    let nothing = leaf.value == Value::Nothing
        || leaf.value == Value::List(Vec::new())
        || leaf.value == Value::Text(String::new());
    key && leaf.beaten.is_none() && !nothing
}

fn letsencrypt(key: &str) -> Fate {
    Fate::NotNeeded(match key {
        "enable" => {
            "GitLab goes on fetching its certificate, and Pierhead shows it: `pierhead reload` after each renewal"
                .to_owned()
        }
        _ => "GitLab goes on fetching its certificate".to_owned(),
    })
}

fn gitlabs_nginx(key: &str) -> Fate {
    match key {
        "custom_nginx_config" | "custom_gitlab_server_config" => Fate::Yours(
            "raw text for GitLab's whole NGINX, which stays there: see whether it held for the registry".to_owned(),
        ),
        _ => Fate::NotNeeded("GitLab's NGINX keeps it; it never held for the registry".to_owned()),
    }
}
