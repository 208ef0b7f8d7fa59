//! Which locations does a server have, and which of them is the registry's?
//!
//! NGINX takes the longest location that fits, wherever it stands in the file.
//!
//! **Invariant:** what a location kept somebody from is closed here for everybody where it cannot be said as it was.

use super::directives::{inside, keeps_out};
use super::nginx::Directive;

/// One location of a server.
pub(super) struct Location<'c> {
    pub(super) directive: &'c Directive,
    /// The locations that it stands in, outermost first.
    pub(super) outer: Vec<&'c Directive>,
}

/// What requests a location is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way<'c> {
    /// Those whose path begins so.
    Below(&'c str),
    /// Those with this path alone.
    Exactly(&'c str),
    /// A pattern, or a name for internal use.
    Pattern,
}

/// What a location does with a request.
#[derive(Clone, Copy)]
pub(super) enum Deed<'c> {
    /// NGINX answers, or sends elsewhere, before it looks at who asks.
    Returns(&'c Directive),
    /// It hands the request on.
    HandsOn(&'c Directive),
    /// It serves files, or does what is not known here.
    Else,
}

impl<'c> Location<'c> {
    pub(super) fn way(&self) -> Way<'c> {
        match self.directive.arguments.as_slice() {
            [path] if path.starts_with('/') => Way::Below(path),
            [mark, path] if mark == "^~" => Way::Below(path),
            [mark, path] if mark == "=" => Way::Exactly(path),
            _ => Way::Pattern,
        }
    }

    pub(super) fn deed(&self) -> Deed<'c> {
        let named = |name: &str| inside(self.directive).iter().find(|directive| directive.name == name);
        match (named("return"), named("proxy_pass")) {
            (Some(directive), _) => Deed::Returns(directive),
            (None, Some(directive)) => Deed::HandsOn(directive),
            (None, None) => Deed::Else,
        }
    }

    /// What is written in it and in those that it stands in, outermost first.
    pub(super) fn scopes(&self) -> impl DoubleEndedIterator<Item = &'c Directive> {
        self.outer.clone().into_iter().chain([self.directive])
    }

    /// `allow` and `deny` of its own.
    pub(super) fn rules(&self) -> Vec<&'c Directive> {
        let of = |scope: &'c Directive| inside(scope).iter().filter(|directive| is_rule(directive)).collect::<Vec<_>>();
        self.scopes().rev().map(of).find(|rules| !rules.is_empty()).unwrap_or_default()
    }

    /// Whether something besides `allow` and `deny` decides who may come in.
    pub(super) fn is_guarded(&self) -> bool {
        self.scopes().flat_map(inside).any(|directive| !is_rule(directive) && decides(directive))
    }
}

/// `allow` or `deny`.
pub(super) fn is_rule(directive: &Directive) -> bool {
    matches!(directive.name.as_str(), "allow" | "deny")
}

/// Whether somebody is kept out altogether, and not only slowed down.
fn decides(directive: &Directive) -> bool {
    keeps_out(directive) && !directive.name.starts_with("limit_req") && !directive.name.starts_with("limit_conn")
}

/// All locations of a server, with those within others.
pub(super) fn all(server: &Directive) -> Vec<Location<'_>> {
    let mut found = Vec::new();
    collect(server, &[], &mut found);
    found
}

fn collect<'c>(outer: &'c Directive, above: &[&'c Directive], found: &mut Vec<Location<'c>>) {
    for directive in inside(outer).iter().filter(|directive| directive.name == "location") {
        found.push(Location { directive, outer: above.to_vec() });
        let above: Vec<&Directive> = above.iter().copied().chain([directive]).collect();
        collect(directive, &above, found);
    }
}

/// The registry's: `/v2/` where there is one, whatever it does; else `/`, where it hands requests on.
pub(super) fn registrys(locations: &[Location<'_>]) -> Option<usize> {
    let at = |path: &str| locations.iter().position(|location| location.way() == Way::Below(path));
    let whole =
        |location: &Location<'_>| location.way() == Way::Below("/") && matches!(location.deed(), Deed::HandsOn(_));
    at("/v2/").or_else(|| at("/v2")).or_else(|| locations.iter().position(whole))
}

/// How surely a server is a registry's.
pub(super) fn likeness(server: &Directive) -> u8 {
    let hands_on = |location: &Location<'_>| matches!(location.deed(), Deed::HandsOn(_));
    let locations = all(server);
    let api = |location: &Location<'_>| match location.way() {
        Way::Below(path) | Way::Exactly(path) => matches!(path, "/v2" | "/v2/"),
        Way::Pattern => location.directive.text().contains("^/v2"),
    };
    match locations.iter().any(hands_on) {
        true if locations.iter().any(|location| api(location) && hands_on(location)) => 2,
        true => 1,
        false => 0,
    }
}

/// A path without the slash at its end.
pub(super) fn bare(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Whether NGINX closes more below this path than a route does, which ends with a component: `/v2/a` is `/v2/ab` to it.
pub(super) fn ends_within_a_name(path: &str) -> bool {
    !path.ends_with('/') && path != "/v2/_catalog"
}

/// What routes can begin with: no empty components, no dots, nothing that a URI would have to encode.
pub(super) fn routable(path: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~!&'()*+,;=:@".contains(&letter);
    let good = |component: &str| !["", ".", ".."].contains(&component) && component.bytes().all(letter);
    let Some(rest) = path.strip_prefix('/') else { return false };
    path == "/" || bare(rest).split('/').all(good)
}
