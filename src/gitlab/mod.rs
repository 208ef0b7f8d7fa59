//! How does who serves a registry now move to Pierhead?
//!
//! ```text
//! ruby      gitlab.rb -> statements. Read, never run
//! nginx     an NGINX configuration -> directives
//! value     what a setting says
//! omnibus   what the statements of a gitlab.rb mean here
//! block     what the directives of a server block mean here
//! locations which locations it has, and what they are for
//! listens   what it listens on
//! routing   where its requests go
//! directives what single directives mean
//! rails     what the registry's part of a gitlab.yml means here
//! words     what is called the same in NGINX's directives and in Omnibus' keys
//! draft     the configuration as it comes together
//! addresses which of the ports can be side by side
//! page      the configuration as text
//! ledger    what became of every line
//! handover  the commands that change places, there and back
//! ```
//!
//! **Invariants:** every setting that was read has one line in the report. What this version of Pierhead does not do is
//! said and not written: the result is a configuration that `pierhead check` takes. The report shows no values, since
//! some are secrets. Nothing is run, nothing is opened: the room is pure.
//!
//! Absent on purpose: includes and variables, which are for whoever can run them.

use std::path::Path;

mod addresses;
mod block;
mod directives;
mod draft;
mod handover;
mod ledger;
mod listens;
mod locations;
mod nginx;
mod omnibus;
mod page;
mod rails;
mod routing;
mod ruby;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use ledger::{Fate, Ledger, Line};
pub use rails::{Leaf, Plain, without_erb};

/// What Pierhead is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stand before the registry that is there, in NGINX's place.
    Front,
    /// Serve the registry's images itself, in its place and NGINX's.
    Embedded,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Omnibus' `gitlab.rb`.
    GitlabRb,
    /// A source install's `gitlab.yml`.
    GitlabYml,
    /// A server block of NGINX.
    Nginx,
}

/// What is known of the machine that the file is about.
pub struct Site<'s> {
    /// The file, as the operator calls it.
    pub file: &'s str,
    /// What Pierhead is to do.
    pub mode: Mode,
    /// Whether a file is there: which certificate Omnibus shows depends on it.
    pub exists: &'s dyn Fn(&Path) -> bool,
}

/// What came of a file.
#[derive(Debug)]
pub struct Imported {
    /// The text of a `pierhead.yml`; `None` where there is no way to serve these images: the report says why.
    pub configuration: Option<String>,
    /// What became of every line, and what to do next.
    pub report: String,
    /// The lines, for who counts them.
    pub ledger: Ledger,
}

/// How `text` is written, as far as a look at it tells.
pub fn recognise(text: &str) -> Option<Format> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.find_map(|line| {
        let word = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap_or("");
        let rest = line[word.len()..].trim_start();
        match word {
            "server" | "upstream" | "http" | "map" | "include" | "proxy_cache_path"
                if rest.starts_with('{') || rest.ends_with(['{', ';', '}']) =>
            {
                Some(Format::Nginx)
            }
            "production" | "registry" | "gitlab" if rest.starts_with(':') => Some(Format::GitlabYml),
            _ if rest.starts_with('[')
                || (word.ends_with("external_url") && rest.starts_with(['\'', '"', '(', '='])) =>
            {
                Some(Format::GitlabRb)
            }
            "roles" | "if" | "unless" => Some(Format::GitlabRb),
            _ => None,
        }
    })
}

/// Reads a `gitlab.rb`.
pub fn gitlab_rb(text: &str, site: &Site<'_>) -> Imported {
    omnibus::import(text, site)
}

/// Reads an NGINX configuration.
pub fn nginx_block(text: &str, site: &Site<'_>) -> Imported {
    block::import(text, site)
}

/// Reads the leaves of a `gitlab.yml`, whose text went through [`without_erb`].
pub fn gitlab_yml(leaves: &[Leaf], plain: &Plain, site: &Site<'_>) -> Imported {
    rails::import(leaves, plain, site)
}
