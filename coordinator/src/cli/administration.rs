//! Commands of administrators and operators: policies, roles of hosts, images.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use control::{
    CalibrationView, HostAction, HostExplanation, HostName, HostOrder, HostView, PolicyView, Specification,
    encode,
};
use partita_http::Method;

use super::{CliError, Client, show};
use crate::client::{ClientError, call};
use crate::{history, policy, render};

/// `coordinator policy …`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Read a policy and say what is wrong with it; needs no coordinator.
    Check {
        /// The policy, TOML.
        file: PathBuf,
    },
    /// Make it hold, instead of the one before it.
    Set {
        /// The policy, TOML.
        file: PathBuf,
    },
    /// Print the one that holds.
    Show,
}

/// `coordinator policy check`.
pub(super) fn check(file: &Path, json: bool) -> Result<(), CliError> {
    let policy = policy::read_policy(file)?;
    let rules = policy.rules.len();
    show(json, &policy, |_| format!("{}: good ({rules} rules)\n", file.display()))
}

/// `coordinator plan --from-journal`.
pub(super) fn replay(journal: &Path, policy: Option<&Path>, json: bool) -> Result<(), CliError> {
    let policy = policy.map(policy::read_policy).transpose()?;
    if !journal.is_file() {
        return Err(CliError::NoJournal(journal.to_owned()));
    }
    let entries = history::read(journal)?;
    show(json, &history::replay(&entries, policy.as_ref()), |plans| render::replayed(plans))
}

/// `coordinator pack`.
pub(super) fn pack(manifest: &Path, out: &Path, json: bool) -> Result<(), CliError> {
    let specification = policy::read(manifest)?;
    let packed = policy::pack(&specification, out)?;
    show(json, &packed, |it| {
        format!("{}: {} files, {} bytes, {}\n", it.image.display(), it.files, it.bytes, it.digest)
    })
}

/// The application of a manifest or of an image.
pub(super) fn specification(path: &Path) -> Result<Specification, CliError> {
    if path.is_dir() { Ok(policy::open_image(path)?) } else { Ok(policy::read(path)?) }
}

impl Client {
    /// `coordinator policy set|show`.
    pub(super) async fn policy(&self, command: PolicyCommand) -> Result<(), CliError> {
        let view: PolicyView = match command {
            PolicyCommand::Check { file } => return check(&file, self.json),
            PolicyCommand::Set { file } => {
                let policy = policy::read_policy(&file)?;
                call(&self.target, Method::PUT, "/v1/policy", encode(&policy)).await?
            }
            PolicyCommand::Show => self.get("/v1/policy").await?,
        };
        self.show(&view, render::policy)
    }

    /// `coordinator cordon|uncordon|drain|activate|release`.
    pub(super) async fn order_host(&self, host: HostName, action: HostAction) -> Result<(), CliError> {
        let order = HostOrder { host, action };
        let view: Option<HostView> =
            call(&self.target, Method::POST, "/v1/hosts/order", encode(&order)).await?;
        self.show(&view, |view| render::hosts(view.as_slice()))
    }

    /// `coordinator explain NAME`: an application, or else a host.
    pub(super) async fn explain_named(&self, name: &str) -> Result<(), CliError> {
        let application = self.get(&format!("/v1/applications/{name}/explanation")).await;
        match application {
            Ok(view) => self.show(&view, render::application),
            Err(refused @ ClientError::Refused(_)) => {
                let host: Result<HostExplanation, _> =
                    self.get(&format!("/v1/hosts/{name}/explanation")).await;
                match host {
                    Ok(view) => self.show(&view, render::host),
                    Err(_) => Err(refused.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `coordinator events --calibration`.
    pub(super) async fn calibration(&self) -> Result<(), CliError> {
        let view: CalibrationView = self.get("/v1/calibration").await?;
        self.show(&view, render::calibration)
    }
}
