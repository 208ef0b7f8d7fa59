//! What does the server do while it serves?
//!
//! It does what signals and commands tell it, one thing after the other: a reload, and in the end to stop.
//!
//! **Invariant:** a reload is all or nothing. Everything that can fail comes first: the configuration is read and checked
//! as at the start, certificates and keys are read, sockets are bound. Then nothing is left that can. What is read may be on
//! a disk that hangs, so it is read elsewhere, and whoever stops us meanwhile is heard.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::certificates::{self, FromFiles, Loaded, Ordering, Watching};
use super::change::{self, Refused};
use super::control::{self, Answer, Command, Outcome};
use super::handover::{self, Handed, Program};
use super::maintenance::Status;
use super::{Configuration, Error, descriptors, inherited, listen, maintenance};
use crate::auth::Whom;
use crate::config::Settings;
use crate::front::{Drained, Running};
use crate::origin::{Debug, Embedded};
use crate::telemetry::{Reports, Threshold};
use crate::tls;

/// How many commands may wait for their turn.
const COMMANDS: usize = 8;

/// What the registry does by itself, until it is told otherwise.
pub(super) fn tend(loops: &mut JoinSet<()>, embedded: &Arc<Embedded>) -> AbortHandle {
    let tended = Arc::clone(embedded);
    loops.spawn(async move { tended.tend().await })
}

/// The commands that come in by the control socket, if there is one.
pub(super) fn hear(
    loops: &mut JoinSet<()>,
    control: Option<control::Socket>,
) -> (AbortHandle, mpsc::Receiver<control::Request>) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let hearing = loops.spawn(async move {
        let heard = match control {
            Some(socket) => socket.hear(sender).await,
            None => {
                sender.closed().await;
                Ok(())
            }
        };
        if let Err(error) = heard {
            tracing::error!(%error, "no command can be heard");
        }
    });
    (hearing, commands)
}

/// The server between its start and its end.
pub(super) struct Serving {
    pub(super) settings: Settings,
    pub(super) configuration: Configuration,
    pub(super) reports: Reports,
    pub(super) threshold: Threshold,
    pub(super) embedded: Arc<Embedded>,
    pub(super) running: Running<Embedded>,
    /// Until the very end: it tells of a drain as well.
    pub(super) debug: Option<Running<Debug>>,
    pub(super) program: Program,
    /// The control socket, for another process.
    pub(super) control: Option<OwnedFd>,
    pub(super) hearing: AbortHandle,
    pub(super) files: listen::SocketFiles,
    /// They end with the server.
    pub(super) loops: JoinSet<()>,
    pub(super) tending: AbortHandle,
    pub(super) watching: Watching,
    pub(super) ordering: Ordering,
}

impl Serving {
    /// Does what it is told until it is told to stop, and then lets running requests end.
    pub(super) async fn run(mut self, signals: &mut Signals, commands: mpsc::Receiver<control::Request>) {
        let end = self.until_the_end(signals, commands).await;
        self.embedded.begin_drain();
        // The other process orders; and where there is none, nobody could look for a proof that is not asked for yet.
        if end == End::HandedOver || !self.ordering.is_at_it(SystemTime::now()) {
            self.ordering.end();
        }
        self.ordering.begin_no_more();
        if end == End::HandedOver {
            self.hearing.abort();
            self.watching.end();
            self.control = None;
            self.files.leave();
            if let Some(debug) = self.debug.take() {
                self.loops.spawn(async move {
                    debug.hand_over().await;
                });
            }
            if !self.settings.registry_only {
                let maintenance = self.embedded.maintenance();
                self.loops.spawn(maintenance::follow(self.settings.state.clone(), maintenance));
            }
            tracing::info!("another process serves now: running requests may end here; a signal ends them");
            finish(self.running.hand_over(), signals, &self.reports).await;
        } else {
            tracing::info!("stopping: no new connections, running requests may end; a second signal ends them");
            finish(self.running.drain(), signals, &self.reports).await;
        }
    }

    /// One thing after the other.
    async fn until_the_end(&mut self, signals: &mut Signals, mut commands: mpsc::Receiver<control::Request>) -> End {
        loop {
            if std::mem::take(&mut signals.reload) && self.reload(signals).await.is_none() {
                return End::Stopped;
            }
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => return End::Stopped,
                    Asked::Reload => signals.reload = true,
                    Asked::Reopen => self.reports.reopen(),
                },
                Some(request) = commands.recv() => {
                    if request.command == (Command::Upgrade {}) {
                        if let Some(end) = self.upgrade(signals, request).await {
                            return end;
                        }
                        continue;
                    }
                    let Some(answer) = self.obey(&request.command, signals).await else {
                        request.answer(Answer::new(Outcome::Failed, "nothing changed: the server is stopping"));
                        return End::Stopped;
                    };
                    request.answer(answer);
                }
            }
        }
    }

    /// Has another process take over, if it can. We go on until it has; `None`: it could not.
    async fn upgrade(&mut self, signals: &mut Signals, request: control::Request) -> Option<End> {
        let started = tokio::task::block_in_place(|| {
            let mut sockets = self.running.sockets();
            sockets.extend(self.debug.iter().flat_map(Running::sockets));
            let path = control::Socket::path(&self.settings.state);
            let control = self.control.as_ref().map(|socket| (path.as_path(), socket.as_fd()));
            self.program.start(&sockets, control)
        });
        let ready = match started {
            Ok(successor) => {
                tracing::info!(process = successor.id(), "another process is to take over");
                let cancel = successor.cancel();
                let mut ready = tokio::task::spawn_blocking(|| successor.ready());
                tokio::select! {
                    ready = &mut ready => ready.unwrap_or_else(|error| Err(handover::Error::Ended(error.to_string()))),
                    () = signals.stop(&self.reports) => {
                        cancel.cancel();
                        let Ok(Ok(process)) = ready.await else { return Some(End::Stopped) };
                        tracing::warn!(process, "told to stop when another process had just taken over: it serves on");
                        Ok(process)
                    }
                }
            }
            Err(error) => Err(error),
        };
        match ready {
            Ok(process) => {
                handover::tell_supervisor(process);
                request.answer(Answer::new(Outcome::Done, format_args!("process {process} serves now")));
                Some(End::HandedOver)
            }
            Err(error) => {
                tracing::error!("not upgraded: {error}");
                request.answer(Answer::new(Outcome::Failed, format_args!("nothing changed: {error}")));
                None
            }
        }
    }

    /// `None`: we were told to stop meanwhile.
    async fn obey(&mut self, command: &Command, signals: &mut Signals) -> Option<Answer> {
        match command {
            Command::Reload {} => self.reload(signals).await,
            other => Some(self.obey_now(other)),
        }
    }

    fn obey_now(&mut self, command: &Command) -> Answer {
        let maintenance = self.embedded.maintenance();
        let state = &self.settings.state;
        let done = match command {
            Command::Reload {} | Command::Upgrade {} => return Answer::new(Outcome::Failed, "that is under way"),
            Command::Unban { whom } => Ok(self.unban(whom)),
            Command::MaintenanceStatus {} => serde_json::to_string(&Status::of(&maintenance)).map_err(io::Error::from),
            Command::CertStatus {} => serde_json::to_string(&self.certificates()).map_err(io::Error::from),
            Command::CertRenew { names } => match self.renew(names) {
                Ok(ordered) => serde_json::to_string(&ordered).map_err(io::Error::from),
                Err(refused) => return refused,
            },
            Command::MaintenanceOn { mode, grace } => {
                let grace = grace.map_or(self.settings.front.timeouts.drain, Duration::from_millis);
                tokio::task::block_in_place(|| maintenance::begin(state, &maintenance, *mode, grace)).map(|pause| {
                    tracing::warn!(?mode, grace_until = %pause.grace_until, "maintenance is on");
                    format!("maintenance is on; what was begun may end until {}", pause.grace_until)
                })
            }
            Command::MaintenanceOff {} => {
                tokio::task::block_in_place(|| maintenance::end(state, &maintenance)).map(|()| {
                    tracing::warn!("maintenance is off");
                    match maintenance.configured() {
                        None => "maintenance is off".to_owned(),
                        Some(_) => "maintenance is off; the configuration says read-only all the same \
                                    (registry.storage.maintenance.readonly)"
                            .to_owned(),
                    }
                })
            }
        };
        match done {
            Ok(said) => Answer::new(Outcome::Done, said),
            Err(error) => Answer::new(
                Outcome::Failed,
                format_args!("nothing changed: cannot write to {}: {error}", state.display()),
            ),
        }
    }

    /// What is shown, and how its orders go.
    fn certificates(&self) -> Vec<tls::Status> {
        let now = SystemTime::now();
        let mut shown = self.watching.board.status(now);
        self.ordering.add_to(&mut shown, now);
        shown
    }

    /// Has certificates ordered now: how they are before it.
    fn renew(&self, names: &[String]) -> Result<Vec<tls::Status>, Answer> {
        let mut shown = self.certificates();
        let ordered = self.ordering.order_now(names, SystemTime::now())?;
        tracing::info!(files = ?ordered, "certificates are to be ordered now");
        shown.retain(|status| ordered.contains(&status.file));
        Ok(shown)
    }

    fn unban(&self, whom: &str) -> String {
        let meant = whom.parse().map_or_else(|_| Whom::Account(whom.to_owned()), Whom::Address);
        let lifted = self.embedded.forgive(&meant);
        tracing::info!(whom, lifted, "what counted against somebody is forgiven");
        if lifted == 0 { format!("nothing counted against {whom}") } else { format!("{whom} may try again") }
    }

    /// Goes by the configuration as it is now, or, when that cannot be, by the one before. `None`: we were told to stop
    /// meanwhile.
    async fn reload(&mut self, signals: &mut Signals) -> Option<Answer> {
        let read = tokio::select! {
            read = self.read_anew() => read,
            () = signals.stop(&self.reports) => return None,
        };
        let change = |(settings, loaded)| tokio::task::block_in_place(|| self.change(settings, loaded));
        Some(match read.and_then(change) {
            Ok(done) => {
                tracing::info!("reloaded: {done}");
                Answer::new(Outcome::Done, done)
            }
            Err(refused) => {
                tracing::error!("not reloaded, nothing changed: {refused}");
                Answer::new(refused.outcome(), format_args!("nothing changed: {refused}"))
            }
        })
    }

    /// Reads what a reload reads.
    async fn read_anew(&self) -> Result<(Settings, Loaded), Refused> {
        let (configuration, before) = (Arc::clone(&self.configuration), self.settings.clone());
        let shown = self.watching.shown.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let settings = configuration().map_err(Refused::configuration)?;
            let fixed = change::fixed(&before, &settings);
            if !fixed.is_empty() {
                return Err(Refused::Fixed(fixed));
            }
            Refused::unless_certificate_is_out_of_sight(&before, &settings)?;
            let loaded = FromFiles::read(&settings)?.complete(&settings, &shown, SystemTime::now())?;
            Ok((settings, loaded))
        });
        reading.await.unwrap_or_else(|error| Err(Error::Runtime(io::Error::other(error)).into()))
    }

    /// All that can fail comes first.
    fn change(&mut self, settings: Settings, loaded: Loaded) -> Result<String, Refused> {
        let remarks = loaded.remarks(SystemTime::now());
        let Loaded { tls, shown, authority: _ } = loaded;
        let wanted = self.running.not_open(&settings.front.listeners);
        let mut handed = Handed::default();
        let mut sockets = inherited::take(&wanted, &mut handed)?;
        sockets.extend(listen::bind_ports(&wanted, &mut handed)?);
        sockets.extend(listen::bind_paths(&wanted, &mut handed)?);
        let files = listen::SocketFiles::of(&sockets);
        let embedded = Arc::new(self.embedded.reconfigured(settings.registry.clone()));
        let closed = self.settings.front.listeners.len() + wanted.len() - settings.front.listeners.len();
        self.running.change(settings.front.clone(), embedded.clone(), &tls, sockets).map_err(Error::Front)?;

        embedded.limit(settings.auth.limits);
        self.embedded = embedded;
        let Settings { registry, front, .. } = &settings;
        self.embedded.maintenance().configure(registry.read_only, Timestamp::now(), front.timeouts.drain);
        self.files.join(files);
        let control = control::Socket::path(&settings.state);
        let listens = |path: &Path| settings.front.listeners.iter().any(|listener| listener.address.is_path(path));
        self.files.keep(|path| path == control || listens(path));
        self.threshold.set(settings.telemetry.level);
        descriptors::compare_with_limit(&front.limits);
        self.watching.replace(certificates::watch(
            &mut self.loops,
            shown,
            tls.demands.revocations(),
            &self.reports.metrics,
        ));
        // An order that is under way goes on when nothing is new about it.
        if !self.ordering.is_of(&settings) {
            self.ordering.replace(Ordering::begin(&mut self.loops, &settings, &self.reports.metrics));
        }
        if (settings.registry.purge, settings.registry.read_only)
            != (self.settings.registry.purge, self.settings.registry.read_only)
        {
            self.tending.abort();
            self.tending = tend(&mut self.loops, &self.embedded);
        }
        let warnings = settings.warnings.iter().map(ToString::to_string).chain(remarks.iter().map(ToString::to_string));
        let warnings: String = warnings.map(|warning| format!("\nwarning: {warning}")).collect();
        self.settings = settings;
        Ok(format!(
            "the new configuration is in force (listeners opened: {}, closed: {closed}){warnings}",
            wanted.len()
        ))
    }
}

/// How the server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stopped,
    HandedOver,
}

async fn finish(draining: impl Future<Output = Drained>, signals: &mut Signals, reports: &Reports) {
    tokio::select! {
        drained = draining => match drained.left {
            0 => tracing::info!("stopped"),
            left => tracing::warn!(left, "stopped, the time to drain was over and connections were cut off"),
        },
        () = signals.stop(reports) => tracing::warn!("stopped by a second signal, running requests were cut off"),
    }
}

/// What the system tells us.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    rotated: Signal,
    /// Whether a reload was asked for when there was no time for it.
    reload: bool,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            rotated: signal(SignalKind::user_defined1())?,
            reload: false,
        })
    }

    /// Returns when we are to stop. Logs are opened anew meanwhile; that a reload was asked for is remembered.
    async fn stop(&mut self, reports: &Reports) {
        loop {
            match self.next().await {
                Asked::Stop => return,
                Asked::Reload => self.reload = true,
                Asked::Reopen => reports.reopen(),
            }
        }
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.rotated.recv() => Asked::Reopen,
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
    /// Logs were moved away.
    Reopen,
}
