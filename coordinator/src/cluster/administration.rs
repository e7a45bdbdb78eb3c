//! What administrators and operators order: the policy, roles of hosts; and the hooks that go with them.

use control::{
    ApplicationId, HookAction, HostAction, HostName, HostOrder, HostState, Policy, PolicyView, PoolMode,
};

use super::{Cluster, ClusterError, HookOrder};
use crate::record::Record;

/// Why a host has a role that an operator gave it: nothing but an operator takes it away again.
pub(super) const OPERATOR: &str = "asked by an operator";

impl Cluster {
    /// Sets the policy. Returns its version: that of the one that holds, if that says the same.
    pub fn set_policy(&mut self, now_ms: u64, policy: Policy) -> Result<u64, ClusterError> {
        policy.check()?;
        if self.state.policy.version > 0 && self.state.policy.policy == policy {
            return Ok(self.state.policy.version);
        }
        let version = self.state.policy.version + 1;
        self.record(now_ms, Record::PolicySet { version, policy: Box::new(policy) });
        // Moves that are not under way yet were planned under another policy.
        self.abort_plan(now_ms, self.planned.len(), format!("policy {version} holds"));
        self.planned_ms = 0;
        Ok(version)
    }

    /// The policy that holds.
    pub fn policy(&self) -> &PolicyView {
        &self.state.policy
    }

    /// Changes the role of a host, or begins to.
    pub fn order_host(&mut self, now_ms: u64, order: &HostOrder) -> Result<(), ClusterError> {
        let host = self.state.hosts.get(&order.host);
        let host = host.ok_or_else(|| ClusterError::NoHost(order.host.clone()))?.clone();
        let refuse =
            |action, reason: String| Err(ClusterError::Host { host: order.host.clone(), action, reason });
        if let Some((action, _)) = &host.hook {
            return refuse("change", format!("its hook ({}) still runs", action.name()));
        }
        let is = format!("it is {}", host.state.name());
        let reason = OPERATOR;
        let name = &order.host;
        match (order.action, host.state) {
            (HostAction::Cordon, HostState::Active | HostState::Leased) => {
                self.change_host(now_ms, name, (HostState::Cordoned, host.lease, None), reason);
            }
            (HostAction::Uncordon, HostState::Cordoned | HostState::Draining) => {
                self.give_back(now_ms, name, reason);
            }
            (HostAction::Drain, HostState::Active | HostState::Leased | HostState::Cordoned) => {
                self.change_host(now_ms, name, (HostState::Draining, host.lease, None), reason);
            }
            (HostAction::Activate, HostState::Standby) => {
                self.run_hook(now_ms, name, HookAction::Activate, reason);
            }
            (HostAction::Activate, HostState::Empty) => {
                self.change_host(now_ms, name, (HostState::Active, None, None), reason);
            }
            (HostAction::Release, HostState::Empty) => {
                self.run_hook(now_ms, name, HookAction::Release, reason);
            }
            (HostAction::Release, HostState::Leased) => {
                self.change_host(now_ms, name, (HostState::Active, None, None), reason);
            }
            (HostAction::Cordon, _) => {
                return refuse("be cordoned", is + "; only an active or leased one can");
            }
            (HostAction::Uncordon, _) => {
                return refuse("be uncordoned", is + "; only a cordoned or draining one can");
            }
            (HostAction::Drain, _) => return refuse("be drained", is + "; nothing is there to leave"),
            (HostAction::Activate, _) => {
                return refuse("be activated", is + "; only a standby or empty one can");
            }
            (HostAction::Release, _) => {
                return refuse("be released", is + "; drain it first: `coordinator drain HOST`");
            }
        }
        // What was planned may have meant to use it.
        self.abort_plan(now_ms, self.planned.len(), format!("the role of host {name} has changed"));
        self.planned_ms = 0;
        Ok(())
    }

    pub(super) fn change_host(
        &mut self,
        now_ms: u64,
        host: &HostName,
        (state, lease, next): (HostState, Option<ApplicationId>, Option<ApplicationId>),
        reason: &str,
    ) {
        let (host, reason) = (host.clone(), reason.to_owned());
        self.record(now_ms, Record::HostChanged { host, state, lease, next, reason });
    }

    /// A host is again what it was before it was cordoned or drained.
    pub(super) fn give_back(&mut self, now_ms: u64, host: &HostName, reason: &str) {
        let Some(it) = self.state.hosts.get(host) else { return };
        let (state, lease) = it.before.clone();
        let live = |id: &ApplicationId| self.state.applications.get(id).is_some_and(|it| it.is_live());
        match lease.filter(live) {
            Some(lease) if state == HostState::Leased => {
                self.change_host(now_ms, host, (HostState::Leased, Some(lease), None), reason);
            }
            _ => self.change_host(now_ms, host, (HostState::Active, None, None), reason),
        }
    }

    /// A host that something is started on or moved to is in use.
    pub(super) fn activate_for(&mut self, now_ms: u64, host: &HostName, reason: &str) {
        if self.state.hosts.get(host).is_some_and(|host| host.is_standby()) {
            self.record(now_ms, Record::HostActivated { host: host.clone(), reason: reason.to_owned() });
        }
    }

    /// In leased mode a host becomes that of the first application on it.
    pub(super) fn lease_for(&mut self, now_ms: u64, host: &HostName, application: &ApplicationId) {
        let leased = self.state.policy.policy.pool.mode == PoolMode::Leased;
        let free = self.state.hosts.get(host).is_some_and(|it| it.lease.is_none());
        if leased && free {
            let lease = Some(application.clone());
            self.change_host(now_ms, host, (HostState::Leased, lease, None), "the application begins on it");
        }
    }

    /// Runs the hook for a change, or makes the change if there is no hook.
    pub(super) fn run_hook(&mut self, now_ms: u64, host: &HostName, action: HookAction, reason: &str) {
        if self.state.policy.policy.pool.hook.is_none() {
            return self.finish_hook(now_ms, host, action, reason);
        }
        let record = Record::HookStarted { host: host.clone(), action, reason: reason.to_owned() };
        self.record(now_ms, record);
        self.queue_hook(host, action);
    }

    fn queue_hook(&mut self, host: &HostName, action: HookAction) {
        let pool = &self.state.policy.policy.pool;
        if let Some(command) = pool.hook.clone() {
            let timeout_ms = (pool.hook_timeout_s * 1000.0) as u64;
            self.hooks.push(HookOrder { host: host.clone(), action, command, timeout_ms });
        }
    }

    /// Hooks that were running when the coordinator ended are run again.
    pub(super) fn resume_hooks(&mut self, now_ms: u64) {
        let hooks = self.state.hosts.iter();
        let open: Vec<_> =
            hooks.filter_map(|(name, host)| Some((name.clone(), host.hook.as_ref()?.0))).collect();
        for (host, action) in open {
            if self.state.policy.policy.pool.hook.is_some() {
                self.queue_hook(&host, action);
            } else {
                self.hook_ended(now_ms, &host, action, Err("the policy has no hook any more".to_owned()));
            }
        }
    }

    /// Hooks to be run now, after their records are in the journal.
    pub fn take_hooks(&mut self) -> Vec<HookOrder> {
        std::mem::take(&mut self.hooks)
    }

    /// A hook has ended.
    pub fn hook_ended(
        &mut self,
        now_ms: u64,
        host: &HostName,
        action: HookAction,
        result: Result<(), String>,
    ) {
        let open = self.state.hosts.get(host).and_then(|it| it.hook.clone());
        let Some((_, reason)) = open.filter(|(known, _)| *known == action) else { return };
        let failure = result.err();
        let failed = failure.is_some();
        self.record(now_ms, Record::HookEnded { host: host.clone(), action, failure });
        if !failed {
            self.finish_hook(now_ms, host, action, &reason);
        }
    }

    fn finish_hook(&mut self, now_ms: u64, host: &HostName, action: HookAction, reason: &str) {
        match action {
            HookAction::Activate => self.activate_for(now_ms, host, reason),
            HookAction::Release => {
                self.change_host(now_ms, host, (HostState::Standby, None, None), reason);
            }
        }
    }
}
