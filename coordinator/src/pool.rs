//! Whom hosts should belong to: a pure function of demands, leases and time, with the conditions of every hand-over.
//!
//! The speed of an application on c processors, against one with a processor for every partition, is s(c) = min(1, c / D), D
//! being its demand. Giving a host away costs it w (s(c) - s(c - host)), getting one is worth w (s(c + host) - s(c)), w its weight
//! (seconds per second, so that both are comparable with the cost of moving, spread over the time a host has to stay).
//!
//! ```text
//! lend:    the owner's loss <= idle,  and  gain - loss > (1 + hysteresis) cost / least lease + noise,  and it has been so for a while
//! return:  the first owner's gain > idle + hysteresis + noise,  and it has been so for a while
//! both:    the lease is older than the least lease x 2^(hand-overs, at most 4)
//! ```
//! What an owner gains by having a host back is what it lost by giving it away. So with constant demands a host that was lent
//! (loss <= idle) is not claimed back (gain > idle + hysteresis), and one that was claimed back is not lent again: hand-overs
//! end. With demands that change they are at least the least lease apart, and that doubles.

use control::{ApplicationId, DecisionView, GateView, HostName, PoolPolicy};

/// Doublings of the least lease.
const DOUBLINGS_MAX: u32 = 4;
/// Standard errors of a demand that count as noise.
const NOISE: f64 = 2.0;

/// An application as the pool sees it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its identity.
    pub id: ApplicationId,
    /// What a second of it is worth.
    pub weight: f64,
    /// Busy processors that it would have if every partition had one of its own; of a queued one, its ranks' expected loads.
    pub demand: f64,
    /// Standard error of that.
    pub error: f64,
    /// Its demand is known well enough.
    pub is_known: bool,
    /// Processors of its hosts.
    pub processors: f64,
    /// Its hosts.
    pub hosts: u32,
    /// Hosts that it keeps in any case.
    pub hosts_min: u32,
    /// Hosts that it may have.
    pub hosts_max: u32,
    /// Partitions; on more processors than these it is not faster.
    pub partitions: u32,
    /// It waits for hosts to begin.
    pub is_queued: bool,
}

impl Tenant {
    /// Speed on so many processors, 0 to 1.
    pub fn speed(&self, processors: f64) -> f64 {
        if self.demand <= processors { 1.0 } else { (processors / self.demand).max(0.0) }
    }

    fn gain(&self, processors: f64) -> f64 {
        self.weight * (self.speed(self.processors + processors) - self.speed(self.processors))
    }

    fn loss(&self, processors: f64) -> f64 {
        self.weight * (self.speed(self.processors) - self.speed(self.processors - processors))
    }

    /// By how much gains and losses may be off.
    fn noise(&self) -> f64 {
        if self.demand > 0.0 {
            self.weight * NOISE * self.error / self.demand.max(self.processors)
        } else {
            0.0
        }
    }
}

/// A host as the pool sees it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: HostName,
    /// Its processors.
    pub processors: f64,
    /// Index of the tenant that has it.
    pub lease: Option<usize>,
    /// Index of the tenant that had it first.
    pub home: Option<usize>,
    /// For how long it has been whose it is, in seconds.
    pub since_s: f64,
    /// How often it was handed over.
    pub handovers: u32,
    /// Nobody's, and takes partitions of nobody.
    pub is_free: bool,
    /// Predicted cost of emptying it, in application-seconds; `None`: it cannot be emptied.
    pub evacuation_s: Option<f64>,
}

/// What is done with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A free host is leased to a tenant.
    Lease(usize),
    /// A host is emptied for a tenant.
    HandOver(usize),
}

/// A decision about a host.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Index of the host.
    pub site: usize,
    /// What is done.
    pub step: Step,
    /// What it is worth (seconds per second).
    pub value: f64,
    /// How long its conditions have to have been met, in seconds, before it is carried out.
    pub sustain_s: f64,
    /// The conditions.
    pub gates: Vec<GateView>,
}

impl Decision {
    /// Are all conditions met?
    pub fn passes(&self) -> bool {
        self.gates.iter().all(|gate| gate.pass)
    }

    /// For people.
    pub fn view(&self, tenants: &[Tenant]) -> DecisionView {
        let tenant = |index: usize| tenants.get(index).map(|it| it.id.to_string()).unwrap_or_default();
        let what = match self.step {
            Step::Lease(to) => format!("lease to {}", tenant(to)),
            Step::HandOver(to) => format!("hand over to {}", tenant(to)),
        };
        let failed = self.gates.iter().find(|gate| !gate.pass);
        let verdict = failed.map_or_else(
            || "done next".to_owned(),
            |it| format!("{} {:.3} is not {} {:.3}", it.name, it.value, it.relation, it.threshold),
        );
        DecisionView { what, gates: self.gates.clone(), verdict }
    }
}

/// `value >= threshold`, or `<=`.
pub fn gate(name: &str, value: f64, relation: &str, threshold: f64) -> GateView {
    let pass = if relation == ">=" { value >= threshold } else { value <= threshold };
    let finite = |value: f64| value.clamp(f64::MIN, f64::MAX);
    GateView {
        name: name.to_owned(),
        value: finite(value),
        threshold: finite(threshold),
        relation: relation.to_owned(),
        pass,
    }
}

/// Everything that could be done with the hosts now, with its conditions; the best that passes comes first.
pub fn decide(tenants: &[Tenant], sites: &[Site], policy: &PoolPolicy) -> Vec<Decision> {
    let mut all = Vec::new();
    for (index, site) in sites.iter().enumerate() {
        for (to, tenant) in tenants.iter().enumerate() {
            if site.lease == Some(to) || tenant.hosts >= tenant.hosts_max {
                continue;
            }
            if site.is_free {
                all.push(lease(index, site, to, tenant, policy));
            } else if let Some(from) = site.lease.and_then(|from| tenants.get(from)) {
                all.push(hand_over(index, site, (to, tenant), from, policy));
            }
        }
    }
    // Ties go to the first host and application.
    all.sort_by(|a, b| b.passes().cmp(&a.passes()).then(b.value.total_cmp(&a.value)));
    all
}

/// What having the host at all is worth to one that cannot begin without.
fn worth(tenant: &Tenant, processors: f64) -> f64 {
    if tenant.is_queued {
        tenant.weight / f64::from(tenant.hosts_min.max(1))
    } else {
        tenant.gain(processors)
    }
}

fn lease(index: usize, site: &Site, to: usize, tenant: &Tenant, policy: &PoolPolicy) -> Decision {
    let value = worth(tenant, site.processors);
    let least = policy.idle + if tenant.is_queued { 0.0 } else { tenant.noise() };
    let gates = vec![
        gate("demand is known", f64::from(u8::from(tenant.is_known)), ">=", 1.0),
        gate("gain", value, ">=", least),
    ];
    Decision { site: index, step: Step::Lease(to), value, sustain_s: 0.0, gates }
}

fn hand_over(
    index: usize,
    site: &Site,
    (to, tenant): (usize, &Tenant),
    from: &Tenant,
    policy: &PoolPolicy,
) -> Decision {
    let returns = site.home == Some(to);
    let (gain, loss) = (worth(tenant, site.processors), from.loss(site.processors));
    let noise = if tenant.is_queued { 0.0 } else { tenant.noise() } + from.noise();
    let doublings = site.handovers.min(DOUBLINGS_MAX);
    let lease_s = policy.lease_min_s * f64::from(1_u32 << doublings);
    let known = tenant.is_known && from.is_known;
    let mut gates = vec![
        gate("demands are known", f64::from(u8::from(known)), ">=", 1.0),
        gate("hosts left to its owner", f64::from(from.hosts) - 1.0, ">=", f64::from(from.hosts_min.max(1))),
        gate("lease seconds", site.since_s, ">=", if site.handovers == 0 { 0.0 } else { lease_s }),
        gate(
            "can be emptied, and best of its owner's",
            f64::from(u8::from(site.evacuation_s.is_some())),
            ">=",
            1.0,
        ),
    ];
    if returns {
        gates.push(gate("its first owner misses", gain, ">=", policy.idle + policy.hysteresis + noise));
    } else {
        let cost = site.evacuation_s.unwrap_or(0.0) / policy.lease_min_s.max(1.0);
        gates.push(gate("its owner would lose", loss, "<=", policy.idle));
        gates.push(gate(
            "gain less loss",
            gain - loss,
            ">=",
            (1.0 + policy.hysteresis) * cost + policy.hysteresis + noise,
        ));
    }
    let value = if returns { gain } else { gain - loss };
    Decision { site: index, step: Step::HandOver(to), value, sustain_s: policy.sustain_s, gates }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn tenant(name: &str, demand: f64, hosts: u32) -> Result<Tenant> {
        Ok(Tenant {
            id: name.parse()?,
            weight: 1.0,
            demand,
            error: 0.0,
            is_known: true,
            processors: f64::from(hosts),
            hosts,
            hosts_min: 1,
            hosts_max: 3,
            partitions: 4,
            is_queued: false,
        })
    }

    fn site(name: &str, lease: usize, home: usize, handovers: u32) -> Result<Site> {
        Ok(Site {
            name: name.parse()?,
            processors: 1.0,
            lease: Some(lease),
            home: Some(home),
            since_s: 700.0,
            handovers,
            is_free: false,
            evacuation_s: Some(1.0),
        })
    }

    fn first(tenants: &[Tenant], sites: &[Site]) -> Option<(usize, Step)> {
        let all = decide(tenants, sites, &PoolPolicy::default());
        all.into_iter().next().filter(Decision::passes).map(|it| (it.site, it.step))
    }

    #[test]
    fn an_idle_owner_lends_and_claims_back_and_neither_of_two_busy_ones_does() -> Result {
        let two_one = [site("a", 0, 0, 0)?, site("b", 0, 0, 0)?, site("c", 1, 1, 0)?];
        let idle = [tenant("x-1", 0.2, 2)?, tenant("y-1", 2.0, 1)?];
        assert_eq!(first(&idle, &two_one), Some((0, Step::HandOver(1))));
        let busy = [tenant("x-1", 2.0, 2)?, tenant("y-1", 2.0, 1)?];
        assert_eq!(first(&busy, &two_one), None);
        // Lent: nothing happens as long as its owner is idle, or the lease is young.
        let mut lent = [site("a", 1, 0, 1)?, site("b", 0, 0, 0)?, site("c", 1, 1, 0)?];
        assert_eq!(first(&[tenant("x-1", 0.2, 1)?, tenant("y-1", 2.0, 2)?], &lent), None);
        let back = [tenant("x-1", 2.0, 1)?, tenant("y-1", 2.0, 2)?];
        assert_eq!(first(&back, &lent), None, "its lease lasts twice as long after a hand-over");
        lent[0].since_s = 1300.0;
        assert_eq!(first(&back, &lent), Some((0, Step::HandOver(0))));
        Ok(())
    }

    #[test]
    fn a_free_host_goes_where_it_is_worth_most_and_a_floor_is_kept() -> Result {
        let mut free = site("a", 0, 0, 0)?;
        (free.lease, free.home, free.is_free) = (None, None, true);
        let mut heavy = tenant("y-1", 4.0, 2)?;
        let light = tenant("x-1", 4.0, 2)?;
        heavy.weight = 2.0;
        assert_eq!(first(&[light.clone(), heavy.clone()], &[free.clone()]), Some((0, Step::Lease(1))));
        let queued = Tenant { is_queued: true, weight: 3.0, hosts: 0, ..light.clone() };
        assert_eq!(first(&[queued.clone(), heavy], &[free]), Some((0, Step::Lease(0))));
        let floor = [Tenant { hosts_min: 2, ..tenant("x-1", 0.1, 2)? }, tenant("y-1", 4.0, 1)?];
        let sites = [site("a", 0, 0, 0)?, site("b", 0, 0, 0)?];
        assert_eq!(first(&floor, &sites), None);
        let held = decide(&floor, &sites, &PoolPolicy::default());
        assert!(held[0].view(&floor).verdict.starts_with("hosts left to its owner 1.000 is not >= 2"));
        Ok(())
    }
}
