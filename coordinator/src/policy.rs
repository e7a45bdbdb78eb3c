//! What was asked: an application's manifest and the administrator's policy, read from TOML; every error names file, line and key.
//!
//! ```text
//! app.toml    -> manifest      -> control::Specification ---> placement, rules
//! policy.toml -> administrator -> control::Policy --> rules (what the planner takes), thresholds, pool
//! directory   -> image (content-addressed)           -> control::Specification with digests
//! ```

mod administrator;
mod image;
mod manifest;
mod rules;

use std::path::{Path, PathBuf};

use control::{PolicyValueError, SpecificationError};
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::Spanned;

pub use administrator::read_policy;
pub use image::{ImageError, Packed, open as open_image, pack};
pub use manifest::read;
pub use rules::{Member, closed, host_rules, manifest_rules, planner_settings, policy_rules, quota, reserve};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// A manifest or policy that cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("{}: it cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too long to be one.
    #[error("{}: it is longer than {FILE_BYTES_MAX} bytes; is it a manifest or a policy?", .0.display())]
    TooLong(PathBuf),
    /// It is not TOML, or has a key that is not known or of the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there, with the key.
        message: String,
    },
    /// A key has an impossible value.
    #[error("{}:{line}: `{key}`: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// The manifest is impossible as a whole.
    #[error("{}: {source}", path.display())]
    Specification {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SpecificationError,
    },
    /// The policy is impossible as a whole.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyValueError,
    },
}

/// A text with the name of its file, for errors.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, PolicyError> {
        toml::from_str(self.text).map_err(|error| PolicyError::Toml {
            path: self.path.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })
    }

    fn key(&self, position: usize, key: &str, message: &dyn std::fmt::Display) -> PolicyError {
        PolicyError::Key {
            path: self.path.to_owned(),
            line: self.line(position),
            key: key.to_owned(),
            message: message.to_string(),
        }
    }

    fn line(&self, position: usize) -> usize {
        self.text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Text that becomes something else.
    fn value<T>(&self, key: &str, text: &Spanned<String>) -> Result<T, PolicyError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        text.get_ref().parse().map_err(|error: T::Err| self.key(text.span().start, key, &error))
    }

    fn values<T>(&self, key: &str, texts: &[Spanned<String>]) -> Result<Vec<T>, PolicyError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        texts.iter().map(|text| self.value(key, text)).collect()
    }

    /// A size such as 16M, in bytes.
    fn size(&self, key: &str, text: &Spanned<String>) -> Result<u64, PolicyError> {
        control::parse_size(text.get_ref()).map_err(|error| self.key(text.span().start, key, &error))
    }
}

fn read_text(path: &Path) -> Result<String, PolicyError> {
    let error = |source| PolicyError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(error)?.len() > FILE_BYTES_MAX {
        return Err(PolicyError::TooLong(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(error)
}
