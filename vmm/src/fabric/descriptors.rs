//! Frame headers with open files attached, over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use tokio::io::Interest;

use super::outgoing::{SessionError, receive_exact, send_all};
use super::socket::Stream;
use super::wire::{HEADER_BYTES, Header};

/// Most files that come with one header.
const FILES_MAX: usize = 2;

/// Sends a header and files.
pub(super) async fn send_header(
    stream: &Stream,
    header: &Header,
    files: &[&OwnedFd],
) -> Result<(), SessionError> {
    let bytes = header.encode();
    let raw: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let sent = stream
        .perform(Interest::WRITABLE, |socket| {
            let vectors = [IoSlice::new(&bytes)];
            let control = [ControlMessage::ScmRights(&raw)];
            Ok(sendmsg::<()>(socket, &vectors, &control, MsgFlags::MSG_NOSIGNAL, None)?)
        })
        .await?;
    // The files are with the first byte.
    Ok(send_all(stream, &bytes[sent..]).await?)
}

/// Receives a header and the files that came with it.
pub(super) async fn receive_header(stream: &Stream) -> Result<(Header, Vec<OwnedFd>), SessionError> {
    let mut bytes = [0; HEADER_BYTES];
    let mut files = Vec::new();
    let got =
        stream.perform(Interest::READABLE, |socket| receive_once(socket, &mut bytes, &mut files)).await?;
    if got == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    receive_exact(stream, &mut bytes[got..]).await?;
    Ok((Header::decode(&bytes)?, files))
}

fn receive_once(socket: RawFd, bytes: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut vectors = [IoSliceMut::new(bytes)];
    let mut control = nix::cmsg_space!([RawFd; FILES_MAX]);
    let message = recvmsg::<UnixAddr>(socket, &mut vectors, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            // SAFETY: the kernel has just given us these descriptors, and nobody else knows them.
            files.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
}
