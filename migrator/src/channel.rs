//! Frames over a connection: reads only the kinds that are allowed at that point, checks lengths before bodies.

use std::net::IpAddr;
use std::time::Duration;

use partita_tls::Peer;
use thiserror::Error;

use crate::transport::{Connection, Stop, Timeouts, TransportError};
use crate::wire::{Frame, HEADER_BYTES, HELLO_BYTES, Header, Hello, Kind, WireError};

/// Why a frame could not be sent or received.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The bytes are wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl ChannelError {
    /// Whether the connection is gone, with nothing wrong in what came over it: another one may carry on.
    pub fn is_break(&self) -> bool {
        let Self::Transport(error) = self else { return false };
        match error {
            TransportError::Closed | TransportError::Silent { .. } | TransportError::Io(_) => true,
            TransportError::Rdma(error) => error.is_break(),
            _ => false,
        }
    }
}

/// What a receiver waits for.
#[derive(Clone, Copy)]
pub struct Expect<'a> {
    /// The kinds allowed here.
    pub kinds: &'a [Kind],
    /// Where "here" is, for the error.
    pub phase: &'static str,
    /// How long the header may take.
    pub silence: Duration,
    /// Ends the wait.
    pub stop: Stop<'a>,
}

/// A connection that carries frames.
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    timeouts: Timeouts,
    body: Vec<u8>,
}

impl Channel {
    /// Frames over `connection`.
    pub fn new(connection: Connection, timeouts: Timeouts) -> Self {
        Self { connection, timeouts, body: Vec::new() }
    }

    /// Who the other side has proved to be; nobody on a plain connection.
    pub fn peer(&self) -> Option<Peer> {
        self.connection.peer()
    }

    /// The address of this side, for RDMA beside this connection.
    ///
    /// # Errors
    /// See [`Connection::rdma_address`].
    pub fn rdma_address(&self, insecure: bool) -> Result<IpAddr, TransportError> {
        self.connection.rdma_address(insecure)
    }

    /// Sends the first bytes of a connection.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send_hello(&mut self, hello: &Hello, stop: Stop) -> Result<(), ChannelError> {
        Ok(self.connection.write_all(&hello.encode(), &[], self.timeouts.silence, stop)?)
    }

    /// Receives the first bytes of a connection.
    ///
    /// # Errors
    /// The connection failed or does not begin like ours.
    pub fn receive_hello(&mut self, stop: Stop) -> Result<Hello, ChannelError> {
        let mut bytes = [0; HELLO_BYTES];
        self.connection.read_exact(&mut bytes, self.timeouts.hello, stop)?;
        Ok(Hello::decode(&bytes)?)
    }

    /// Sends one frame and gives back its bytes on the wire.
    ///
    /// # Errors
    /// Something in the frame is above its limit, or the connection failed.
    pub fn send(&mut self, frame: &Frame, stop: Stop) -> Result<u64, ChannelError> {
        let bytes = frame.encode()?;
        self.connection.write_all(&bytes, &[], self.timeouts.silence, stop)?;
        Ok(bytes.len() as u64)
    }

    /// Sends frames that are encoded already, in two parts.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send_encoded(&mut self, first: &[u8], second: &[u8], stop: Stop) -> Result<(), ChannelError> {
        Ok(self.connection.write_all(first, second, self.timeouts.silence, stop)?)
    }

    /// Receives a frame's body, its checksum verified. A kind that is not allowed is refused before its body is read.
    ///
    /// # Errors
    /// The connection failed, or what arrived is wrong or not allowed here.
    pub fn receive_raw(&mut self, expect: Expect) -> Result<(Kind, &[u8]), ChannelError> {
        let mut header = [0; HEADER_BYTES];
        self.connection.read_exact(&mut header, expect.silence, expect.stop)?;
        let header = Header::decode(&header)?;
        if !expect.kinds.contains(&header.kind) {
            return Err(WireError::Unexpected { kind: header.kind, wanted: expect.phase }.into());
        }
        self.body.resize(header.length as usize, 0);
        self.connection.read_exact(&mut self.body, self.timeouts.frame, expect.stop)?;
        header.verify(&self.body)?;
        Ok((header.kind, &self.body))
    }

    /// Receives a frame other than DATA and ZERO.
    ///
    /// # Errors
    /// As [`receive_raw`](Self::receive_raw).
    pub fn receive(&mut self, expect: Expect) -> Result<Frame, ChannelError> {
        let (kind, body) = self.receive_raw(expect)?;
        Ok(Frame::decode(kind, body)?)
    }

    /// Sends a last frame as well as that goes, and closes so that it arrives.
    pub fn close_with(mut self, frame: &Frame) {
        let limit = self.timeouts.silence.min(Duration::from_millis(500));
        if let Ok(bytes) = frame.encode()
            && self.connection.write_all(&bytes, &[], limit, &|| false).is_ok()
        {
            self.connection.linger();
        }
    }
}
