//! The calls into `glue.c`, and who owns what they give.

use std::ffi::{CStr, CString, c_char, c_int};
use std::net::IpAddr;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::memory::HostMemory;
use crate::{ADDRESS_BYTES_MAX, Error, PROVIDER_BYTES_MAX};

const TEXT_BYTES: usize = 256;
const NOT_BUILT: c_int = -10001;
const NOT_INSTALLED: c_int = -10002;
const NO_PROVIDER: c_int = -10003;
/// Nothing was done because queues are full.
const AGAIN: c_int = -11;

/// What is asked for; `struct wish` of glue.c.
#[repr(C)]
struct WishC {
    ip: *const u8,
    ip_bytes: usize,
    provider: *const c_char,
    format: u32,
    ordered_read: i32,
    message_bytes: u64,
}

/// What was chosen; `struct facts` of glue.c.
#[repr(C)]
struct FactsC {
    provider: [u8; PROVIDER_BYTES_MAX + 1],
    format: u32,
    delivery_complete: i32,
    virtual_addresses: i32,
    bound_memory: i32,
    key_mask: u64,
    address_bytes: u64,
    address: [u8; ADDRESS_BYTES_MAX],
}

const _: () = assert!(size_of::<WishC>() == 40 && size_of::<FactsC>() == 64 + 16 + 16 + 256);

#[repr(C)]
struct FabricC {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RegisteredC {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn partita_rdma_text(error: c_int, text: *mut u8);
    fn partita_rdma_open(wish: *const WishC, facts: *mut FactsC, opened: *mut *mut FabricC) -> c_int;
    fn partita_rdma_close_endpoint(fabric: *mut FabricC) -> c_int;
    fn partita_rdma_close(fabric: *mut FabricC);
    fn partita_rdma_connect(fabric: *mut FabricC, address: *const u8) -> c_int;
    fn partita_rdma_register(
        fabric: *mut FabricC,
        memory: *mut u8,
        bytes: u64,
        remote: i32,
        wanted_key: u64,
        key: *mut u64,
        registered: *mut *mut RegisteredC,
    ) -> c_int;
    fn partita_rdma_unregister(registered: *mut RegisteredC);
    fn partita_rdma_post(
        fabric: *mut FabricC,
        read: i32,
        memory: *mut u8,
        bytes: u64,
        registered: *mut RegisteredC,
        address: u64,
        key: u64,
        context: u64,
    ) -> c_int;
    fn partita_rdma_poll(fabric: *mut FabricC, contexts: *mut u64, count: u64, wait_ms: i32) -> c_int;
    fn partita_rdma_waits(fabric: *const FabricC) -> c_int;
    fn partita_rdma_wake(fabric: *mut FabricC);
}

/// What a fabric is opened for.
pub struct Wish<'a> {
    /// Address of this host, as the other one reaches it.
    pub ip: IpAddr,
    /// The other side's provider and address format, when that has chosen.
    pub like: Option<(&'a str, u32)>,
    /// Prove visibility by an ordered read even where delivery-complete is there.
    pub ordered_read: bool,
    /// Longest write.
    pub message_bytes: usize,
}

/// What libfabric chose.
#[derive(Debug, Clone)]
pub struct Facts {
    pub provider: String,
    pub format: u32,
    pub address: Vec<u8>,
    /// A complete write is visible; else it is behind an ordered read.
    pub delivery_complete: bool,
    pub virtual_addresses: bool,
    /// Registrations have to be closed before the endpoint.
    pub bound_memory: bool,
    /// Bits of the keys that this side chooses; 0: the provider chooses them.
    pub key_mask: u64,
}

/// Closed when nobody has it any more.
struct Handle(NonNull<FabricC>);

// SAFETY: libfabric's objects are bound to no thread; that only one thread at a time uses them is what `Fabric` says.
unsafe impl Send for Handle {}
// SAFETY: shared between a `Fabric` and its `Registered`, which the crate keeps in one thread at a time (FI_THREAD_DOMAIN).
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this was the last owner, and every registration is an owner.
        unsafe { partita_rdma_close(self.0.as_ptr()) }
    }
}

/// An enabled endpoint with its queue. One thread uses it at a time, together with its registrations.
pub struct Fabric {
    handle: Arc<Handle>,
    pub facts: Facts,
}

impl Fabric {
    /// Opens the provider that libfabric prefers among those that can do what is needed.
    pub fn open(wish: &Wish) -> Result<Self, Error> {
        let (v4, v6);
        let ip: &[u8] = match wish.ip.to_canonical() {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        let provider = wish.like.map(|(provider, _)| CString::new(provider)).transpose();
        let provider = provider.map_err(|_| Error::Window("that is no name of a provider"))?;
        let asked = WishC {
            ip: ip.as_ptr(),
            ip_bytes: ip.len(),
            provider: provider.as_ref().map_or(ptr::null(), |provider| provider.as_ptr()),
            format: wish.like.map_or(0, |(_, format)| format),
            ordered_read: wish.ordered_read.into(),
            message_bytes: wish.message_bytes as u64,
        };
        let mut facts = FactsC {
            provider: [0; _],
            format: 0,
            delivery_complete: 0,
            virtual_addresses: 0,
            bound_memory: 0,
            key_mask: 0,
            address_bytes: 0,
            address: [0; _],
        };
        let mut opened = ptr::null_mut();
        // SAFETY: all pointers are to live objects of the layouts that glue.c has; it keeps none of them.
        let result = unsafe { partita_rdma_open(&asked, &mut facts, &mut opened) };
        let name = || wish.like.map_or("libfabric's choice", |(provider, _)| provider);
        let handle = match NonNull::new(opened) {
            Some(opened) if result == 0 => Arc::new(Handle(opened)),
            _ if result == NO_PROVIDER => {
                let provider = wish.like.map(|(provider, _)| provider.to_owned());
                return Err(Error::NoProvider { ip: wish.ip, provider });
            }
            _ => return Err(failed("open an endpoint", name(), result)),
        };
        let provider = CStr::from_bytes_until_nul(&facts.provider).unwrap_or_default();
        let facts = Facts {
            provider: provider.to_string_lossy().into_owned(),
            format: facts.format,
            address: facts.address[..(facts.address_bytes as usize).min(ADDRESS_BYTES_MAX)].to_vec(),
            delivery_complete: facts.delivery_complete != 0,
            virtual_addresses: facts.virtual_addresses != 0,
            bound_memory: facts.bound_memory != 0,
            key_mask: facts.key_mask,
        };
        Ok(Self { handle, facts })
    }

    fn check(&self, what: &'static str, result: c_int) -> Result<c_int, Error> {
        if result < 0 { Err(failed(what, &self.facts.provider, result)) } else { Ok(result) }
    }

    /// Names the only peer.
    pub fn connect(&mut self, address: &[u8]) -> Result<(), Error> {
        let mut padded = [0; ADDRESS_BYTES_MAX];
        let room = padded.get_mut(..address.len()).ok_or(Error::Window("its address is too long"))?;
        room.copy_from_slice(address);
        // SAFETY: the address is padded to the length that glue.c reads at most.
        let result = unsafe { partita_rdma_connect(self.handle.0.as_ptr(), padded.as_ptr()) };
        self.check("use the other side's address", result).map(|_| ())
    }

    /// Registers memory: for the peer to read and write with `wanted_key` if `remote`, else as what is written from.
    pub fn register(
        &mut self,
        memory: &HostMemory,
        remote: bool,
        wanted_key: u64,
    ) -> Result<Registered, Error> {
        let (mut key, mut registered) = (0, ptr::null_mut());
        // SAFETY: the memory is mapped as long as the `Registered` keeps it, which unregisters it first.
        let result = unsafe {
            partita_rdma_register(
                self.handle.0.as_ptr(),
                memory.start(),
                memory.bytes() as u64,
                remote.into(),
                wanted_key & self.facts.key_mask,
                &mut key,
                &mut registered,
            )
        };
        self.check("register memory", result)?;
        let registered = NonNull::new(registered);
        Ok(Registered { key, registered, memory: memory.clone(), _handle: self.handle.clone() })
    }

    /// Posts one write, or one read, of `bytes` from `offset` of what is registered; `false`: the queue is full, poll first.
    /// The caller leaves those bytes alone until `context` comes back, or the endpoint is closed.
    pub fn post(
        &mut self,
        read: bool,
        registered: &Registered,
        (offset, bytes): (usize, usize),
        (address, key): (u64, u64),
        context: u64,
    ) -> Result<bool, Error> {
        let memory = &registered.memory;
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= memory.bytes()),
            "inside what is registered"
        );
        // SAFETY: the range is inside memory that stays mapped until it is unregistered; who fills it is the caller's care, and a
        // wrong byte would be found by the caller's checksums.
        let result = unsafe {
            partita_rdma_post(
                self.handle.0.as_ptr(),
                read.into(),
                memory.start().add(offset),
                bytes as u64,
                registered.registered.map_or(ptr::null_mut(), NonNull::as_ptr),
                address,
                key,
                context,
            )
        };
        match result {
            AGAIN => Ok(false),
            result => self.check(if read { "read" } else { "write" }, result).map(|_| true),
        }
    }

    /// Drives everything forward; gives how many contexts of what is complete it put in front. Waits for one up to `wait_ms`
    /// where the provider can wait.
    pub fn poll(&mut self, contexts: &mut [u64; 16], wait_ms: i32) -> Result<usize, Error> {
        // SAFETY: there is room for as many contexts as are asked for.
        let result = unsafe { partita_rdma_poll(self.handle.0.as_ptr(), contexts.as_mut_ptr(), 16, wait_ms) };
        self.check("complete what was begun", result).map(|count| count as usize)
    }

    /// Whether `poll` can wait.
    pub fn waits(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { partita_rdma_waits(self.handle.0.as_ptr()) != 0 }
    }

    /// Ends a wait of `poll` in another thread.
    pub fn waker(&self) -> Waker {
        Waker(self.handle.clone())
    }

    /// Nothing goes out or comes in after this.
    pub fn close_endpoint(&mut self) -> Result<(), Error> {
        // SAFETY: the handle is open; glue.c closes the endpoint once, and nothing is posted or polled afterwards.
        let result = unsafe { partita_rdma_close_endpoint(self.handle.0.as_ptr()) };
        self.check("close the endpoint", result).map(|_| ())
    }
}

/// Ends waits of the thread that has the [`Fabric`].
pub struct Waker(Arc<Handle>);

impl Waker {
    pub fn wake(&self) {
        // SAFETY: the handle is open as long as this has it; a signal is the one call that is made for another thread.
        unsafe { partita_rdma_wake(self.0.0.as_ptr()) }
    }
}

/// Registered memory, which it keeps mapped.
pub struct Registered {
    pub key: u64,
    /// None where nothing has to be registered to be written from.
    registered: Option<NonNull<RegisteredC>>,
    pub memory: HostMemory,
    /// The fabric is closed after its registrations.
    _handle: Arc<Handle>,
}

// SAFETY: as for `Handle`.
unsafe impl Send for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(registered) = self.registered {
            // SAFETY: it is registered, its fabric is open, and the memory is mapped still.
            unsafe { partita_rdma_unregister(registered.as_ptr()) }
        }
    }
}

fn failed(what: &'static str, provider: &str, result: c_int) -> Error {
    let mut text = [0; TEXT_BYTES];
    // SAFETY: there is room for what glue.c writes at most, with its end.
    unsafe { partita_rdma_text(result, text.as_mut_ptr()) };
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned();
    match result {
        NOT_BUILT => Error::NotBuilt,
        NOT_INSTALLED => Error::NotInstalled(text),
        _ => Error::Call { what, provider: provider.to_owned(), code: -result, text },
    }
}
