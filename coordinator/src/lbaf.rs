//! Problems of LBAF (the Load Balancing Analysis Framework, <https://github.com/DARMA-tasking/LB-analysis-framework>):
//! one JSON file per rank, maybe compressed with brotli, become a snapshot; the plan becomes files of the same schema.
//!
//! LBAF's ranks are hosts here, its tasks are partitions. Memory of a rank, as in its model: `rank_working_bytes`, each
//! distinct shared block once, the largest `task_working_bytes`, and the footprints.

pub mod export;
mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use planner::{Edge, Plan, PlanApplication, PlanHost, PlanPartition, Settings, Snapshot};

use files::File;

/// Bytes that a task or a block may have.
const BYTES_MAX: f64 = (1_u64 << 50) as f64;
/// Ranks and tasks of a problem.
const RANKS_MAX: usize = 100_000;
/// What a move costs, in parts of the time of an iteration: of equal plans the one with fewer moves is better.
const MOVE_COST: f64 = 1e-6;

/// A problem that cannot be read or written.
#[derive(Debug, Error)]
pub enum LbafError {
    /// A file or directory.
    #[error("{}: it cannot be {what}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No file looks like a rank's.
    #[error("{}: no file NAME.RANK.json or NAME.RANK.json.br is there", .0.display())]
    NoFiles(PathBuf),
    /// A rank is missing.
    #[error("{}: there are files of {there} ranks, but none of rank {missing}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// Ranks that are there.
        there: usize,
        /// One that is not.
        missing: usize,
    },
    /// Too long.
    #[error("{}: it is longer than {} MiB", .0.display(), files::FILE_BYTES_MAX >> 20)]
    TooLong(PathBuf),
    /// Not JSON.
    #[error("{}:{}: not JSON: {source}", path.display(), source.line())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A value.
    #[error("{}: `{key}`: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A plan for too much.
    #[error("{}: more than {RANKS_MAX} ranks", .0.display())]
    TooMany(PathBuf),
}

/// Constants of LBAF's work model: `alpha * load + beta * max(sent, received)`.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Per second of load.
    pub alpha: f64,
    /// Seconds per byte between two ranks.
    pub beta: f64,
    /// Memory of every rank, in bytes.
    pub memory_limit: Option<u64>,
}

/// What a plan of an LBAF problem comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Number of the phase.
    pub phase: u64,
    /// Ranks.
    pub ranks: usize,
    /// Tasks.
    pub tasks: usize,
    /// Greatest work of a rank before.
    pub w_max_before: f64,
    /// And after.
    pub w_max_after: f64,
    /// max(load) / mean - 1 before.
    pub imbalance_before: f64,
    /// And after.
    pub imbalance_after: f64,
    /// Tasks that change their rank.
    pub moves: usize,
    /// Greatest memory of a rank before, in bytes.
    pub memory_max_before: u64,
    /// And after.
    pub memory_max_after: u64,
    /// Time for planning and explaining, in milliseconds.
    pub plan_ms: f64,
    /// How the plan was found.
    pub algorithm: String,
    /// Messages to or from something that is no task of this phase; they cannot be planned with.
    pub communications_ignored: usize,
    /// What was done, or why nothing.
    pub explanation: String,
}

/// A problem and where it came from.
#[derive(Debug)]
pub struct Problem {
    /// What is to be planned.
    pub snapshot: Snapshot,
    /// Number of its phase.
    pub phase: u64,
    /// See [`Outcome::communications_ignored`].
    pub ignored: usize,
    files: Vec<File>,
    /// Of every partition: rank and position in its `tasks`.
    origins: Vec<(usize, usize)>,
}

/// Reads phase `phase` of the problem in a directory.
pub fn read(directory: &Path, phase: u64, model: Model) -> Result<Problem, LbafError> {
    let files = files::read_all(directory)?;
    let mut builder = Builder::new(model);
    for (rank, file) in files.iter().enumerate() {
        builder.take_tasks(rank, file, file.phase(phase)?)?;
    }
    for file in &files {
        builder.take_communications(file, file.phase(phase)?)?;
    }
    let (snapshot, origins, ignored) = builder.finish(&files);
    Ok(Problem { snapshot, phase, ignored, files, origins })
}

impl Problem {
    /// What a plan for it comes to.
    pub fn outcome(&self, plan: &Plan, plan_ms: f64) -> Outcome {
        let before: Vec<usize> = self.snapshot.partitions.iter().map(|it| it.host).collect();
        let after = self.placement(plan);
        Outcome {
            phase: self.phase,
            ranks: self.snapshot.hosts.len(),
            tasks: self.snapshot.partitions.len(),
            w_max_before: plan.work_max,
            w_max_after: plan.work_max_after,
            imbalance_before: plan.imbalance,
            imbalance_after: plan.imbalance_after,
            moves: before.iter().zip(&after).filter(|(before, after)| before != after).count(),
            memory_max_before: self.memory_max(&before),
            memory_max_after: self.memory_max(&after),
            plan_ms,
            algorithm: plan.algorithm.to_owned(),
            communications_ignored: self.ignored,
            explanation: plan.explanation.clone(),
        }
    }

    fn placement(&self, plan: &Plan) -> Vec<usize> {
        let mut at: Vec<usize> = self.snapshot.partitions.iter().map(|it| it.host).collect();
        plan.steps.iter().for_each(|step| at[step.partition as usize] = step.to as usize);
        at
    }

    fn memory_max(&self, at: &[usize]) -> u64 {
        let snapshot = &self.snapshot;
        let mut own: Vec<u64> = snapshot.hosts.iter().map(|host| host.memory_base).collect();
        let mut working = vec![0_u64; snapshot.hosts.len()];
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        for (it, host) in snapshot.partitions.iter().zip(at) {
            own[*host] = own[*host].saturating_add(it.memory);
            working[*host] = working[*host].max(it.working);
            blocks.extend(it.block.map(|block| (*host, block)));
        }
        blocks.sort_unstable();
        blocks.dedup();
        for (host, block) in blocks {
            own[host] = own[host].saturating_add(snapshot.blocks[block]);
        }
        own.into_iter().zip(working).map(|(own, working)| own.saturating_add(working)).max().unwrap_or(0)
    }

    /// Writes files of the same names (without `.br`) and schema, with the tasks where the plan has them.
    pub fn write(&self, plan: &Plan, directory: &Path) -> Result<(), LbafError> {
        let after = self.placement(plan);
        let mut tasks: Vec<Vec<Value>> = vec![Vec::new(); self.files.len()];
        let mut rank_of: BTreeMap<Entity, usize> = BTreeMap::new();
        for ((rank, index), host) in self.origins.iter().zip(&after) {
            let file = &self.files[*rank];
            let mut task = file.phase(self.phase)?.task(*index);
            rank_of.extend(entity(&task["entity"]).map(|entity| (entity, *host)));
            task["node"] = Value::from(*host);
            tasks[*host].push(task);
        }
        let mut communications: Vec<Vec<Value>> = vec![Vec::new(); self.files.len()];
        for (rank, file) in self.files.iter().enumerate() {
            for communication in file.phase(self.phase)?.communications() {
                let sender = entity(&communication["from"]).and_then(|it| rank_of.get(&it));
                communications[sender.copied().unwrap_or(rank)].push(communication.clone());
            }
        }
        files::write_all(directory, &self.files, self.phase, tasks, communications)
    }
}

/// Id (or `seq_id`) of a task.
type Entity = u64;

fn entity(value: &Value) -> Option<Entity> {
    value.get("id").or_else(|| value.get("seq_id"))?.as_u64()
}

struct Builder {
    model: Model,
    partitions: Vec<PlanPartition>,
    origins: Vec<(usize, usize)>,
    index: BTreeMap<Entity, usize>,
    edges: Vec<Edge>,
    blocks: BTreeMap<u64, (usize, u64)>,
    rank_bytes: u64,
    ignored: usize,
}

impl Builder {
    fn new(model: Model) -> Self {
        Self {
            model,
            partitions: Vec::new(),
            origins: Vec::new(),
            index: BTreeMap::new(),
            edges: Vec::new(),
            blocks: BTreeMap::new(),
            rank_bytes: 0,
            ignored: 0,
        }
    }

    fn take_tasks(&mut self, rank: usize, file: &File, phase: files::Phase<'_>) -> Result<(), LbafError> {
        for (position, task) in phase.tasks().iter().enumerate() {
            let place = |key: &str| format!("phases[{}].tasks[{position}].{key}", phase.position);
            let time = file.number(task.get("time"), &place("time"), f64::MAX)?;
            let found = task.get("entity").and_then(entity);
            let id = found.ok_or_else(|| {
                file.error(
                    &place("entity.id"),
                    "it is missing, and so is `seq_id`; or it is not a whole number",
                )
            })?;
            if self.index.insert(id, self.partitions.len()).is_some() {
                return Err(file.error(&place("entity.id"), &format!("{id} is the id of another task, too")));
            }
            let migratable = task["entity"].get("migratable").and_then(Value::as_bool).unwrap_or(true);
            let user = task.get("user_defined");
            let bytes = |key: &str| -> Result<u64, LbafError> {
                let value = user.and_then(|user| user.get(key));
                let Some(value) = value else { return Ok(0) };
                // Whole bytes, rather one more.
                Ok(file.number(Some(value), &place(&format!("user_defined.{key}")), BYTES_MAX)?.ceil() as u64)
            };
            self.rank_bytes = self.rank_bytes.max(bytes("rank_working_bytes")?);
            let shared = user.and_then(|user| user.get("shared_id"));
            let block = match shared {
                None => None,
                Some(Value::Number(number)) if number.as_i64() == Some(-1) => None,
                Some(shared) => {
                    let key = place("user_defined.shared_id");
                    let id = shared.as_u64().ok_or_else(|| file.error(&key, "it is not a whole number"))?;
                    let next = self.blocks.len();
                    let known = self.blocks.entry(id).or_insert((next, 0));
                    known.1 = known.1.max(bytes("shared_bytes")?);
                    Some(known.0)
                }
            };
            self.partitions.push(PlanPartition {
                application: 0,
                rank: self.partitions.len() as u32,
                host: rank,
                load: time,
                variance: 0.0,
                samples: 1,
                memory: bytes("task_footprint_bytes")?,
                working: bytes("task_working_bytes")?,
                block,
                fixed: (!migratable).then_some("migratable is false"),
                cooling_s: 0.0,
                copy_s: 0.0,
                blackout_s: MOVE_COST,
            });
            self.origins.push((rank, position));
        }
        Ok(())
    }

    fn take_communications(&mut self, file: &File, phase: files::Phase<'_>) -> Result<(), LbafError> {
        for (position, it) in phase.communications().iter().enumerate() {
            let place = |key: &str| format!("phases[{}].communications[{position}].{key}", phase.position);
            let bytes = file.number(it.get("bytes"), &place("bytes"), f64::MAX)?;
            let end = |key: &str| {
                let found = it.get(key).and_then(entity);
                let id = found.ok_or_else(|| file.error(&place(key), "it has neither `id` nor `seq_id`"));
                Ok(self.index.get(&id?).copied())
            };
            match (end("from")?, end("to")?) {
                (Some(from), Some(to)) => self.edges.push(Edge { from, to, bytes, messages: 0.0 }),
                _ => self.ignored += 1,
            }
        }
        Ok(())
    }

    fn finish(self, files: &[File]) -> (Snapshot, Vec<(usize, usize)>, usize) {
        let mut blocks = vec![0; self.blocks.len()];
        self.blocks.values().for_each(|(index, bytes)| blocks[*index] = *bytes);
        let host = |(rank, file): (usize, &File)| {
            Some(PlanHost {
                name: format!("rank-{rank}").parse().ok()?,
                capacity: 1.0,
                alpha: self.model.alpha * file.alpha,
                memory: self.model.memory_limit.unwrap_or(u64::MAX),
                memory_base: self.rank_bytes,
                reserve: 0.0,
                closed: None,
                evacuate: false,
            })
        };
        let id = "lbaf".parse().ok();
        let application = |id| PlanApplication { id, weight: 1.0, quota: usize::MAX };
        let snapshot = Snapshot {
            hosts: files.iter().enumerate().filter_map(host).collect(),
            applications: id.into_iter().map(application).collect(),
            partitions: self.partitions,
            edges: self.edges,
            blocks,
            rules: Vec::new(),
            sustained_s: 0.0,
            suffered_s: 0.0,
            policy: 0,
            settings: Settings { beta_s_per_byte: self.model.beta, ..Settings::exact() },
        };
        (snapshot, self.origins, self.ignored)
    }
}

#[cfg(test)]
mod tests;
