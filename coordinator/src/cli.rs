//! The command line: `serve`, and the client's commands.

mod administration;
mod error;
mod lbaf_problem;
mod monitor;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use control::{
    ApplicationId, ApplicationView, ClusterId, EventsAnswer, HostAction, HostName, HostView, MigrateOrder,
    MoveId, MoveView, OutputAnswer, PartitionView, PlanView, Rank, SeriesAnswer, Stream, Submitted,
    TcpAddress, TrafficView, encode, one_line,
};
use partita_http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::certificates;
use crate::client::{ClientError, Target, call};
use crate::cluster::Settings;
use crate::lbaf;
use crate::net::{Entrance, Place, openapi, serve};
use crate::policy;
use crate::render;
use crate::store::StoreAddress;
use crate::store::etcd::Options;
use crate::top::{self, Overview};
use error::CliError;

/// How long a waiting client bears a coordinator that is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// An unfinished line is shown when it is longer.
const LINE_BYTES_MAX: usize = 64 << 10;
const RETRY: Duration = Duration::from_millis(300);
/// Width and height of a frame of `top --once`.
const FRAME: (usize, usize) = (120, 50);
/// Events that `top` keeps.
const TOP_EVENTS: usize = 100;
const DEFAULT_ADDRESS: &str = "tcp:127.0.0.1:7600";

/// Places applications on hosts and moves their partitions while they run.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version)]
struct Arguments {
    /// Address of the coordinator, tls:HOST:PORT or tcp:HOST:PORT; of leader and standby, separated by commas.
    #[arg(long, global = true, env = "PARTITA_COORDINATOR", default_value = DEFAULT_ADDRESS, value_delimiter = ',')]
    coordinator: Vec<TcpAddress>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Allow plain TCP to other machines.
    #[arg(long, global = true)]
    insecure: bool,
    /// A file with the token that says who asks, in place of --tls-cert.
    #[arg(long, global = true, env = "PARTITA_TOKEN_FILE", value_name = "FILE", help_heading = "TLS")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: partita_tls::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the coordinator.
    Serve(Serve),
    /// Read, set or show the administrator's policy.
    #[command(subcommand)]
    Policy(administration::PolicyCommand),
    /// Make a self-contained image of an application.
    Pack {
        /// Its manifest.
        manifest: PathBuf,
        /// The image, a new directory.
        #[arg(long)]
        out: PathBuf,
    },
    /// Run an application.
    Submit {
        /// Its manifest, or the directory of its image.
        manifest: PathBuf,
        /// Pass its output through and end with its exit status.
        #[arg(long)]
        wait: bool,
    },
    /// List applications.
    Apps,
    /// List hosts.
    Hosts,
    /// List partitions.
    Partitions,
    /// Let a host keep what it has, but take nothing.
    Cordon {
        /// The host.
        host: HostName,
    },
    /// Undo that, or a drain.
    Uncordon {
        /// The host.
        host: HostName,
    },
    /// Let everything leave a host.
    Drain {
        /// The host.
        host: HostName,
    },
    /// Let a standby or empty host take partitions.
    Activate {
        /// The host.
        host: HostName,
    },
    /// Put an empty host in reserve, or end the lease of one.
    Release {
        /// The host.
        host: HostName,
    },
    /// Show what was measured over time, of a host or of an application's partitions.
    Series(monitor::Series),
    /// Show who sends how much to whom in an application.
    Traffic {
        /// The application.
        application: ApplicationId,
    },
    /// List what happened.
    Events {
        /// How well durations and blackouts of moves were predicted, instead.
        #[arg(long, conflicts_with = "follow")]
        calibration: bool,
        /// Go on listing.
        #[arg(long)]
        follow: bool,
    },
    /// Print an application's output.
    Logs {
        /// The application.
        application: ApplicationId,
        /// Only this rank's.
        #[arg(long)]
        rank: Option<Rank>,
    },
    /// Move a partition and wait until that is over.
    Migrate {
        /// The application.
        application: ApplicationId,
        /// The rank.
        rank: Rank,
        /// The destination.
        host: HostName,
    },
    /// Show what the planner would do now, or plan a problem from files.
    Plan(Plan),
    /// Show a move and the reasons for it, why an application runs where it does, or why a host is what it is.
    Explain {
        /// Number of the move, as in the events, or the application, or the host.
        what: Explained,
    },
    /// Watch hosts, moves and partitions on the terminal; q quits.
    Top {
        /// Look this often, in seconds.
        #[arg(long, default_value_t = 1.0)]
        period_s: f64,
        /// Print one frame and end; --json does so as well.
        #[arg(long)]
        once: bool,
    },
    /// Print the description of the API (OpenAPI, JSON). Needs no coordinator.
    Openapi,
    /// Make throw-away certificates: a CA, the head node, hosts, and people by role.
    Certificates(certificates::Certificates),
    /// Make a token for a user, with a role.
    Token(certificates::NewToken),
    /// End an application.
    Stop {
        /// The application.
        application: ApplicationId,
    },
}

/// What `explain` is about.
#[derive(Clone, Debug)]
enum Explained {
    Move(MoveId),
    Named(String),
}

impl std::str::FromStr for Explained {
    type Err = control::IdError;
    fn from_str(text: &str) -> Result<Self, control::IdError> {
        match text.parse() {
            Ok(id) => Ok(Explained::Move(id)),
            Err(_) => Ok(Explained::Named(text.parse::<ApplicationId>()?.as_str().to_owned())),
        }
    }
}

#[derive(Debug, Args)]
struct Plan {
    /// With loads, gates and candidates.
    #[arg(long)]
    explain: bool,
    /// Make the plans of a journal again (of a coordinator that is stopped, or a copy). Needs no coordinator.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["explain", "from_lbaf"])]
    from_journal: Option<PathBuf>,
    /// Under this policy instead of that of then.
    #[arg(long, value_name = "FILE", requires = "from_journal")]
    policy: Option<PathBuf>,
    /// Act on nothing; a plan that is only shown never does.
    #[arg(long)]
    dry_run: bool,
    /// Plan a problem of LBAF: a directory of files NAME.RANK.json or NAME.RANK.json.br. Needs no coordinator.
    #[arg(long, value_name = "DIR", conflicts_with = "explain")]
    from_lbaf: Option<PathBuf>,
    /// Which phase of it.
    #[arg(long, requires = "from_lbaf", default_value_t = 0)]
    phase: u64,
    /// What a second of load costs.
    #[arg(long, requires = "from_lbaf", default_value_t = 1.0)]
    alpha: f64,
    /// What a byte between two ranks costs, in seconds.
    #[arg(long, requires = "from_lbaf", default_value_t = 0.0)]
    beta: f64,
    /// Memory of every rank, in bytes.
    #[arg(long, requires = "from_lbaf", value_name = "BYTES")]
    memory_limit: Option<f64>,
    /// Write what was measured of this cluster as a problem of LBAF: hosts are its ranks, partitions its tasks.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from_lbaf", "explain"])]
    to_lbaf: Option<PathBuf>,
    /// Write the problem again, with the tasks where the plan has them.
    #[arg(long, requires = "from_lbaf", value_name = "DIR")]
    write_lbaf: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to listen, tls:HOST:PORT or tcp:HOST:PORT.
    #[arg(long, default_value = DEFAULT_ADDRESS)]
    listen: TcpAddress,
    /// File of the hashes of tokens, from `coordinator token`: who has one needs no certificate.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// File of the journal; made if it does not exist.
    #[arg(long, required_unless_present = "store", conflicts_with = "store")]
    state: Option<PathBuf>,
    /// Where the journal is: file:PATH, or etcd:URL[,URL] for several coordinators of which one leads.
    #[arg(long)]
    store: Option<StoreAddress>,
    /// Wait until no other coordinator leads, then lead; again after having lost the lease. With --store etcd:… only.
    #[arg(long, requires = "store")]
    standby: bool,
    /// A leader of which etcd does not hear for this long is replaced, in seconds.
    #[arg(long, requires = "store", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    lease_s: u64,
    /// What all keys in etcd begin with; one per cluster.
    #[arg(long, requires = "store", default_value = "partita", value_name = "NAME")]
    etcd_prefix: ClusterId,
    /// The administrator's policy, TOML; without, the one set last holds.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Plan when the busiest host is above the mean by this share.
    #[arg(long, default_value_t = planner::Settings::default().imbalance)]
    imbalance_threshold: f64,
    /// And has been for this long.
    #[arg(long, default_value_t = planner::Settings::default().sustain_s)]
    sustain_s: f64,
    /// A partition rests this long after a move, twice as long after the next, …
    #[arg(long, default_value_t = planner::Settings::default().cooldown_s)]
    cooldown_s: f64,
    /// A gain has to exceed the noise by this many standard errors.
    #[arg(long, default_value_t = planner::Settings::default().significance)]
    significance: f64,
    /// What a byte between two hosts costs, in seconds: the inverse of the measured speed of the network; 0 ignores traffic.
    #[arg(long, default_value_t = planner::Settings::default().beta_s_per_byte)]
    beta_s_per_byte: f64,
    /// What a message between two hosts costs beside its bytes, in seconds; 0 ignores that. Default: half the median round trip
    /// between partitions on two hosts, as measured.
    #[arg(long)]
    latency_s: Option<f64>,
    /// A move has to pay for itself twice within this time.
    #[arg(long, default_value_t = planner::Settings::default().horizon_s)]
    horizon_s: f64,
    /// How often to plan.
    #[arg(long, default_value_t = 1000)]
    period_ms: u64,
    /// A host is lost after this long without a report.
    #[arg(long, default_value_t = 10.0)]
    host_timeout_s: f64,
    /// Keep standby hosts in reserve whatever happens.
    #[arg(long)]
    no_activate: bool,
    /// Count time in which a partition is ready but gets no processor as load.
    #[arg(long)]
    count_steal: bool,
}

/// Runs one command.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("PARTITA_LOG").unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("coordinator: {}", one_line(&error));
            ExitCode::from(if error.is_wrong_use() { 2 } else { 1 })
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, CliError> {
    let protected = |address: &TcpAddress| {
        let fine = arguments.insecure || address.is_protected();
        if fine { Ok(()) } else { Err(CliError::Insecure(address.clone())) }
    };
    if let Command::Serve(options) = &arguments.command {
        protected(&options.listen)?;
        let policy = options.policy.as_deref().map(policy::read_policy).transpose()?;
        let entrance = Entrance::new(options.listen.clone(), &arguments.tls, options.tokens.as_deref())?;
        serve(&entrance, place(options, arguments.insecure)?, settings(options)?, policy)?;
        return Ok(0);
    }
    match &arguments.command {
        Command::Policy(administration::PolicyCommand::Check { file }) => {
            return administration::check(file, arguments.json).map(|()| 0);
        }
        Command::Pack { manifest, out } => {
            return administration::pack(manifest, out, arguments.json).map(|()| 0);
        }
        _ => {}
    }
    if let Command::Plan(options) = &arguments.command
        && let Some(directory) = &options.from_lbaf
    {
        return lbaf_problem::plan(directory, options, arguments.json);
    }
    if let Command::Plan(Plan { from_journal: Some(journal), policy, .. }) = &arguments.command {
        return administration::replay(journal, policy.as_deref(), arguments.json).map(|()| 0);
    }
    if let Command::Openapi = &arguments.command {
        print(std::io::stdout(), openapi().as_bytes())?;
        return Ok(0);
    }
    let made = match &arguments.command {
        Command::Certificates(options) => Some(certificates::make(options)?),
        Command::Token(options) => Some(certificates::make_token(options)?),
        _ => None,
    };
    if let Some(made) = made {
        print(std::io::stdout(), made.as_bytes())?;
        return Ok(0);
    }
    arguments.coordinator.iter().try_for_each(protected)?;
    let target = Target::new(arguments.coordinator, &arguments.tls, arguments.token_file.as_deref())?;
    let client = Client { target, json: arguments.json };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(client.run(arguments.command))
}

fn checked(name: &'static str, value: f64) -> Result<f64, CliError> {
    if value.is_finite() && (0.0..1e18).contains(&value) { Ok(value) } else { Err(CliError::Number(name)) }
}

fn show<T: Serialize>(json: bool, value: &T, text: impl Fn(&T) -> String) -> Result<(), CliError> {
    let text = if json {
        let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
        text.push('\n');
        text
    } else {
        text(value)
    };
    print(std::io::stdout(), text.as_bytes())
}

/// Where the journal is.
fn place(options: &Serve, insecure: bool) -> Result<Place, CliError> {
    let file =
        |path: &PathBuf| if options.standby { Err(CliError::Standby) } else { Ok(Place::File(path.clone())) };
    match (&options.store, &options.state) {
        (Some(store @ StoreAddress::Etcd(_)), _) if !insecure && !store.is_loopback() => {
            Err(CliError::InsecureStore)
        }
        (Some(StoreAddress::Etcd(endpoints)), _) => Ok(Place::Etcd(Options {
            endpoints: endpoints.clone(),
            prefix: options.etcd_prefix.to_string(),
            lease_s: options.lease_s,
            standby: options.standby,
            identity: options.listen.to_string(),
        })),
        (Some(StoreAddress::File(path)), _) => file(path),
        // clap sees to it that there is one.
        (None, path) => file(path.as_ref().ok_or(CliError::Standby)?),
    }
}

fn settings(options: &Serve) -> Result<Settings, CliError> {
    let planner = planner::Settings {
        imbalance: checked("imbalance-threshold", options.imbalance_threshold)?,
        sustain_s: checked("sustain-s", options.sustain_s)?,
        cooldown_s: checked("cooldown-s", options.cooldown_s)?,
        significance: checked("significance", options.significance)?,
        beta_s_per_byte: checked("beta-s-per-byte", options.beta_s_per_byte)?,
        horizon_s: checked("horizon-s", options.horizon_s)?,
        ..planner::Settings::default()
    };
    Ok(Settings {
        planner,
        period_ms: options.period_ms,
        host_timeout_ms: (checked("host-timeout-s", options.host_timeout_s)? * 1000.0) as u64,
        activate: !options.no_activate,
        count_steal: options.count_steal,
        latency_s: options.latency_s.map(|value| checked("latency-s", value)).transpose()?,
    })
}

struct Client {
    target: Target,
    json: bool,
}

impl Client {
    async fn run(&self, command: Command) -> Result<u8, CliError> {
        match command {
            // Handled before there is a client.
            Command::Serve(_)
            | Command::Pack { .. }
            | Command::Openapi
            | Command::Certificates(_)
            | Command::Token(_) => {}
            Command::Policy(command) => self.policy(command).await?,
            Command::Cordon { host } => self.order_host(host, HostAction::Cordon).await?,
            Command::Uncordon { host } => self.order_host(host, HostAction::Uncordon).await?,
            Command::Drain { host } => self.order_host(host, HostAction::Drain).await?,
            Command::Activate { host } => self.order_host(host, HostAction::Activate).await?,
            Command::Release { host } => self.order_host(host, HostAction::Release).await?,
            Command::Submit { manifest, wait } => return self.submit(&manifest, wait).await,
            Command::Apps => {
                let views: Vec<ApplicationView> = self.get("/v1/applications").await?;
                self.show(&views, |views| render::applications(views))?;
            }
            Command::Hosts => {
                let views: Vec<HostView> = self.get("/v1/hosts").await?;
                self.show(&views, |views| render::hosts(views))?;
            }
            Command::Partitions => {
                let views: Vec<PartitionView> = self.get("/v1/partitions").await?;
                self.show(&views, |views| render::partitions(views))?;
            }
            Command::Series(what) => {
                let answer: SeriesAnswer = self.get(&what.path()).await?;
                self.show(&answer, render::series)?;
            }
            Command::Traffic { application } => {
                let view: TrafficView = self.get(&format!("/v1/applications/{application}/traffic")).await?;
                self.show(&view, render::traffic)?;
            }
            Command::Events { calibration: true, .. } => self.calibration().await?,
            Command::Events { follow, .. } => self.events(follow).await?,
            Command::Logs { application, rank } => self.logs(&application, rank).await?,
            Command::Migrate { application, rank, host } => {
                return self.migrate(MigrateOrder { application, rank, to: host }).await;
            }
            Command::Top { period_s, once } => self.top(period_s, once).await?,
            Command::Plan(Plan { to_lbaf: Some(directory), .. }) => {
                let exported = lbaf::export::write(&self.measured().await?, &directory)?;
                self.show(&exported, render::exported)?;
            }
            Command::Plan(Plan { explain, .. }) => {
                let view: PlanView = self.get("/v1/plan").await?;
                self.show(&view, if explain { render::explained_plan } else { render::plan })?;
            }
            Command::Explain { what: Explained::Named(name) } => self.explain_named(&name).await?,
            Command::Explain { what: Explained::Move(id) } => {
                let view: MoveView = self.get(&format!("/v1/moves/{id}")).await?;
                self.show(&view, render::one_move)?;
            }
            Command::Stop { application } => {
                let answer: serde_json::Value = self.stop(&application).await?;
                self.show(&answer, |_| format!("{application} is being stopped\n"))?;
            }
        }
        Ok(0)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        call(&self.target, Method::GET, path, Vec::new()).await
    }

    async fn top(&self, period_s: f64, once: bool) -> Result<(), CliError> {
        let period = checked("period-s", period_s)?.clamp(0.1, 3600.0);
        if once || self.json {
            let overview = self.overview(&mut Overview::default()).await?;
            let lines = |it: &Overview| top::frame(it, FRAME.0, FRAME.1).join("\n") + "\n";
            return self.show(&overview, lines);
        }
        let mut last = Overview::default();
        let look = async || match self.overview(&mut last).await {
            Ok(overview) => overview,
            // It may come back; what was last seen stays on the screen.
            Err(error) => Overview { trouble: Some(one_line(&error)), ..last.clone() },
        };
        top::run(look, Duration::from_secs_f64(period)).await.map_err(CliError::Terminal)
    }

    /// What `top` shows; `last` has the events so far.
    async fn overview(&self, last: &mut Overview) -> Result<Overview, ClientError> {
        let mut events = std::mem::take(&mut last.events);
        loop {
            let after = events.last().map_or(0, |event| event.sequence);
            let answer: EventsAnswer = self.get(&format!("/v1/events?after={after}")).await?;
            let end = answer.events.is_empty();
            events.extend(answer.events);
            events.drain(..events.len().saturating_sub(TOP_EVENTS));
            if end {
                break;
            }
        }
        *last = Overview {
            hosts: self.get("/v1/hosts").await?,
            partitions: self.get("/v1/partitions").await?,
            applications: self.get("/v1/applications").await?,
            events,
            trouble: None,
        };
        Ok(last.clone())
    }

    /// What was measured of this cluster, for LBAF.
    async fn measured(&self) -> Result<lbaf::export::Measured, ClientError> {
        let hosts = self.get("/v1/hosts").await?;
        let partitions: Vec<PartitionView> = self.get("/v1/partitions").await?;
        let applications: std::collections::BTreeSet<&ApplicationId> =
            partitions.iter().map(|it| &it.application).collect();
        let mut traffic = Vec::new();
        for id in applications {
            match self.get::<TrafficView>(&format!("/v1/applications/{id}/traffic")).await {
                Ok(view) => traffic.push(view),
                // It has ended meanwhile.
                Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lbaf::export::Measured { hosts, partitions, traffic })
    }

    async fn stop(&self, application: &ApplicationId) -> Result<serde_json::Value, ClientError> {
        call(&self.target, Method::POST, &format!("/v1/applications/{application}/stop"), Vec::new()).await
    }

    fn show<T: Serialize>(&self, value: &T, text: impl Fn(&T) -> String) -> Result<(), CliError> {
        show(self.json, value, text)
    }

    async fn submit(&self, manifest: &Path, wait: bool) -> Result<u8, CliError> {
        let specification = administration::specification(manifest)?;
        let waiter = format!("w{}", std::process::id());
        let path =
            if wait { format!("/v1/applications?waiter={waiter}") } else { "/v1/applications".to_owned() };
        let submitted: Submitted = call(&self.target, Method::POST, &path, encode(&specification)).await?;
        if !wait {
            self.show(&submitted, |submitted| format!("{}\n", submitted.application))?;
            return Ok(0);
        }
        eprintln!("coordinator: submitted as {}", submitted.application);
        let following = self.follow(&submitted.application, &waiter);
        tokio::pin!(following);
        tokio::select! {
            status = &mut following => return status,
            // Like a program of one's own: Ctrl-C ends it, and what it still says is shown.
            _ = tokio::signal::ctrl_c() => { self.stop(&submitted.application).await?; }
        }
        following.await
    }

    /// Passes the output through, also over restarts of the coordinator, until the application has ended.
    async fn follow(&self, application: &ApplicationId, waiter: &str) -> Result<u8, CliError> {
        let mut shown = Shown::default();
        let (mut after, mut incarnation) = (0, None);
        let mut away = Duration::ZERO;
        loop {
            let wait_s = shown.patience_s();
            let path = format!(
                "/v1/applications/{application}/output?after={after}&wait_s={wait_s}&waiter={waiter}"
            );
            let answer: OutputAnswer = match self.get(&path).await {
                Ok(answer) => answer,
                Err(error) if error.is_passing() && away < PATIENCE => {
                    tokio::time::sleep(RETRY).await;
                    away += RETRY;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            away = Duration::ZERO;
            if *incarnation.get_or_insert(answer.incarnation) != answer.incarnation {
                (incarnation, after) = (Some(answer.incarnation), 0);
                continue;
            }
            shown.show(&answer, None)?;
            after = answer.next;
            if answer.complete {
                if let Some(reason) = &answer.reason {
                    eprintln!("coordinator: {application}: {reason}");
                }
                return Ok(answer.exit_status.unwrap_or(1));
            }
        }
    }

    async fn logs(&self, application: &ApplicationId, rank: Option<Rank>) -> Result<(), CliError> {
        let mut shown = Shown::default();
        let mut after = 0;
        loop {
            let path = format!("/v1/applications/{application}/output?after={after}");
            let answer: OutputAnswer = self.get(&path).await?;
            if after == 0 && answer.truncated {
                eprintln!("coordinator: older output of {application} is not kept any more");
            }
            if self.json {
                self.show(&answer, |_| String::new())?;
            } else {
                shown.show(&answer, rank)?;
            }
            if answer.entries.is_empty() {
                return Ok(());
            }
            after = answer.next;
        }
    }

    async fn events(&self, follow: bool) -> Result<(), CliError> {
        let mut after = 0;
        let mut all = Vec::new();
        loop {
            let wait_s = if follow { 10 } else { 0 };
            let answer: EventsAnswer = self.get(&format!("/v1/events?after={after}&wait_s={wait_s}")).await?;
            after = answer.next;
            let end = answer.events.is_empty() && !follow;
            if self.json && !follow {
                all.extend(answer.events);
            } else {
                for event in &answer.events {
                    // One object a line, so that a reader can go along.
                    let line = if self.json {
                        format!("{}\n", serde_json::to_string(event).unwrap_or_default())
                    } else {
                        render::event(event)
                    };
                    print(std::io::stdout(), line.as_bytes())?;
                }
            }
            if end {
                return if self.json { self.show(&all, |_| String::new()) } else { Ok(()) };
            }
        }
    }

    async fn migrate(&self, order: MigrateOrder) -> Result<u8, CliError> {
        let mut view: MoveView = call(&self.target, Method::POST, "/v1/moves", encode(&order)).await?;
        while view.state != "done" && view.state != "failed" {
            view = self.get(&format!("/v1/moves/{}?wait_s=10", view.id)).await?;
        }
        self.show(&view, render::one_move)?;
        Ok(u8::from(view.state != "done"))
    }
}

/// One stream, as far as it was shown.
#[derive(Debug, Default)]
struct ShownStream {
    /// Position of the next byte.
    next: u64,
    /// A line whose end has not come yet: shown whole, so that ranks do not write into each other's lines.
    line: Vec<u8>,
}

/// What has been shown of every stream, so that nothing is shown twice after a restart of the coordinator.
#[derive(Debug, Default)]
struct Shown {
    streams: BTreeMap<(Rank, Stream, u64), ShownStream>,
}

impl Shown {
    fn show(&mut self, answer: &OutputAnswer, only: Option<Rank>) -> Result<(), CliError> {
        for entry in answer.entries.iter().filter(|entry| only.is_none_or(|rank| entry.rank == rank)) {
            let epoch = if entry.stream == Stream::Vmm { entry.epoch } else { 0 };
            let shown = self.streams.entry((entry.rank, entry.stream, epoch)).or_default();
            let known = usize::try_from(shown.next.saturating_sub(entry.offset)).unwrap_or(usize::MAX);
            shown.next = shown.next.max(entry.offset.saturating_add(entry.data.0.len() as u64));
            shown.line.extend_from_slice(entry.data.0.get(known..).unwrap_or_default());
            let whole = shown.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let end = if shown.line.len() > LINE_BYTES_MAX { shown.line.len() } else { whole };
            print_to(entry.stream, &shown.line.drain(..end).collect::<Vec<_>>())?;
        }
        // A prompt has no end of line; it is shown when nothing else comes.
        if answer.complete || answer.entries.is_empty() {
            for ((_, stream, _), shown) in &mut self.streams {
                print_to(*stream, &std::mem::take(&mut shown.line))?;
            }
        }
        Ok(())
    }

    /// Seconds to wait for more output before unfinished lines are shown.
    fn patience_s(&self) -> u32 {
        if self.streams.values().any(|shown| !shown.line.is_empty()) { 1 } else { 10 }
    }
}

fn print_to(stream: Stream, bytes: &[u8]) -> Result<(), CliError> {
    match stream {
        _ if bytes.is_empty() => Ok(()),
        Stream::Stdout => print(std::io::stdout(), bytes),
        Stream::Stderr | Stream::Vmm => print(std::io::stderr(), bytes),
    }
}

fn print(mut to: impl Write, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(CliError::Output)
}
