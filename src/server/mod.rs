//! How do settings become a running server, and how does it end?
//!
//! Two halves. [`prepare`] does what needs the rights that we were started with and must fail loudly before anything
//! runs: it binds the ports, reads the certificates, makes the folders and gives the rights up. [`Prepared::run`] starts
//! the runtime, builds the rooms from the bottom up, serves until it is told to stop, and then drains. In between it
//! does what it is told by signals and by the [`control`] socket, one thing after the other; what a reload may change is
//! in `change.rs`.
//!
//! **Invariant:** rights are given up while there is one thread, and before the first byte from a client is read.

mod certificates;
mod change;
#[cfg(feature = "opentelemetry")]
mod collector;
pub mod control;
mod descriptors;
mod folders;
pub mod handover;
mod inherited;
mod listen;
pub mod maintenance;
pub mod privileges;
mod serving;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::task::JoinSet;

use self::certificates::{FromFiles, Loaded, Ordering};
use self::handover::{Handed, Program};
use self::serving::{Serving, Signals};

use crate::auth::{self, Authority, Guardian, Password};
use crate::config::{Settings, Tokens};
use crate::front::{self, Address, Listener, Running, Socket};
use crate::metadata::{self, Database};
use crate::origin::{Debug, Embedded};
use crate::registry::health::Checks;
use crate::registry::{self, Index, Registry};
use crate::storage::{Filesystem, Measured};
use crate::telemetry::{Metrics, Reports, Threshold};
use crate::tls::{self, local};

/// How long what was begun elsewhere may take to its end when everything else is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why the server did not start, or did not end well: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens there.
    #[error(
        "cannot listen on {0}: another program has this port (or the path is taken); stop it, or choose another (`listeners`, `registry.http.addr`, `metrics.address`)"
    )]
    PortTaken(Address),
    /// A port below 1024 without the right to it.
    #[error(
        "cannot listen on {0}: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)"
    )]
    PortForbidden(Address),
    /// Any other failure to listen.
    #[error("cannot listen on {address}: {source}; is the address one of this machine's?")]
    Listen {
        /// Where.
        address: Address,
        /// The system's word.
        source: std::io::Error,
    },
    /// A listener at `systemd` without a socket.
    #[error(
        "cannot listen on {0}: systemd handed over no such socket; start pierhead by its socket unit (ListenStream=, \
         FileDescriptorName=), one for each listener at `systemd`"
    )]
    NotInherited(Address),
    /// A socket of systemd's without a listener.
    #[error(
        "systemd listens for us on a socket named {0:?}, and no listener at `systemd` takes it; add one to `listeners`"
    )]
    InheritedInVain(String),
    /// A socket of systemd's that is not one to listen on.
    #[error("cannot use the socket that systemd handed over: {0}")]
    Inherited(std::io::Error),
    /// Another server keeps the state.
    #[error("another server runs on the state directory {}; stop it, or set `state` to another", .0.display())]
    StateTaken(PathBuf),
    /// Another process did not hand us what it should have.
    #[error("what another process hands us cannot be taken: {0}")]
    Handed(#[source] std::io::Error),
    /// The control socket.
    #[error("cannot listen on {} for commands: {source}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// What the operator ordered cannot be read.
    #[error(
        "cannot read {}, which says whether maintenance is on: {source}; take it away if it is not", path.display()
    )]
    Maintenance {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A folder that we must write to.
    #[error("cannot use the folder {} as user {user}: {source}; make it writable for that user, or set `{key}` to another", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Who we are.
        user: String,
        /// The key that names the folder.
        key: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// Something that it takes to order certificates.
    #[error(
        "cannot use {} as user {user}, who orders certificates: {source}; give that user the right to (`{key}`)", path.display()
    )]
    Order {
        /// The file or folder.
        path: PathBuf,
        /// Who we are.
        user: String,
        /// The key that names it.
        key: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// `user` names somebody whom only root could become.
    #[error("user: started as {we}, we cannot become {user}; start as root or as {user}, or take `user` away")]
    NotRoot {
        /// Whom the configuration names.
        user: String,
        /// Who we are.
        we: String,
    },
    /// Changing the user failed.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// What TLS with an upstream needs.
    #[error(transparent)]
    Upstream(#[from] front::UpstreamError),
    /// TLS itself.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The metadata database.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// Token keys or accounts.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// A tree that says less than there is.
    #[error(transparent)]
    Tree(#[from] registry::ForeignTree),
    /// The front door.
    #[error(transparent)]
    Front(#[from] front::Error),
    /// Traces.
    #[cfg(feature = "opentelemetry")]
    #[error(transparent)]
    Traces(#[from] crate::telemetry::traces::Unusable),
    /// The runtime or its signals.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// Reads the configuration anew, as `serve` first read it: the settings, or every problem.
pub type Configuration = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// What the server has from outside, beside its settings.
pub struct Outside {
    /// Whom to tell what happens.
    pub reports: Reports,
    /// What a reload changes the level of the log through.
    pub threshold: Threshold,
    /// What a reload reads.
    pub configuration: Configuration,
}

/// A server that has everything it needs from the machine and no rights left that it does not need.
pub struct Prepared {
    settings: Settings,
    handed: Handed,
    sockets: Vec<(Socket, Listener)>,
    control: Option<control::Socket>,
    debug: Option<DebugDoor>,
    loaded: Loaded,
    first_password: Result<Option<Password>, auth::Error>,
}

/// The door to the debug pages.
struct DebugDoor {
    config: front::Config,
    metrics: Option<String>,
    sockets: Vec<(Socket, Listener)>,
}

impl DebugDoor {
    fn bind(usual: &front::Config, debug: &front::Debug, handed: &mut Handed) -> Result<Self, Error> {
        let config = usual.for_debug(debug);
        Ok(Self { sockets: listen::bind_ports(&config.listeners, handed)?, config, metrics: debug.metrics.clone() })
    }

    /// Whoever looks there is neither logged nor counted.
    fn open(self, embedded: Arc<Embedded>) -> Result<Running<Debug>, front::Error> {
        let Self { config, metrics, sockets } = self;
        let pages = Arc::new(Debug::new(embedded, metrics));
        front::open(config, pages, &front::Tls::default(), Reports::off(), sockets)
    }
}

/// What whoever started the server should be told once it serves.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// What it serves.
    pub settings: &'a Settings,
    /// Where it listens.
    pub listening: Vec<Listener>,
    /// The local authority, when there are no certificates of the operator's, or not yet all that are ordered.
    pub authority: Option<&'a local::Authority>,
    /// The first administrator, if this start made the account.
    pub first_admin: Option<auth::FirstAdmin>,
    /// Whether we still have the rights of root, because the data is root's.
    pub as_root: bool,
}

/// Binds, reads and makes what the settings name, then becomes the user that the data belongs to.
///
/// # Errors
/// The first thing that the machine refuses.
pub fn prepare(settings: Settings, now: SystemTime) -> Result<Prepared, Error> {
    descriptors::raise_limit();
    let mut handed = Handed::receive().map_err(Error::Handed)?;
    let mut sockets = inherited::take(&settings.front.listeners, &mut handed)?;
    sockets.extend(listen::bind_ports(&settings.front.listeners, &mut handed)?);
    let debug = settings.front.debug.as_ref().map(|debug| DebugDoor::bind(&settings.front, debug, &mut handed));
    let debug = debug.transpose()?;
    // Keys from files may be readable by root alone, so they are read before the rights are given up.
    let from_files = FromFiles::read(&settings)?;
    // A secret's file may be root's as well. Whether it is needed turns out later, and only then must it be good.
    let first_password = auth::first_password(|name| std::env::var(name).ok());
    folders::make_and_become_owner(&settings)?;
    inherited::are_ours(&sockets)?;
    // These belong to whoever makes them, who must be able to take them away at the end.
    sockets.extend(listen::bind_paths(&settings.front.listeners, &mut handed)?);
    let loaded = from_files.complete(&settings, &[], now)?;
    let control = if settings.registry_only { None } else { Some(open_control(&settings.state, &mut handed)?) };
    descriptors::compare_with_limit(&settings.front.limits); // who cannot start hears only why
    Ok(Prepared { settings, handed, sockets, control, debug, loaded, first_password })
}

fn open_control(state: &Path, handed: &mut Handed) -> Result<control::Socket, Error> {
    let opened = match handed.take_control(&control::Socket::path(state)) {
        Some(socket) => control::Socket::handed(socket),
        None => control::Socket::bind(state),
    };
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::StateTaken(state.to_owned()),
        _ => Error::Control { path: control::Socket::path(state), source },
    })
}

impl Prepared {
    /// Serves until SIGTERM or SIGINT, then lets running requests end. `ready` is called once connections are accepted.
    ///
    /// # Errors
    /// A room that cannot be opened.
    pub fn run(self, outside: Outside, ready: impl FnOnce(&Welcome<'_>)) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
        let served = runtime.block_on(self.serve(outside, ready));
        // Whatever still runs was promised to nobody; a disk that does not answer must not keep the process.
        runtime.shutdown_timeout(GOODBYE);
        served
    }

    async fn serve(self, outside: Outside, ready: impl FnOnce(&Welcome<'_>)) -> Result<(), Error> {
        let Self { settings, handed, sockets, control, debug, loaded, first_password } = self;
        let Outside { reports, threshold, configuration } = outside;
        #[cfg(feature = "opentelemetry")]
        let (reports, exporting) = collector::begin(&settings.telemetry.traces, reports)?;
        let program = Program::ours().map_err(Error::Runtime)?;
        let mut files = listen::SocketFiles::of(&sockets);
        if control.is_some() {
            files.add(control::Socket::path(&settings.state));
        }
        // Until we serve they are whose place we take, and who goes on with them if we do not come to it.
        files.are_anothers(handed.is_taking_over());
        // Signals first: one that arrives during the start is answered at its end, not by dying.
        let mut signals = Signals::listen().map_err(Error::Runtime)?;
        let Rooms { accounts, embedded, checks } = Rooms::open(&settings, &reports.metrics).await?;
        let Loaded { tls, shown, authority } = loaded;
        let listening = listen::actual_addresses(&sockets);
        // After all that may well fail, so that there is no account whose password nobody was shown; before the first
        // answer, so that whoever waits for that can log in.
        let first_admin = match accounts {
            Some(accounts) => accounts.first_admin(first_password).await?,
            None => {
                if !matches!(first_password, Ok(None)) {
                    tracing::warn!("the first admin's password has no effect: there are no accounts here");
                }
                None
            }
        };
        // Until the very end: they tell of a drain as well.
        let debug = match debug {
            Some(door) => Some(door.open(Arc::clone(&embedded))?),
            None => None,
        };
        let mut loops = JoinSet::new(); // they end with the server
        if let Some(checks) = checks {
            loops.spawn(async move { checks.keep_checking().await });
        }
        let tending = serving::tend(&mut loops, &embedded);
        let watching = certificates::watch(&mut loops, shown, tls.demands.revocations(), &reports.metrics);
        let running = front::open(settings.front.clone(), embedded.clone(), &tls, reports.clone(), sockets)?;
        let as_root = nix::unistd::geteuid().is_root();
        ready(&Welcome { settings: &settings, listening, authority: authority.as_ref(), first_admin, as_root });
        handed.ready();
        files.are_anothers(false);
        let duplicate = control.as_ref().map(control::Socket::duplicate).transpose().map_err(Error::Runtime)?;
        let (hearing, commands) = serving::hear(&mut loops, control);
        // Not before: the process that we take over from orders until then.
        let ordering = Ordering::begin(&mut loops, &settings, &reports.metrics);
        let server = Serving {
            settings,
            configuration,
            reports,
            threshold,
            embedded,
            running,
            debug,
            program,
            control: duplicate,
            hearing,
            files,
            loops,
            tending,
            watching,
            ordering,
        };
        server.run(&mut signals, commands).await;
        #[cfg(feature = "opentelemetry")]
        exporting.finish().await;
        Ok(())
    }
}

/// The rooms that answer, from the bottom up: only those that are ours.
struct Rooms {
    accounts: Option<Accounts>,
    embedded: Arc<Embedded>,
    checks: Option<Arc<Checks>>,
}

impl Rooms {
    async fn open(settings: &Settings, metrics: &Metrics) -> Result<Self, Error> {
        let database = if settings.keeps_metadata() {
            Some(Database::open(&Database::path_in(&settings.state)).await?)
        } else {
            None
        };
        let accounts = match (&database, &settings.services.tokens) {
            (Some(database), Tokens::Ours) => Some(Accounts::open(settings, database.clone())?),
            _ => None,
        };
        let tokens = accounts.as_ref().map(|accounts| Arc::clone(&accounts.tokens));
        let (embedded, checks) = if settings.services.registry {
            let registry = open_registry(settings, database, metrics).await?;
            let guardian = Guardian::open(&settings.auth, tokens.clone())?;
            let checks = registry.checks();
            (Embedded::new(registry, guardian, tokens, metrics.clone()), Some(checks))
        } else {
            (Embedded::without_registry(tokens, settings.registry.limits, metrics.clone()), None)
        };
        if !settings.registry_only {
            maintenance::restore(&settings.state, &embedded.maintenance())?;
        }
        Ok(Self { accounts, embedded: Arc::new(embedded), checks })
    }
}

async fn open_registry(settings: &Settings, database: Option<Database>, metrics: &Metrics) -> Result<Registry, Error> {
    let disk = Arc::new(Filesystem::new(settings.registry.root.clone()));
    let driver = Arc::new(Measured::new(disk, metrics.clone()));
    let index = database.map_or_else(Index::none, Index::in_database);
    let registry = Registry::new(settings.registry.clone(), driver, index);
    registry.check_tree().await?;
    Ok(registry)
}

/// Accounts, and the tokens that are made of them.
struct Accounts {
    database: Database,
    tokens: Arc<Authority>,
}

impl Accounts {
    fn open(settings: &Settings, database: Database) -> Result<Self, Error> {
        let tokens = Arc::new(Authority::open(settings.auth.clone(), database.clone())?);
        Ok(Self { database, tokens })
    }

    /// Makes the first administrator unless there is one.
    async fn first_admin(
        &self,
        password: Result<Option<Password>, auth::Error>,
    ) -> Result<Option<auth::FirstAdmin>, Error> {
        if self.database.has_admin().await? {
            return Ok(None);
        }
        Ok(auth::first_admin(&self.database, password?, Timestamp::now()).await?)
    }
}
