//! `coordinator plan --from-lbaf`: a public problem, without a cluster.

use std::path::Path;

use super::{CliError, Plan, checked, show};
use planner::checker;

use crate::{lbaf, render};

/// Plans a problem from files, checks the plan, and prints what it comes to.
pub(super) fn plan(directory: &Path, options: &Plan, json: bool) -> Result<u8, CliError> {
    let memory_limit = options.memory_limit.map(|bytes| checked("memory-limit", bytes)).transpose()?;
    let model = lbaf::Model {
        alpha: checked("alpha", options.alpha)?,
        beta: checked("beta", options.beta)?,
        memory_limit: memory_limit.map(|bytes| bytes as u64),
    };
    let problem = lbaf::read(directory, options.phase, model)?;
    let begin = std::time::Instant::now();
    let plan = planner::plan(&problem.snapshot);
    let plan_ms = begin.elapsed().as_secs_f64() * 1000.0;
    if let Some(finding) = checker::check(&problem.snapshot, &plan).into_iter().next() {
        return Err(CliError::Checked(finding));
    }
    if let Some(directory) = &options.write_lbaf {
        problem.write(&plan, directory)?;
    }
    show(json, &problem.outcome(&plan, plan_ms), render::lbaf)?;
    Ok(0)
}
