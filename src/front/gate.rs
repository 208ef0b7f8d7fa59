//! Who may come in by a listener, and what for?
//!
//! Two questions, by the client's address alone: may it pull, and may it push. To pull is to read, whatever it is; to push
//! is to change anything below the API. Tokens are asked for with `POST` as well, which changes no image;
//! a project may be made by asking for one, as from any address that may come in.
//!
//! **Invariants:** what is denied is denied, whatever is allowed. A push begins with questions about what is there already:
//! so whoever is named as allowed to push may pull, and whoever may not pull may not push.
//!
//! Absent on purpose: accounts and their rights ([`auth`](crate::auth)), and probes, which everybody may ask for.

use std::net::IpAddr;

use http::Method;

use super::Networks;
use super::mount::is_api;
use super::refusal::Refusal;

/// The networks that a listener is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Who may come in; where nobody is named everybody may.
    pub allow: Directions,
    /// Who may not.
    pub deny: Directions,
}

/// Networks for either direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directions {
    /// Those that read.
    pub pull: Networks,
    /// Those that write.
    pub push: Networks,
}

impl Gate {
    /// Whether everybody may come in.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Lets the request in, or says why not.
    pub(super) fn admit(&self, method: &Method, path: &str, client: IpAddr) -> Result<(), Refusal> {
        if !self.may_pull(client) {
            return Err(Refusal::Denied { client, what: "ask for anything" });
        }
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if !reads && is_api(path) && !self.may_push(client) {
            return Err(Refusal::Denied { client, what: "push, or delete" });
        }
        Ok(())
    }

    fn may_pull(&self, client: IpAddr) -> bool {
        let Directions { pull, push } = &self.allow;
        let allowed = pull.is_empty() || pull.contains(client) || push.contains(client);
        allowed && !self.deny.pull.contains(client)
    }

    fn may_push(&self, client: IpAddr) -> bool {
        let Directions { push, .. } = &self.allow;
        (push.is_empty() || push.contains(client)) && !self.deny.push.contains(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &str) -> Networks {
        list.split_whitespace().map(|text| text.parse::<super::super::Network>().unwrap()).collect()
    }

    fn directions(pull: &str, push: &str) -> Directions {
        Directions { pull: networks(pull), push: networks(push) }
    }

    /// Which of pull, push and a question for a token a client may.
    fn may(gate: &Gate, client: &str) -> [bool; 3] {
        let requests =
            [(Method::HEAD, "/v2/a/blobs/x"), (Method::PATCH, "/v2/a/blobs/uploads/x"), (Method::POST, "/jwt/auth")];
        requests.map(|(method, path)| gate.admit(&method, path, client.parse().unwrap()).is_ok())
    }

    #[test]
    fn an_open_gate_lets_everybody_in() {
        assert!(Gate::default().is_open());
        assert_eq!(may(&Gate::default(), "203.0.113.9"), [true; 3]);
    }

    #[test]
    fn whoever_may_push_may_pull_and_nobody_may_push_who_may_not_pull() {
        let gate = Gate { allow: directions("10.0.0.0/8", "192.0.2.0/24"), deny: Directions::default() };
        assert_eq!(may(&gate, "10.1.1.1"), [true, false, true]);
        assert_eq!(may(&gate, "192.0.2.1"), [true, true, true]);
        assert_eq!(may(&gate, "203.0.113.9"), [false; 3]);
        let pull_only = Gate { allow: directions("10.0.0.0/8", ""), deny: Directions::default() };
        assert_eq!(may(&pull_only, "10.1.1.1"), [true; 3]);
        assert_eq!(may(&pull_only, "203.0.113.9"), [false; 3], "a list for pull closes the door for pushes too");
        let push_only = Gate { allow: directions("", "10.0.0.0/8"), deny: Directions::default() };
        assert_eq!(may(&push_only, "203.0.113.9"), [true, false, true]);
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let gate = Gate { allow: directions("10.0.0.0/8", "10.0.0.0/8"), deny: directions("10.6.6.6", "10.7.0.0/16") };
        assert_eq!(may(&gate, "10.1.1.1"), [true; 3]);
        assert_eq!(may(&gate, "10.6.6.6"), [false; 3]);
        assert_eq!(may(&gate, "10.7.1.1"), [true, false, true]);
        assert_eq!(may(&gate, "::ffff:10.6.6.6"), [false; 3]);
    }
}
