//! Encoding and decoding of whole messages, with their limits.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::MESSAGE_BYTES_MAX;

/// A message that was refused.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Too long to be looked at.
    #[error("the message has {bytes} bytes, more than the {MESSAGE_BYTES_MAX} that are taken")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Not the JSON that was expected here.
    #[error("the message is not what is expected here: {0}")]
    Json(#[from] serde_json::Error),
    /// Well-formed, but says something impossible.
    #[error("the message is refused: {0}")]
    Refused(&'static str),
}

/// A value that is checked after it was decoded.
pub trait Message: DeserializeOwned {
    /// Refuses what no honest sender says: too many items, numbers out of range.
    fn validate(&self) -> Result<(), MessageError>;
}

/// Reads one message; unknown fields, too many bytes and impossible values are errors.
pub fn decode<T: Message>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong { bytes: bytes.len() });
    }
    let message: T = serde_json::from_slice(bytes)?;
    message.validate()?;
    Ok(message)
}

/// The message as JSON text. Our own types always have one; an empty text stands for a failure of that assumption.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let encoded = serde_json::to_vec(message);
    debug_assert!(encoded.is_ok(), "our own message has no JSON form");
    encoded.unwrap_or_default()
}

pub(crate) fn require(holds: bool, otherwise: &'static str) -> Result<(), MessageError> {
    if holds { Ok(()) } else { Err(MessageError::Refused(otherwise)) }
}
