//! The store in etcd, over the JSON gateway that every member has: leadership by a lease, appends as guarded transactions.

mod api;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

use super::{Store, StoreError, Stored};
use api::{Api, Range, Transaction, coded};

/// Who waits for leadership looks this often.
const LOOK: Duration = Duration::from_millis(300);
/// An append that got no answer is tried again after this long.
const RETRY: Duration = Duration::from_millis(100);
/// Records of one transaction: etcd takes 128 operations.
const BATCH_RECORDS: usize = 100;
/// Bytes of one transaction: etcd takes 1.5 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Records of one page when everything is read.
const PAGE: usize = 200;

/// etcd did not do what it was asked.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// No member answers.
    #[error("etcd at {endpoints} does not answer; start it, or name its members with --store etcd:URL,URL")]
    Unreachable {
        /// Its members.
        endpoints: String,
        /// What the last of them said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It refused.
    #[error("etcd refuses {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it said.
        reason: String,
    },
    /// It said something else than expected.
    #[error("etcd answers {what} in a way that is not understood; version 3.4 or newer is needed")]
    Answer {
        /// What was asked.
        what: String,
    },
    /// Another one leads.
    #[error("the coordinator at {0} leads; start this one with --standby to wait for its end")]
    Led(String),
    /// It does not lead any more.
    #[error("this coordinator is not the leader any more: {0}")]
    Lost(String),
    /// A record that etcd would not take.
    #[error("a record of {0} bytes is longer than etcd takes; use fewer ranks, or --state")]
    TooLong(usize),
}

/// How to take part.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members, `http://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// What all keys begin with; one per cluster.
    pub prefix: String,
    /// A leader that is not heard of for this long has lost its lease, in whole seconds; etcd takes 2 at the least.
    pub lease_s: u64,
    /// Wait until the leader is gone, and do so again after having lost the lease.
    pub standby: bool,
    /// The address of this coordinator, for the others.
    pub identity: String,
}

/// What the thread that keeps the lease and the writer share.
#[derive(Debug)]
struct Lease {
    id: String,
    /// Revision at which the leader's key was made: who has made it leads.
    revision: String,
    /// Until when the lease certainly lasts.
    until: Mutex<Instant>,
}

impl Lease {
    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store of the leader.
#[derive(Debug)]
pub struct Etcd {
    api: Api,
    options: Options,
    lease: Arc<Lease>,
    /// The head in the store, as far as known.
    head: Option<Vec<u8>>,
}

impl Etcd {
    /// Becomes the leader. Waits for the end of another one if it is a standby, else only as long as the lease of a
    /// coordinator that was killed may last.
    pub fn campaign(options: Options) -> Result<Self, EtcdError> {
        let api = Api::new(&options.endpoints, Duration::from_secs(options.lease_s.max(2)) / 2);
        let begin = Instant::now();
        let patience = Duration::from_secs(options.lease_s + 2);
        loop {
            match Self::try_to_lead(&api, &options) {
                Ok(lease) => {
                    let lease = Arc::new(lease);
                    keep_lease(api.clone(), options.clone(), Arc::downgrade(&lease));
                    return Ok(Self { api, options, lease, head: None });
                }
                Err(EtcdError::Led(_) | EtcdError::Unreachable { .. }) if options.standby => {}
                Err(EtcdError::Led(_)) if begin.elapsed() < patience => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(LOOK);
        }
    }

    fn try_to_lead(api: &Api, options: &Options) -> Result<Lease, EtcdError> {
        let key = format!("{}/leader", options.prefix);
        let led = |range: &Range| range.kvs.first().map(|it| EtcdError::Led(api::text(&it.value)));
        if let Some(led) = led(&api.range(&json!({"key": coded(&key)}))?) {
            return Err(led);
        }
        let asked = Instant::now();
        let id = api.grant(options.lease_s)?;
        let answer = api.transact(&json!({
            "compare": [{"key": coded(&key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {"key": coded(&key), "value": coded(&options.identity), "lease": id}}],
            "failure": [{"request_range": {"key": coded(&key)}}],
        }))?;
        if !answer.succeeded {
            let led = answer.ranges().next().and_then(led);
            return Err(led.unwrap_or(EtcdError::Led("?".into())));
        }
        let until = Mutex::new(asked + Duration::from_secs(options.lease_s));
        Ok(Lease { id, revision: answer.header.revision, until })
    }

    fn key(&self, index: u64) -> String {
        format!("{}/records/{index:020}", self.options.prefix)
    }

    /// One transaction; tried again until it is known what became of it, or the lease may be over.
    fn put(&mut self, first: u64, records: &[Vec<u8>], head: &[u8]) -> Result<(), EtcdError> {
        let (leader, head_key) = (
            coded(&format!("{}/leader", self.options.prefix)),
            coded(&format!("{}/head", self.options.prefix)),
        );
        let mut puts: Vec<Value> = (first..)
            .zip(records)
            .map(|(index, it)| json!({"request_put": {"key": coded(&self.key(index)), "value": coded(it)}}))
            .collect();
        puts.push(json!({"request_put": {"key": head_key, "value": coded(head)}}));
        let before = match &self.head {
            Some(head) => {
                json!({"key": head_key, "target": "VALUE", "result": "EQUAL", "value": coded(head)})
            }
            None => json!({"key": head_key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}),
        };
        let leads = json!({"key": leader, "target": "CREATE", "result": "EQUAL",
            "create_revision": self.lease.revision});
        let ask = json!({
            "compare": [leads, before], "success": puts,
            "failure": [{"request_range": {"key": leader}}, {"request_range": {"key": head_key}}],
        });
        loop {
            match self.api.transact(&ask) {
                Ok(answer) if answer.succeeded => break,
                Ok(answer) => {
                    self.judge(&answer, head)?;
                    break;
                }
                Err(EtcdError::Unreachable { .. }) if Instant::now() < self.lease.until() => {
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        self.head = Some(head.to_vec());
        Ok(())
    }

    /// A refused transaction is none if an earlier try of it, whose answer was lost, has got through.
    fn judge(&self, answer: &Transaction, head: &[u8]) -> Result<(), EtcdError> {
        let mut ranges = answer.ranges();
        let (leader, stored) = (ranges.next(), ranges.next());
        let value = |range: Option<&Range>| range.and_then(|it| it.kvs.first()).cloned();
        let leads = value(leader).is_some_and(|it| it.create_revision == self.lease.revision);
        if !leads {
            return Err(EtcdError::Lost("another one has taken over, or the lease is over".into()));
        }
        if value(stored).is_some_and(|it| it.value == coded(head)) {
            return Ok(());
        }
        Err(EtcdError::Lost(format!("somebody else has written to {}/", self.options.prefix)))
    }

    fn read_all(&mut self) -> Result<Stored, EtcdError> {
        let mut stored = Stored::default();
        let end = coded(&format!("{}/records0", self.options.prefix));
        loop {
            let next = coded(&self.key(stored.records.len() as u64));
            let page = self.api.range(&json!({"key": next, "range_end": end, "limit": PAGE.to_string()}))?;
            for it in &page.kvs {
                let index = api::text(&it.key).rsplit('/').next().and_then(|index| index.parse().ok());
                let index = index.ok_or_else(|| EtcdError::Answer { what: "a read".into() })?;
                stored.records.push((index, api::bytes(&it.value)?));
            }
            if page.kvs.is_empty() {
                break;
            }
        }
        let head = self.api.range(&json!({"key": coded(&format!("{}/head", self.options.prefix))}))?;
        stored.head = head.kvs.first().map(|it| api::bytes(&it.value)).transpose()?;
        self.head = stored.head.clone();
        Ok(stored)
    }
}

impl Store for Etcd {
    fn name(&self) -> String {
        format!("{}/ in etcd at {}", self.options.prefix, self.options.endpoints.join(","))
    }

    fn read(&mut self) -> Result<Stored, StoreError> {
        Ok(self.read_all()?)
    }

    fn append(&mut self, first: u64, records: &[Vec<u8>], head: &[u8]) -> Result<(), StoreError> {
        // All in one transaction: the head is that of all of them.
        let bytes: usize = records.iter().map(Vec::len).sum();
        if bytes > BATCH_BYTES || records.len() > BATCH_RECORDS {
            return Err(EtcdError::TooLong(bytes).into());
        }
        Ok(self.put(first, records, head)?)
    }

    fn batch(&self) -> (usize, usize) {
        (BATCH_RECORDS, BATCH_BYTES)
    }

    fn give_up(&self) -> ! {
        step_down(&self.options)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A standby need not wait for the end of the lease; if this fails it does.
        let _ = self.api.revoke(&self.lease.id);
    }
}

/// Keeps the lease alive until the store is dropped. A leader that has lost it ends at once, whatever it is doing.
fn keep_lease(api: Api, options: Options, lease: std::sync::Weak<Lease>) {
    let pause = Duration::from_secs(options.lease_s) / 3;
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(pause.min(Duration::from_secs(1)));
            let Some(lease) = lease.upgrade() else { return };
            let asked = Instant::now();
            match api.keep_alive(&lease.id) {
                Ok(true) => {
                    let until = asked + Duration::from_secs(options.lease_s);
                    *lease.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                }
                Ok(false) => {
                    eprintln!("coordinator: {}", EtcdError::Lost("its lease is over".into()));
                    step_down(&options);
                }
                Err(_) if Instant::now() < lease.until() => {}
                Err(error) => {
                    eprintln!("coordinator: the lease is over and cannot be renewed: {error}");
                    step_down(&options);
                }
            }
        }
    });
}

/// Ends this process as leader: a standby begins again from nothing, so that nothing of what it thought is left.
fn step_down(options: &Options) -> ! {
    use std::os::unix::process::CommandExt;
    if options.standby
        && let Ok(program) = std::env::current_exe()
    {
        let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
        eprintln!("coordinator: it cannot begin again as standby: {error}");
    }
    std::process::exit(1)
}
