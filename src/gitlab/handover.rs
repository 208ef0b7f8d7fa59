//! How does one change places, and back?
//!
//! Commands, to be read before they are typed: nothing here runs them.

use super::draft::Draft;
use super::{Format, Mode};
use crate::exchange::Origin;

/// Where Pierhead keeps its own.
const STATE: &str = "/var/lib/pierhead";

/// The commands for this configuration.
pub(super) fn commands(draft: &Draft<'_>, format: Format) -> String {
    let authority = draft.external.as_ref().map_or("REGISTRY:PORT", |origin| origin.authority());
    let scheme = if draft.external.as_ref().is_none_or(Origin::is_secure) { "https" } else { "http" };
    let mut text = String::from(
        "Next, as root, with the program at /usr/local/bin/pierhead, conf/pierhead.service in /etc/systemd/system\n\
                      (systemctl daemon-reload), and the file at /etc/pierhead/pierhead.yml, which may hold secrets:\n\n",
    );
    text.push_str("  pierhead check -c /etc/pierhead/pierhead.yml\n\n");
    if draft.site.mode == Mode::Embedded {
        text.push_str(&before_embedding(draft));
    }
    let (over, back) = match format {
        Format::GitlabRb => omnibus(draft),
        Format::GitlabYml | Format::Nginx => nginx(draft),
    };
    text.push_str(&prepare(draft));
    text.push_str("Hand over:\n\n");
    text.push_str(&over);
    text.push_str("  systemctl enable --now pierhead\n");
    text.push_str(&format!(
        "  curl -si {scheme}://{authority}/v2/          # 401 is right\n  docker login {authority}\n\n"
    ));
    if key(draft).is_some() {
        text.push_str(
            "After each renewal of the certificate give its key to that group again, then: pierhead reload\n\n",
        );
    }
    text.push_str("And back:\n\n  systemctl disable --now pierhead\n");
    text.push_str(&back);
    text
}

/// The key that clients are shown, as a word of a shell.
fn key(draft: &Draft<'_>) -> Option<String> {
    let shown = draft.page.get(&["tls", "certificates"]).is_some();
    draft.certificate.1.as_deref().filter(|_| shown).map(quoted)
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Whom the server becomes must be there, and be able to read the file and the key whenever it is to read them again.
fn prepare(draft: &Draft<'_>) -> String {
    let root = match draft.page.get(&["registry", "storage", "filesystem", "rootdirectory"]) {
        Some(super::page::Node::Text(root)) if !draft.is_front() => Some(quoted(root)),
        _ => None,
    };
    let (who, user, group) = match root {
        // Who serves a tree becomes its owner.
        Some(root) => {
            (format!("  owner=$(stat -c %U {root}) group=$(stat -c %G {root})\n"), "\"$owner\"", "\"$group\"")
        }
        None => {
            let add =
                format!("  useradd --system --user-group --home-dir {STATE} --shell /usr/sbin/nologin pierhead\n");
            (add, "pierhead", "pierhead")
        }
    };
    let files = ["/etc/pierhead/pierhead.yml".to_owned()].into_iter().chain(key(draft)).collect::<Vec<_>>().join(" ");
    format!(
        "The server gives up root and becomes another user, who reads the file and the key again at each reload:\n\n{who}  \
         install -d -o root -g {group} -m 750 /etc/pierhead\n  install -d -o {user} -g {group} -m 700 {STATE}\n  \
         chown root:{group} {files}\n  chmod 640 {files}\n\n"
    )
}

/// The tree must say everything, and nobody else may write to it.
fn before_embedding(draft: &Draft<'_>) -> String {
    let root = match draft.page.get(&["registry", "storage", "filesystem", "rootdirectory"]) {
        Some(super::page::Node::Text(root)) => root.as_str(),
        _ => return String::new(),
    };
    format!(
        "First see that the images' tags are in the tree and not in GitLab's metadata database. Where this lists\n\
         database-in-use, stay with --mode front:\n\n  ls {}/docker/registry/lockfiles\n\n",
        quoted(root)
    )
}

fn omnibus(draft: &Draft<'_>) -> (String, String) {
    if draft.is_front() && draft.elsewhere {
        let over = "  # GitLab's NGINX does not serve this registry: take it out of whatever does\n".to_owned();
        return (over, "  # put the registry back there\n".to_owned());
    }
    if draft.is_front() {
        let over = "  # in /etc/gitlab/gitlab.rb (up to GitLab 19.1: registry_nginx['enable'] = false)\n  \
                    registry['nginx']['enable'] = false\n\n  gitlab-ctl reconfigure\n";
        let back = "  # in /etc/gitlab/gitlab.rb: take that line out again\n\n  gitlab-ctl reconfigure\n";
        return (over.to_owned(), back.to_owned());
    }
    let text = |path: &[&str]| match draft.page.get(path) {
        Some(super::page::Node::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let (host, port) = draft
        .external
        .as_ref()
        .map_or(("REGISTRY".to_owned(), 443), |origin| (origin.host().to_owned(), origin.port()));
    let address = super::draft::reachable(&text(&["registry", "http", "addr"]));
    let issuer = text(&["registry", "auth", "token", "issuer"]);
    // GitLab shows a port that is written, and clients take the usual one without it.
    let port = if port == 443 { String::new() } else { format!("  gitlab_rails['registry_port'] = '{port}'\n") };
    let off = match draft.elsewhere {
        true => "  # in /etc/gitlab/gitlab.rb\n",
        false => {
            "  # in /etc/gitlab/gitlab.rb (up to GitLab 19.1: registry_nginx['enable'] = false)\n  \
             registry['enable'] = false\n  registry['nginx']['enable'] = false\n"
        }
    };
    let over = format!(
        "{off}  gitlab_rails['registry_enabled'] = true\n  \
         gitlab_rails['registry_host'] = '{host}'\n{port}  \
         gitlab_rails['registry_api_url'] = 'http://{address}'\n  gitlab_rails['registry_issuer'] = '{issuer}'\n\n  \
         gitlab-ctl reconfigure\n"
    );
    let back = "  # in /etc/gitlab/gitlab.rb: take these lines away again\n\n  gitlab-ctl reconfigure\n".to_owned();
    (over, back)
}

fn nginx(draft: &Draft<'_>) -> (String, String) {
    let stop = if draft.is_front() {
        ""
    } else {
        "  # stop the registry that is there: Pierhead takes its port and its images\n"
    };
    let over = format!(
        "{stop}  # take the registry's server block out of NGINX (/etc/nginx/sites-enabled/, or where it is), then\n  nginx -t && systemctl reload nginx\n"
    );
    let back = "  # put the server block back, then\n  nginx -t && systemctl reload nginx\n".to_owned();
    (over, back)
}
