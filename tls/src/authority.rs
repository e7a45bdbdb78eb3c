//! A throw-away CA: makes the certificates of a cluster, for `coordinator certificates` and for tests.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::identity::Options;
use crate::peer::Role;

/// Clocks of hosts may differ by this much.
const CLOCKS: Duration = Duration::hours(1);

/// Why a certificate could not be made or written.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot be a name in a certificate: write a DNS name or an IP address")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The library refuses.
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// The file cannot be written; an existing one never is.
    #[error("{}: cannot write it; name a new directory", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Name in the certificate, for people.
    pub name: String,
    /// DNS names and IP addresses at which it is reached.
    pub hosts: Vec<String>,
    /// The role that it states, if any.
    pub role: Option<Role>,
    /// Valid until so many days from now; a negative number makes one that has expired.
    pub days: i64,
}

/// A CA whose key is in this process only, until it is written.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A CA valid for `days` from now.
    ///
    /// # Errors
    /// The library refuses.
    pub fn new(name: &str, days: i64) -> Result<Self, AuthorityError> {
        let mut parameters = parameters(name, days);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)? })
    }

    /// A certificate for `subject`. Hosts and the coordinator can be both sides of a connection, people only connect.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn issue(&self, subject: &Subject) -> Result<Issued, AuthorityError> {
        let mut parameters = parameters(&subject.name, subject.days);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match subject.role {
            Some(Role::Viewer | Role::Operator | Role::Admin) => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        for host in &subject.hosts {
            let unusable = |source| AuthorityError::Name { name: host.clone(), source };
            parameters.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(host.as_str()).map_err(unusable)?),
            });
        }
        if let Some(role) = subject.role {
            parameters.subject_alt_names.push(SanType::URI(Ia5String::try_from(role.uri())?));
        }
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// Writes `ca.pem` and `ca.key` into a directory.
    ///
    /// # Errors
    /// The files exist, or cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), AuthorityError> {
        self.write_certificate(directory)?;
        write(&directory.join("ca.key"), &self.issuer.key().serialize_pem(), 0o600)
    }

    /// Writes `ca.pem` only: nobody can sign with it later.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write_certificate(&self, directory: &Path) -> Result<(), AuthorityError> {
        write(&directory.join("ca.pem"), &self.issuer.pem(), 0o644)
    }

    /// Issues a certificate for `subject` and writes it as `FILE.pem` and `FILE.key`; gives the options that name them.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and the files exist or cannot be written.
    pub fn enrol(&self, directory: &Path, file: &str, subject: &Subject) -> Result<Options, AuthorityError> {
        let issued = self.issue(subject)?;
        let certificate = directory.join(format!("{file}.pem"));
        let key = directory.join(format!("{file}.key"));
        write(&certificate, &issued.certificate, 0o644)?;
        write(&key, &issued.key, 0o600)?;
        Ok(Options { certificate: Some(certificate), key: Some(key), ca: Some(directory.join("ca.pem")) })
    }
}

fn parameters(name: &str, days: i64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    let end = now + Duration::days(days);
    parameters.not_before = now.min(end) - CLOCKS;
    parameters.not_after = end;
    parameters
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::Write { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.open(path).map_err(failed)?.write_all(text.as_bytes()).map_err(failed)
}
