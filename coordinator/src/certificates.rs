//! `coordinator certificates` and `coordinator token`: throw-away certificates of a cluster, and tokens for its users.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use partita_tls::Role;
use partita_tls::authority::{Authority, AuthorityError, Subject};
use thiserror::Error;

use crate::access;

/// Every certificate is also good on the machine itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const TOKEN_BYTES: usize = 32;

/// Options of `coordinator certificates`.
#[derive(Debug, Args)]
pub struct Certificates {
    /// Directory for the files; made if it does not exist. What is there is never overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A host: the agent's --name, then other names and addresses at which it is reached; may be repeated.
    #[arg(long = "name", value_name = "HOST[,ADDRESS…]")]
    hosts: Vec<String>,
    /// Names and addresses of the head node.
    #[arg(long, value_name = "HOST[,ADDRESS…]", value_delimiter = ',')]
    head: Vec<String>,
    /// How long they are valid.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

/// Options of `coordinator token`.
#[derive(Debug, Args)]
pub struct NewToken {
    /// What its holder may do: viewer, operator, admin or host.
    #[arg(long)]
    role: Role,
    /// Whose it is.
    #[arg(long, value_parser = one_word)]
    name: String,
    /// The file of `serve --tokens`; a line is added to it. The token itself is printed, once.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

fn one_word(text: &str) -> Result<String, &'static str> {
    let fits =
        !text.is_empty() && text.len() <= 64 && !text.contains(|c: char| c.is_whitespace() || c == '#');
    if fits { Ok(text.to_owned()) } else { Err("write one word of at most 64 bytes") }
}

/// Files that could not be made.
#[derive(Debug, Error)]
pub enum CertificatesError {
    /// A certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file or directory.
    #[error("{}: it cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No random numbers.
    #[error("/dev/urandom cannot be read")]
    Random(#[source] std::io::Error),
}

/// Makes a CA and certificates for head node, hosts and people. Gives what there is now, for people.
pub fn make(options: &Certificates) -> Result<String, CertificatesError> {
    let out = &options.out;
    let failed = |source| CertificatesError::Write { path: out.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(failed)?;
    let days = i64::from(options.days);
    let authority = Authority::new("Partita throw-away CA", days)?;
    authority.write(out)?;
    let mut lines = format!("{}: the CA, valid for {days} days\n", out.join("ca.pem").display());
    let mut enrol = |file: &str, hosts: Vec<String>, role: Role| -> Result<(), CertificatesError> {
        let subject = Subject { name: file.to_owned(), hosts, role: Some(role), days };
        authority.enrol(out, file, &subject)?;
        lines +=
            &format!("{}: role {role}, and its key beside it\n", out.join(format!("{file}.pem")).display());
        Ok(())
    };
    let and_loopback =
        |names: &[String]| names.iter().map(String::as_str).chain(LOOPBACK).map(str::to_owned).collect();
    enrol("coordinator", and_loopback(&options.head), Role::Coordinator)?;
    for host in &options.hosts {
        let names: Vec<String> = host.split(',').map(str::to_owned).collect();
        enrol(&format!("host-{}", names[0]), and_loopback(&names), Role::Host)?;
    }
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        enrol(role.name(), Vec::new(), role)?;
    }
    Ok(lines)
}

/// Makes a token; its hash goes into the file.
pub fn make_token(options: &NewToken) -> Result<String, CertificatesError> {
    let mut bytes = [0; TOKEN_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(CertificatesError::Random)?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = access::line(options.role, &options.name, &access::hash(&token));
    append(&options.tokens, &line)
        .map_err(|source| CertificatesError::Write { path: options.tokens.clone(), source })?;
    Ok(format!("{token}\n"))
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(line.as_bytes())
}
