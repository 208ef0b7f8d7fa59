//! Where does the registry's API lie on the internal port?
//!
//! Behind us it is always at `/v2/`. With a prefix (`http.prefix`) it is below that and nowhere else: the prefix is taken
//! off the request's path, and put before the path of the URLs in `Location` and `Link`. Probes and the token endpoint
//! are no part of the API and stay where they are.

use http::header::{HeaderMap, HeaderName, LINK, LOCATION};
use http::uri::{PathAndQuery, Uri};

use super::Prefix;
use super::refusal::Refusal;
use crate::exchange::Origin;

/// Where it lies behind us.
pub(super) const API: &str = "/v2";

/// A request that came by the prefix.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) prefix: Prefix,
    /// The path and query as the client wrote them.
    pub(super) target: String,
}

/// The request's target without the prefix; `None` where the prefix means nothing.
pub(super) fn enter(prefix: &Prefix, uri: &Uri) -> Result<Option<(Mounted, Uri)>, Refusal> {
    let Some(target) = uri.path_and_query() else { return Ok(None) };
    let below = target.as_str().strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with('/'));
    let below = below.and_then(|rest| rest.parse::<PathAndQuery>().ok());
    let Some(below) = below.filter(|below| is_api(below.path())) else {
        let refused = is_api(target.path());
        return if refused { Err(Refusal::Elsewhere { prefix: prefix.clone() }) } else { Ok(None) };
    };
    let mounted = Mounted { prefix: prefix.clone(), target: target.as_str().to_owned() };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(below);
    Ok(Uri::from_parts(parts).ok().map(|uri| (mounted, uri)))
}

impl Mounted {
    /// Puts the prefix into the URLs that lead back to us.
    pub(super) fn leave(&self, headers: &mut HeaderMap, origin: &Origin) {
        for name in [LOCATION, LINK] {
            self.leave_one(headers, &name, &origin.to_string());
        }
    }

    fn leave_one(&self, headers: &mut HeaderMap, name: &HeaderName, origin: &str) {
        let Some(value) = headers.get_mut(name) else { return };
        let Ok(text) = value.to_str() else { return };
        let (open, url) = text.split_at(usize::from(text.starts_with('<')));
        let (origin, path) = url.split_at(if url.starts_with(origin) { origin.len() } else { 0 });
        if is_api(path)
            && let Ok(prefixed) = format!("{open}{origin}{}{path}", self.prefix.as_str()).parse()
        {
            *value = prefixed;
        }
    }
}

/// Whether a path (perhaps with more after it) is the API's.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix(API).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix::new("/a/registry/").unwrap().unwrap()
    }

    #[test]
    fn the_api_is_below_the_prefix_and_nowhere_else() {
        let behind =
            |uri: &str| enter(&prefix(), &uri.parse().unwrap()).map(|entered| entered.map(|(_, uri)| uri.to_string()));
        assert_eq!(behind("/a/registry/v2/x/tags/list?n=1"), Ok(Some("/v2/x/tags/list?n=1".to_owned())));
        assert_eq!(behind("/a/registry/v2"), Ok(Some("/v2".to_owned())));
        assert_eq!(behind("http://h:1/a/registry/v2/"), Ok(Some("http://h:1/v2/".to_owned())));
        for elsewhere in ["/", "/-/ready", "/jwt/auth", "/a/registry", "/a/registryv2/", "/a/registry/v3", "/v2x", "*"]
        {
            assert_eq!(behind(elsewhere), Ok(None), "{elsewhere}");
        }
        for refused in ["/v2", "/v2/", "/v2/x/tags/list"] {
            assert!(behind(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_prefix_may_look_like_the_api() {
        let prefix = Prefix::new("/v2").unwrap().unwrap();
        let behind =
            |uri: &str| enter(&prefix, &uri.parse().unwrap()).map(|entered| entered.map(|(_, uri)| uri.to_string()));
        assert_eq!(behind("/v2/v2/x"), Ok(Some("/v2/x".to_owned())));
        assert!(behind("/v2/x").is_err());
    }

    #[test]
    fn urls_that_lead_back_carry_the_prefix_and_others_do_not() {
        let origin: Origin = "https://r.test".parse().unwrap();
        let mounted = Mounted { prefix: prefix(), target: String::new() };
        for (name, before, after) in [
            (LOCATION, "https://r.test/v2/x?_state=y", "https://r.test/a/registry/v2/x?_state=y"),
            (LOCATION, "/v2/", "/a/registry/v2/"),
            (LINK, "</v2/_catalog?n=1>; rel=\"next\"", "</a/registry/v2/_catalog?n=1>; rel=\"next\""),
            (LOCATION, "https://s3.test/v2/x", "https://s3.test/v2/x"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&name, before.parse().unwrap());
            mounted.leave(&mut headers, &origin);
            assert_eq!(headers[name], after);
        }
    }

    #[test]
    fn a_prefix_is_a_plain_path() {
        let text = |path| Prefix::new(path).map(|prefix| prefix.map(|prefix| prefix.as_str().to_owned()));
        assert_eq!(
            (text("/"), text("/a"), text("/a/")),
            (Ok(None), Ok(Some("/a".to_owned())), Ok(Some("/a".to_owned())))
        );
        for bad in ["", "a", "//", "/a//b", "/a/../b", "/a b", "/a%20", "/a?b", "/ä"] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }
}
