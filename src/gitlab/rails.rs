//! What does a source install's `gitlab.yml` say of its registry?
//!
//! It says how GitLab reaches and names the registry; certificates and listeners are in the NGINX block, which is imported
//! on its own. The reader of YAML is [`config`](../../config/index.html)'s; what comes here are its leaves.

use super::draft::{Draft, REGISTRY, https, is_word, url};
use super::ledger::Fate;
use super::{Format, Imported, Mode, Site};

/// What stands where a piece of Ruby was.
const ERB: &str = "__ERB__";
/// Where a source install has GitLab.
const HOME: &str = "/home/git/gitlab";
/// The section that counts; the others are for who develops GitLab.
const SECTION: &str = "production.";

/// One scalar of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// From 1.
    pub line: usize,
    /// `production.registry.host`.
    pub path: String,
    /// `None` for nothing.
    pub value: Option<String>,
}

/// A text without Ruby.
#[derive(Debug, Default)]
pub struct Plain {
    /// With a mark in place of each value that Ruby computes. Lines stay where they are.
    pub text: String,
    /// The lines that depend on a condition, which are taken away: number and key of each.
    conditional: Vec<(usize, String)>,
}

/// The text with a mark in place of each `<%...%>`, which only running could tell, and without what stands between
/// `<% if %>` and `<% end %>`, which may not hold.
pub fn without_erb(text: &str) -> Plain {
    let mut plain = Plain::default();
    let (mut rest, mut depth) = (text, 0_usize);
    while let Some(start) = rest.find("<%") {
        plain.take(&rest[..start], depth);
        let tail = &rest[start..];
        let end = tail.find("%>").map_or(tail.len(), |end| end + 2);
        let before = plain.text.rsplit('\n').next().unwrap_or_default();
        let after = tail[end..].split('\n').next().unwrap_or_default();
        if before.trim().is_empty() && after.trim().is_empty() && !tail.starts_with("<%=") {
            depth = nesting(&tail[2..end], depth);
            plain.text.push('#');
        } else if depth == 0 {
            plain.text.push_str(ERB);
        }
        plain.text.extend(tail[..end].chars().filter(|letter| *letter == '\n'));
        rest = &tail[end..];
    }
    plain.take(rest, depth);
    plain
}

impl Plain {
    /// Takes text between pieces of Ruby, that many conditions deep.
    fn take(&mut self, text: &str, depth: usize) {
        if depth == 0 {
            return self.text.push_str(text);
        }
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.text.push('\n');
            }
            if let Some((key, _)) = line.split_once(':').filter(|(key, _)| !key.trim_start().starts_with('#')) {
                let line = self.text.matches('\n').count() + 1;
                self.conditional.push((line, key.trim().to_owned()));
            }
        }
    }
}

/// How deep conditions are behind a piece of Ruby.
fn nesting(code: &str, depth: usize) -> usize {
    let code = code.trim_matches(['-', '%', '>']).trim();
    let words = || code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    match words().next().unwrap_or_default() {
        "if" | "unless" | "case" | "while" | "until" | "for" | "begin" => depth + 1,
        "end" => depth.saturating_sub(1),
        _ if words().any(|word| word == "do") => depth + 1,
        _ => depth,
    }
}

/// Reads the leaves of a `gitlab.yml`.
pub(super) fn import(leaves: &[Leaf], plain: &Plain, site: &Site<'_>) -> Imported {
    let mut rails = Rails { leaves, draft: Draft::new(site) };
    rails.compute();
    for leaf in leaves {
        let key = leaf.path.strip_prefix(SECTION).unwrap_or(&leaf.path);
        let fate = rails.fate(key, leaf);
        rails.draft.ledger.add(leaf.line, leaf.path.clone(), fate);
    }
    for (line, key) in &plain.conditional {
        let why = "it depends on a condition (ERB); the configuration is as if it were not there".to_owned();
        rails.draft.ledger.add(*line, key.clone(), Fate::Yours(why));
    }
    let about = |leaf: &Leaf| leaf.path.strip_prefix(SECTION).unwrap_or(&leaf.path).starts_with("registry");
    if plain.conditional.is_empty() && !leaves.iter().any(about) {
        rails.draft.hopeless = Some("nothing in it is about a registry".to_owned());
    }
    rails.draft.finish(Format::GitlabYml)
}

struct Rails<'l, 's> {
    leaves: &'l [Leaf],
    draft: Draft<'s>,
}

impl Rails<'_, '_> {
    /// A value below `production`, or at the top where a file has no such sections.
    fn get(&self, key: &str) -> Option<&str> {
        let leaf = self.leaves.iter().rfind(|leaf| leaf.path.strip_prefix(SECTION).unwrap_or(&leaf.path) == key)?;
        leaf.value.as_deref().filter(|value| !value.contains(ERB) && !value.is_empty())
    }

    fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| matches!(value, "true" | "yes" | "on"))
    }

    fn compute(&mut self) {
        let port = self.get("registry.port");
        self.draft.external = self.get("registry.host").and_then(|host| https(host, port));
        self.draft.gitlab = self.get("gitlab.host").and_then(|host| https(host, None));
        if let Some(external) = &self.draft.external {
            let port = external.port();
            self.draft.listen("*", port, true, false);
        }
        let note = "gitlab.yml names none: it is in NGINX's block; without it Pierhead makes one of a local authority";
        self.draft.ledger.add(0, "tls.certificates", Fate::Yours(note.to_owned()));
        let realm = self.realm();
        let api = self.get("registry.api_url").and_then(url).map(|(origin, _)| origin);
        match self.draft.site.mode {
            Mode::Front => {
                let peer = api.map_or_else(|| "http://127.0.0.1:5000".to_owned(), |origin| origin.to_string());
                self.draft.peer(&peer.replace("http://localhost:", "http://127.0.0.1:"));
                match realm {
                    Some(realm) => self.draft.page.put(&["upstreams", "gitlab", "realms"], vec![realm]),
                    None => self.left(
                        "upstreams.gitlab.realms",
                        "gitlab.host could not be read: write https://GITLAB/jwt/auth",
                    ),
                }
            }
            Mode::Embedded => self.embedded(realm, api.map(|origin| origin.authority().to_owned())),
        }
    }

    fn left(&mut self, key: &str, why: &str) {
        self.draft.ledger.add(0, key, Fate::Yours(why.to_owned()));
    }

    /// The URL of GitLab's token endpoint.
    fn realm(&self) -> Option<String> {
        let host = self.get("gitlab.host")?;
        let secure = self.is_on("gitlab.https");
        let scheme = if secure { "https" } else { "http" };
        let port = self.get("gitlab.port").filter(|port| *port != if secure { "443" } else { "80" });
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let root = self.get("gitlab.relative_url_root").unwrap_or_default().trim_end_matches('/');
        let realm = format!("{scheme}://{host}{port}{root}/jwt/auth");
        let good = url(&realm).is_some();
        good.then_some(realm)
    }

    fn embedded(&mut self, realm: Option<String>, address: Option<String>) {
        let path = self.get("registry.path").unwrap_or("shared/registry").to_owned();
        let root = if path.starts_with('/') { path } else { format!("{HOME}/{path}") };
        let issuer = self.get("registry.issuer").filter(|issuer| is_word(issuer)).unwrap_or("gitlab-issuer").to_owned();
        let key = self.get("registry.key").unwrap_or("config/registry.key").to_owned();
        let bundle = format!("{}.crt", key.trim_end_matches(".key"));
        let bundle = if bundle.starts_with('/') { bundle } else { format!("{HOME}/{bundle}") };
        let Some(realm) = realm else {
            self.draft.hopeless =
                Some("gitlab.host could not be read, so nobody would know where GitLab gives out tokens".to_owned());
            return;
        };
        self.draft.internal(address.as_deref().unwrap_or(REGISTRY));
        let page = &mut self.draft.page;
        page.put(&["registry", "storage", "filesystem", "rootdirectory"], root);
        page.put(&["registry", "storage", "delete", "enabled"], true);
        page.put(&["registry", "auth", "token", "realm"], realm);
        page.put(&["registry", "auth", "token", "service"], "container_registry");
        page.put(&["registry", "auth", "token", "issuer"], issuer);
        page.put(&["registry", "auth", "token", "rootcertbundle"], bundle);
        page.put(&["token"], false);
        self.left(
            "registry.auth.token.rootcertbundle",
            "the certificate of registry.key, which gitlab.yml does not name: see that it is this one",
        );
    }

    fn fate(&self, key: &str, leaf: &Leaf) -> Fate {
        let front = self.draft.is_front();
        if !leaf.path.starts_with(SECTION) && leaf.path.contains(".registry.") {
            return Fate::Elsewhere;
        }
        let about = key.starts_with("registry.")
            || ["gitlab.host", "gitlab.port", "gitlab.https", "gitlab.relative_url_root"].contains(&key);
        if about && leaf.value.as_deref().is_some_and(|value| value.contains(ERB)) {
            return Fate::Yours(
                "only running it could tell (ERB); the configuration is as if it were not there".to_owned(),
            );
        }
        let translated = |key: &str| Fate::Translated(key.to_owned());
        let kept = || Fate::NotNeeded("GitLab keeps it".to_owned());
        match key {
            "registry.host" | "registry.port" => translated("external_url, listeners"),
            "registry.api_url" if front => translated("upstreams.gitlab.peers"),
            "registry.api_url" => translated("registry.http.addr"),
            "registry.path" if front => Fate::NotNeeded("the registry behind Pierhead keeps its images".to_owned()),
            "registry.path" => translated("registry.storage.filesystem.rootdirectory"),
            "registry.issuer" if !front => translated("registry.auth.token.issuer"),
            "registry.key" if !front => translated("registry.auth.token.rootcertbundle"),
            "registry.enabled" | "registry.issuer" | "registry.key" => kept(),
            "registry.host_port" => Fate::NotNeeded("GitLab computes it from host and port".to_owned()),
            "registry.notification_secret" => Fate::NotNeeded("it is between the registry and GitLab".to_owned()),
            _ if key.starts_with("registry.notifications") && (front || leaf.value.is_none()) => kept(),
            _ if key.starts_with("registry.notifications") => {
                Fate::NotServedYet("no endpoint is told of pushes".to_owned())
            }
            "gitlab.host" | "gitlab.port" | "gitlab.https" | "gitlab.relative_url_root" => {
                translated(if front { "upstreams.gitlab.realms" } else { "registry.auth.token.realm" })
            }
            _ if key.starts_with("registry.") => {
                Fate::Yours("a key that GitLab's documentation does not have".to_owned())
            }
            _ => Fate::Elsewhere,
        }
    }
}
