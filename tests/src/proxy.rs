//! A TCP proxy between source and destination of a migration that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Result;

#[derive(Debug, Default)]
struct Shared {
    cut: bool,
    sockets: Vec<TcpStream>,
}

/// Passes connections through until it is cut or dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// In front of `to`, which is `tcp:HOST:PORT`.
    pub fn start(to: &str) -> Result<Self> {
        let to: SocketAddr = to.strip_prefix("tcp:").ok_or("not a TCP address")?.parse()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = shared.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if state.lock().unwrap_or_else(PoisonError::into_inner).cut {
                    return;
                }
                let Ok(far) = TcpStream::connect(to) else { continue };
                if join(&state, near, far).is_err() {
                    return;
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens, `tcp:HOST:PORT`.
    pub fn address(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// Cuts all connections and takes no new ones.
    pub fn cut(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.cut = true;
        for socket in shared.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(shared);
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

fn join(state: &Mutex<Shared>, near: TcpStream, far: TcpStream) -> Result {
    for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?)] {
        std::thread::spawn(move || {
            let mut buffer = [0; 64 << 10];
            while let Ok(bytes) = from.read(&mut buffer) {
                if bytes == 0 || to.write_all(&buffer[..bytes]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    let mut shared = state.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.cut {
        // It was cut while this connection was being made.
        let _ = near.shutdown(Shutdown::Both);
        let _ = far.shutdown(Shutdown::Both);
    } else {
        shared.sockets.extend([near, far]);
    }
    Ok(())
}
