//! What becomes of each setting of a `gitlab.rb`?
//!
//! Whoever imports one sees a word on every line of it: what was computed from it, why nothing was, or what is left to do.

use super::leaves::Leaf;
use super::{Omnibus, inside, shown};
use crate::gitlab::draft::url;
use crate::gitlab::ledger::Fate;
use crate::gitlab::value::Value;
use crate::gitlab::{block, nginx, words};

impl Omnibus<'_> {
    /// What became of one setting.
    pub(super) fn settle(&mut self, leaf: &Leaf) {
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
        block::custom(&directives, &mut self.draft);
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
pub(super) fn is_an_address(leaf: &Leaf) -> bool {
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
