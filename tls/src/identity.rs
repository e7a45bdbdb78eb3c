//! A process's certificate, key and CA, read from files and checked, and the configurations of rustls made from them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::verify::{Clients, Servers, Wanted};

/// No certificate file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The options of a command line that say who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[group(id = "tls")]
pub struct Options {
    /// For tls: addresses: the certificate of this process (PEM, followed by those between it and the CA)
    #[arg(
        long = "tls-cert",
        env = "PARTITA_TLS_CERT",
        value_name = "FILE",
        requires = "key",
        help_heading = "TLS"
    )]
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(
        long = "tls-key",
        env = "PARTITA_TLS_KEY",
        value_name = "FILE",
        requires = "certificate",
        help_heading = "TLS"
    )]
    pub key: Option<PathBuf>,
    /// The CA that has signed the certificates of both sides (PEM)
    #[arg(long = "tls-ca", env = "PARTITA_TLS_CA", value_name = "FILE", help_heading = "TLS")]
    pub ca: Option<PathBuf>,
}

/// What is wrong with the files.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// No options, but an address that needs them.
    #[error("{0} needs --tls-cert, --tls-key and --tls-ca (`coordinator certificates` makes such files)")]
    Missing(String),
    /// A certificate without the CA that the other side is checked by.
    #[error("--tls-cert without --tls-ca: name the CA of the other side as well")]
    NoCa,
    /// This side has to show a certificate.
    #[error("--tls-ca without --tls-cert and --tls-key: this side has to show a certificate as well")]
    NoCertificate,
    /// The file cannot be read.
    #[error("--{option} {}: cannot read it", path.display())]
    Read {
        /// Which option.
        option: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file has not the PEM that is wanted.
    #[error("--{option} {}: no {wanted} in it (PEM)", path.display())]
    Pem {
        /// Which option.
        option: &'static str,
        /// Its file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The file has a certificate that is none.
    #[error("--tls-ca {}: a certificate in it cannot be used", path.display())]
    Ca {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No verifier can be made of the CA.
    #[error("--tls-ca: it cannot be used")]
    Verifier(#[from] VerifierBuilderError),
    /// Certificate and key cannot be used together.
    #[error("--tls-cert and --tls-key: they do not belong together or cannot be used")]
    Pair(#[source] rustls::Error),
    /// The library has no TLS 1.3 with our algorithms.
    #[error("TLS 1.3 is not available")]
    Version(#[source] rustls::Error),
}

impl Options {
    /// Reads and checks the files; nothing if none is named.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or does not fit the others.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        match (&self.ca, &self.certificate, &self.key) {
            (None, None, None) => Ok(None),
            (None, ..) => Err(IdentityError::NoCa),
            (Some(ca), Some(certificate), Some(key)) => {
                Identity::load(ca, Some((certificate, key))).map(Some)
            }
            (Some(ca), ..) => Identity::load(ca, None).map(Some),
        }
    }

    /// As [`identity`](Self::identity), for an `address` that needs one.
    ///
    /// # Errors
    /// As there, and nothing is named.
    pub fn identity_for(&self, address: impl ToString) -> Result<Identity, IdentityError> {
        self.identity()?.ok_or_else(|| IdentityError::Missing(address.to_string()))
    }

    /// Whether anything is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The files as variables of the environment, for a process that is to be the same.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all = [
            ("PARTITA_TLS_CERT", &self.certificate),
            ("PARTITA_TLS_KEY", &self.key),
            ("PARTITA_TLS_CA", &self.ca),
        ];
        all.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }
}

/// Certificate and key of this process, and the CA of those it talks to.
#[derive(Debug)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        let own = self.own.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        Self { provider: self.provider.clone(), roots: self.roots.clone(), own }
    }
}

impl Identity {
    /// Reads the CA, and certificate and key if this side shows any.
    ///
    /// # Errors
    /// A file cannot be read or does not fit the others.
    pub fn load(ca: &Path, own: Option<(&PathBuf, &PathBuf)>) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls-ca", ca)? {
            let unusable = |source| IdentityError::Ca { path: ca.to_owned(), source };
            roots.add(certificate).map_err(unusable)?;
        }
        let own = match own {
            Some((certificate, key)) => Some((certificates("tls-cert", certificate)?, private_key(key)?)),
            None => None,
        };
        let identity = Self { provider: Arc::new(default_provider()), roots: Arc::new(roots), own };
        // Whatever does not fit together is said now and not when somebody connects.
        identity.client(Wanted::Anyone)?;
        if identity.own.is_some() {
            identity.server(Wanted::Anyone)?;
        }
        Ok(identity)
    }

    /// The configuration of a side that connects, to servers that are `wanted`.
    ///
    /// # Errors
    /// Certificate, key and CA do not fit together.
    pub fn client(&self, wanted: Wanted) -> Result<Arc<ClientConfig>, IdentityError> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build()?;
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(IdentityError::Version)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Servers { inner, wanted }));
        let mut config = match &self.own {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(IdentityError::Pair)?
            }
            None => builder.with_no_client_auth(),
        };
        // Every connection proves anew who both sides are.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The configuration of a side that listens, for clients that are `wanted`.
    ///
    /// # Errors
    /// Certificate, key and CA do not fit together, or there is no certificate.
    pub fn server(&self, wanted: Wanted) -> Result<Arc<ServerConfig>, IdentityError> {
        let (chain, key) = self.own.as_ref().ok_or(IdentityError::NoCertificate)?;
        let inner =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(IdentityError::Version)?
            .with_client_cert_verifier(Arc::new(Clients { inner, wanted }))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(IdentityError::Pair)?;
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |source| IdentityError::Read { option, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let wrong = |source| IdentityError::Pem { option, path: path.to_owned(), wanted: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(option, path)?).collect();
    match found.map_err(wrong)? {
        none if none.is_empty() => Err(wrong(pem::Error::NoItemsFound)),
        found => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let wrong = |source| IdentityError::Pem {
        option: "tls-key",
        path: path.to_owned(),
        wanted: "private key",
        source,
    };
    PrivateKeyDer::from_pem_slice(&read("tls-key", path)?).map_err(wrong)
}
