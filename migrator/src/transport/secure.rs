//! TLS over a blocking socket with time-outs: every call does what it can now and can be repeated after `WouldBlock`.

use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use partita_tls::Peer;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// Bytes of plain text that are encrypted ahead of the socket.
const AHEAD_BYTES: usize = 512 * 1024;

/// The TLS state of one connection.
#[derive(Debug)]
pub(super) struct Session(Box<Connection>);

impl Session {
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(AHEAD_BYTES));
        Self(Box::new(connection))
    }

    /// Whether the other side has not yet proved who it is.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Who the other side has proved to be.
    pub fn peer(&self) -> Option<Peer> {
        Peer::of(self.0.peer_certificates())
    }

    /// Whether bytes are left that the socket has not taken.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Goes on with the handshake until it is over.
    pub fn handshake(&mut self, socket: &mut BufReader<TcpStream>) -> io::Result<()> {
        while self.is_handshaking() {
            self.flush(socket.get_mut())?;
            if self.is_handshaking() && !self.receive(socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush(socket.get_mut())
    }

    /// Reads plain text; nothing at the end.
    pub fn read(&mut self, socket: &mut BufReader<TcpStream>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Without a farewell of TLS: our frames say by themselves whether one is whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            self.flush(socket.get_mut())?;
            if !self.receive(socket)? {
                return Ok(0);
            }
        }
    }

    /// Takes plain text as far as there is room, and gives the socket what it takes. Says how much was taken, and
    /// whether the socket took anything.
    pub fn write(&mut self, socket: &mut TcpStream, parts: &[IoSlice]) -> io::Result<(usize, bool)> {
        let taken = self.0.writer().write_vectored(parts)?;
        if !self.0.wants_write() {
            return Ok((taken, true));
        }
        match self.0.write_tls(socket) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(_) => Ok((taken, true)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => Ok((taken, false)),
            Err(error) => Err(error),
        }
    }

    /// Gives the socket everything that is left.
    pub fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            if self.0.write_tls(socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Tells the other side that nothing more comes.
    pub fn farewell(&mut self, socket: &mut TcpStream) {
        self.0.send_close_notify();
        let _ = self.flush(socket);
    }

    /// Takes what the socket has; false at its end. After an error the other side has been told why.
    fn receive(&mut self, socket: &mut BufReader<TcpStream>) -> io::Result<bool> {
        if self.0.read_tls(socket)? == 0 {
            return Ok(false);
        }
        if let Err(error) = self.0.process_new_packets() {
            let _ = self.flush(socket.get_mut());
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }
}
