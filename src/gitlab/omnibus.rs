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
use super::{Format, Imported, Mode, Site};
use crate::exchange::Origin;

mod fates;
mod inside;
mod leaves;

use fates::is_an_address;
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
}
