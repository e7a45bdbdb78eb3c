//! What went wrong in TLS, in words that say what to do.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::peer::URI_PREFIX;

const DAY_S: u64 = 24 * 3600;

/// One line for people about an error of this side or an alert of the other.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::NoCertificatesPresented => {
            "the other side shows no certificate: give it --tls-cert and --tls-key".into()
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "the other side does not speak TLS: write tls: in the address on both sides, or on neither".into()
        }
        Error::PeerIncompatible(_) => "the other side does not speak TLS 1.3".into(),
        Error::DecryptError => "what arrived was changed on the way".into(),
        other => format!("TLS failed: {other}"),
    }
}

/// The same for an error of a socket that may have one of TLS in it.
pub fn explain_io(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(explain)
}

/// The same for an error that may have one of TLS among its causes.
pub fn explain_cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = match error.downcast_ref::<io::Error>() {
            Some(error) => explain_io(error),
            None => error.downcast_ref::<Error>().map(explain),
        };
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the certificate of the other side has expired: renew it".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY_S;
            format!("the certificate of the other side expired {days} days ago: renew it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate of the other side is not valid yet: compare the clocks".into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate of the other side is not signed by the CA of --tls-ca".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names =
                presented.iter().map(|name| readable(name)).filter(|name| !name.starts_with(URI_PREFIX));
            let names: Vec<String> = names.take(8).collect();
            format!(
                "the certificate of the other side is for {}, not for {}: make one with that name",
                if names.is_empty() { "no host".into() } else { names.join(", ") },
                expected.to_str()
            )
        }
        CertificateError::NotValidForName => {
            "the certificate of the other side is for another host: make one with its name".into()
        }
        CertificateError::ApplicationVerificationFailure => {
            "the certificate of the other side states roles, but not the one that is wanted here".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate of the other side is not made for this side of a connection (extended key usage)"
                .into()
        }
        other => format!("the certificate of the other side is refused: {other}"),
    }
}

/// `DnsName("host")` as rustls shows names, without the frame.
fn readable(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).chars().take(100).collect()
}

fn alerted(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the other side wants a certificate: give --tls-cert and --tls-key".into()
        }
        AlertDescription::CertificateExpired => {
            "the other side says that our certificate (--tls-cert) has expired, or is not valid yet".into()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the other side does not know the CA of our certificate (--tls-cert)".into()
        }
        AlertDescription::AccessDenied => {
            "the other side says that our certificate (--tls-cert) has not the role that is wanted there"
                .into()
        }
        AlertDescription::UnsupportedCertificate => {
            "the other side says that our certificate (--tls-cert) is not made for this side of a connection"
                .into()
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "the other side refuses our certificate (--tls-cert)".into()
        }
        AlertDescription::ProtocolVersion => "the other side does not speak TLS 1.3".into(),
        other => format!("the other side ended TLS: {other:?}"),
    }
}
