//! A TCP proxy between source and destination that cuts every connection at a chosen frame or byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use migrator::transport::Address;
use migrator::wire::{HEADER_BYTES, HELLO_BYTES, Kind};

/// Where to cut.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// At the `nth` (from 0) frame of `kind` over all connections; with `deliver`, just behind it.
    Frame { kind: Kind, nth: usize, deliver: bool },
    /// After so many bytes towards the destination, over all connections.
    Bytes(usize),
    /// Flips a bit in the last byte of the `nth` frame of `kind`, and cuts nothing.
    Damage { kind: Kind, nth: usize },
    /// From the `nth` frame of `kind` on nothing passes, but everything stays connected.
    Hang { kind: Kind, nth: usize },
}

struct Shared {
    cut: Cut,
    frames: AtomicUsize,
    bytes: AtomicUsize,
    hung: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

pub struct Proxy {
    address: Address,
}

impl Proxy {
    pub fn start(to: &Address, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let to = to.to_string().trim_start_matches("tcp:").to_owned();
        let shared = Arc::new(Shared {
            cut,
            frames: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            hung: AtomicBool::new(false),
            sockets: Mutex::new(Vec::new()),
        });
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&to) else { return };
                let mut sockets = shared.sockets.lock().unwrap();
                sockets.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                drop(sockets);
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let (forth, back) = (shared.clone(), shared.clone());
                thread::spawn(move || forth.pump(near, far, HELLO_BYTES));
                thread::spawn(move || back.pump(back_from, back_to, 0));
            }
        });
        Self { address }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Shared {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, hello: usize) {
        let mut first = vec![0; hello];
        let mut ok = from.read_exact(&mut first).is_ok() && self.forward(&mut to, &first, hello > 0);
        while ok {
            let mut frame = vec![0; HEADER_BYTES];
            if from.read_exact(&mut frame).is_err() {
                break;
            }
            let length = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
            frame.resize(HEADER_BYTES + length, 0);
            if from.read_exact(&mut frame[HEADER_BYTES..]).is_err() {
                break;
            }
            ok = self.frame(&mut to, frame, hello > 0);
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn frame(&self, to: &mut TcpStream, mut frame: Vec<u8>, forth: bool) -> bool {
        let hit = |kind: Kind, nth| frame[0] == kind as u8 && self.frames.fetch_add(1, SeqCst) == nth;
        match self.cut {
            Cut::Frame { kind, nth, deliver } if hit(kind, nth) => {
                // Nothing else passes, whatever the delivered frame brings about before the cut.
                self.hung.store(true, SeqCst);
                if deliver {
                    let _ = to.write_all(&frame);
                    thread::sleep(Duration::from_millis(50));
                }
                return self.cut_all();
            }
            Cut::Damage { kind, nth } if hit(kind, nth) => *frame.last_mut().unwrap() ^= 1,
            Cut::Hang { kind, nth } if hit(kind, nth) => self.hung.store(true, SeqCst),
            _ => {}
        }
        self.forward(to, &frame, forth)
    }

    fn forward(&self, to: &mut TcpStream, bytes: &[u8], forth: bool) -> bool {
        if self.hung.load(SeqCst) {
            return true;
        }
        let mut pass = bytes.len();
        if let (Cut::Bytes(limit), true) = (self.cut, forth) {
            let before = self.bytes.fetch_add(bytes.len(), SeqCst);
            pass = pass.min(limit.saturating_sub(before));
        }
        let written = to.write_all(&bytes[..pass]).is_ok();
        if pass < bytes.len() { self.cut_all() } else { written }
    }

    fn cut_all(&self) -> bool {
        for socket in &*self.sockets.lock().unwrap() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        false
    }
}
