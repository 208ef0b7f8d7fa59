//! `pierhead import`: from the files of those whose place we take to a `pierhead.yml`.
//!
//! The file is read as text and nothing of it is run. The configuration goes to stdout, or with 0600 to a file, since it
//! may hold secrets; the report goes to stderr.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Failure;
use super::terminal::say;
use crate::config;
use crate::gitlab::{self, Imported, Site};
use crate::storage::durable;

/// No configuration is larger, in bytes.
const LARGEST: u64 = 1 << 20;

/// What the help ends with.
pub(super) const HELP: &str = "\
SOURCE is an Omnibus /etc/gitlab/gitlab.rb, a source install's config/gitlab.yml, or the registry's server block of NGINX \
(/var/opt/gitlab/nginx/conf/service_conf/gitlab-registry.conf); which of them is seen from what is in it.

Ruby is read, never run. What only running could tell (ENV, if, interpolation) is named with its line and left to you.

--mode front stands before the registry that is there, in NGINX's place: it changes nothing else, and is the way to begin. \
--mode embedded serves the same images in the registry's place, and believes GitLab's tokens.

The report, on stderr, says what became of every line, and ends with the commands that hand over, and back:

  pierhead import -o /etc/pierhead/pierhead.yml /etc/gitlab/gitlab.rb
  pierhead check -c /etc/pierhead/pierhead.yml";

/// What `import` takes.
#[derive(Debug, Args)]
pub struct Import {
    /// What Pierhead is to do
    #[arg(long, value_enum, default_value_t = Mode::Front)]
    mode: Mode,
    /// Where the configuration goes, with mode 0600 [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How SOURCE is written [default: seen from what is in it]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to read
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
}

/// What Pierhead is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Stand before the registry that is there, in NGINX's place
    Front,
    /// Serve its images itself, in its place and NGINX's
    Embedded,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Omnibus' gitlab.rb
    GitlabRb,
    /// A source install's gitlab.yml
    GitlabYml,
    /// An NGINX server block
    Nginx,
}

/// Runs the command.
///
/// # Errors
/// The source cannot be read, is none of the three, or leaves no way to serve its images; the configuration cannot be
/// written.
pub(super) fn run(command: &Import) -> Result<(), Failure> {
    let file = command.source.display().to_string();
    let text =
        read(&command.source).map_err(|error| Failure::failed(format_args!("{file}: cannot be read: {error}")))?;
    let format = command.format.map(Into::into).or_else(|| gitlab::recognise(&text)).ok_or_else(|| Failure {
        code: 2,
        message: format!(
            "{file} is no gitlab.rb, no gitlab.yml and no server block that is recognised; --format says which"
        ),
    })?;
    let exists = |path: &Path| path.exists();
    let site = Site { file: &file, mode: command.mode.into(), exists: &exists };
    let imported = match format {
        gitlab::Format::GitlabRb => gitlab::gitlab_rb(&text, &site),
        gitlab::Format::Nginx => gitlab::nginx_block(&text, &site),
        gitlab::Format::GitlabYml => yaml(&text, &command.source, &site)?,
    };
    // With stderr closed there is nobody to report to; the configuration is as good.
    let _ = io::stderr().write_all(imported.report.as_bytes());
    let Some(configuration) = imported.configuration else {
        return Err(Failure::failed("nothing was written: the report above says why"));
    };
    match &command.output {
        Some(path) => durable::write(path, configuration.as_bytes(), durable::SECRET)
            .map_err(|error| Failure::failed(format_args!("{}: cannot be written: {error}", path.display()))),
        None => say(&configuration),
    }
}

fn yaml(text: &str, source: &Path, site: &Site<'_>) -> Result<Imported, Failure> {
    let leaves = config::leaves(&gitlab::without_erb(text), source).map_err(Failure::configuration)?;
    let leaf = |leaf: config::Leaf| gitlab::Leaf { line: leaf.line, path: leaf.path, value: leaf.value };
    let leaves: Vec<gitlab::Leaf> = leaves.into_iter().map(leaf).collect();
    Ok(gitlab::gitlab_yml(&leaves, site))
}

/// The text of a file; bytes that are no UTF-8 are in comments, as a rule, and are replaced.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes: not a configuration file")));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

impl From<Mode> for gitlab::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Front => Self::Front,
            Mode::Embedded => Self::Embedded,
        }
    }
}

impl From<Format> for gitlab::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::GitlabRb => Self::GitlabRb,
            Format::GitlabYml => Self::GitlabYml,
            Format::Nginx => Self::Nginx,
        }
    }
}
