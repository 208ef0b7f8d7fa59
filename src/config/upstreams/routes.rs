//! The schema of `routes`, and what a route means.

use http::{HeaderValue, Method, StatusCode};

use super::super::problem::{Place, quoted};
use super::super::reader::{Item, Section, Setting};
use super::super::scalar;
use super::written::{name, path, status, whole_url};
use crate::exchange::Origin;
use crate::front::{self, Fixed, PathPrefix, Redirect, Target};

/// A route as written.
#[derive(Debug)]
pub(in super::super) struct Route {
    pub(super) place: Place,
    pub(super) host: Setting<front::Host>,
    pub(super) path: Setting<PathPrefix>,
    pub(super) methods: Setting<Vec<Setting<Method>>>,
    pub(super) to: To,
}

/// Where to, as written.
#[derive(Debug)]
pub(super) struct To {
    /// `embedded`.
    pub(super) embedded: Setting<()>,
    pub(super) upstream: Setting<String>,
    pub(super) redirect: Setting<String>,
    pub(super) answer: Setting<StatusCode>,
    /// Of `redirect`.
    pub(super) status: Setting<StatusCode>,
    /// Of `answer`.
    pub(super) body: Setting<String>,
    pub(super) content_type: Setting<HeaderValue>,
    /// Whether anything is written there.
    pub(super) wrong: bool,
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

impl Route {
    pub(in super::super) fn read(item: Item<'_>) -> Self {
        let place = item.place();
        item.section(|section| Self {
            place,
            host: section.scalar("host", host),
            path: section.scalar("path", path),
            methods: section.list("methods", |item| item.scalar(method)),
            to: section.section_or_word("to", "embedded", To::read),
        })
    }

    /// As the front takes it, if it is whole.
    pub(super) fn meant(&self) -> Option<front::Route> {
        let methods = self.methods.items().iter().filter_map(Setting::written).map(|(method, _)| method.clone());
        Some(front::Route {
            host: self.host.written().map(|(host, _)| host.clone()),
            path: self.path.clone().into_value().or_else(everything)?,
            methods: methods.collect(),
            to: self.to.meant()?,
        })
    }
}

fn method(text: &str) -> Result<Method, String> {
    let word = scalar::choice(text, &METHODS.map(|word| (word, word)))?;
    Method::from_bytes(word.as_bytes()).map_err(|error| error.to_string())
}

/// What a route without `path` begins with.
fn everything() -> Option<PathPrefix> {
    PathPrefix::new("/").ok()
}

impl To {
    fn read(embedded: Setting<()>, section: &mut Section<'_>) -> Self {
        let to = Self {
            embedded,
            upstream: section.scalar("upstream", name),
            redirect: section.scalar("redirect", whole_url),
            answer: section.scalar("answer", |text| status(text, 200..=599)),
            status: section.scalar("status", |text| {
                let status = status(text, 300..=399).ok().filter(|status| REDIRECTS.contains(&status.as_u16()));
                status.ok_or_else(|| format!("must be 301, 302, 303, 307 or 308, not {}", quoted(text)))
            }),
            body: section.scalar("body", |text| Ok(text.to_owned())),
            content_type: section.scalar("type", |text| {
                let value = HeaderValue::from_str(text).ok().filter(|_| text.contains('/'));
                value.ok_or_else(|| format!("must be a media type such as text/plain, not {}", quoted(text)))
            }),
            wrong: false,
        };
        let wrong = to.upstream.is_wrong() || to.redirect.is_wrong() || to.answer.is_wrong();
        Self { wrong, ..to }
    }

    fn meant(&self) -> Option<Target> {
        if self.embedded.written().is_some() {
            return Some(Target::Embedded);
        }
        if let Some((name, _)) = self.upstream.written() {
            return Some(Target::Upstream(name.as_str().into()));
        }
        if let Some((to, _)) = self.redirect.written() {
            let status = self.status.clone().or(StatusCode::PERMANENT_REDIRECT);
            return Some(Target::Redirect(Redirect { to: to.clone(), status }));
        }
        let (status, _) = self.answer.written()?;
        let usual = || HeaderValue::from_static("text/plain; charset=utf-8");
        let body = self.body.clone().into_value();
        Some(Target::Answer(Fixed { status: *status, body, content_type: self.content_type.clone().or_else(usual) }))
    }
}

/// A name with or without a port.
fn host(text: &str) -> Result<front::Host, String> {
    let accepted = || format!("must be one of our names, with or without its port, not {}", quoted(text));
    let bare = text.to_ascii_lowercase();
    if scalar::is_host(&bare) {
        return Ok(front::Host::Name(bare));
    }
    let (_, port) = text.rsplit_once(':').ok_or_else(accepted)?;
    // The port of a scheme is never written in an authority.
    let origin =
        scalar::origin(&format!("http{}://{text}", if port == "443" { "s" } else { "" })).map_err(|_| accepted())?;
    Ok(front::Host::Authority(Origin::authority(&origin).to_owned()))
}
