//! Reading, writing, and what is said about bad input.

use std::io::Write;

use super::*;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const LOAD_ONLY: Model = Model { alpha: 1.0, beta: 0.0, memory_limit: None };

fn task(id: u64, time: &str) -> String {
    format!(
        "{{\"entity\":{{\"id\":{id},\"home\":0,\"migratable\":true,\"type\":\"object\"}},\"node\":0,\"time\":{time},\
         \"user_defined\":{{\"shared_id\":{id},\"shared_bytes\":10.5}}}}"
    )
}

fn file(tasks: &[String]) -> String {
    let edge = "{\"bytes\":2.0,\"from\":{\"id\":1},\"to\":{\"id\":2},\"messages\":1,\"type\":\"SendRecv\"}";
    format!(
        "{{\"type\":\"LBDatafile\",\"phases\":[{{\"id\":3,\"tasks\":[{}],\"communications\":[{edge}]}}]}}",
        tasks.join(",")
    )
}

fn message(contents: &[(&str, &str)], phase: u64) -> Result<String> {
    let directory = tempfile::tempdir()?;
    for (name, content) in contents {
        std::fs::write(directory.path().join(name), content)?;
    }
    let error = read(directory.path(), phase, LOAD_ONLY).err().ok_or("it was read")?;
    Ok(error.to_string().replace(&directory.path().display().to_string(), "DIR"))
}

#[test]
fn a_problem_comes_back_with_its_tasks_where_the_plan_has_them_also_from_brotli() -> Result {
    let directory = tempfile::tempdir()?;
    let first = file(&[task(1, "1.0"), task(2, "1.0")]);
    let mut packed = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    packed.write_all(first.as_bytes())?;
    std::fs::write(directory.path().join("x.0.json.br"), packed.into_inner())?;
    let empty = "{\"phases\":[{\"id\":3,\"tasks\":[]}]}";
    std::fs::write(directory.path().join("x.1.json"), empty)?;
    let problem = read(directory.path(), 3, LOAD_ONLY)?;
    assert_eq!((problem.snapshot.partitions.len(), problem.ignored), (2, 0));
    assert_eq!(problem.snapshot.blocks, [11, 11], "bytes are rounded up");
    let plan = planner::plan(&problem.snapshot);
    let outcome = problem.outcome(&plan, 0.0);
    assert_eq!((outcome.moves, outcome.w_max_before, outcome.w_max_after), (1, 2.0, 1.0));
    assert_eq!((outcome.memory_max_before, outcome.memory_max_after), (22, 11));
    let written = directory.path().join("out");
    problem.write(&plan, &written)?;
    let again = read(&written, 3, LOAD_ONLY)?;
    let hosts: Vec<usize> = again.snapshot.partitions.iter().map(|it| it.host).collect();
    assert_eq!(hosts, [0, 1]);
    assert_eq!(again.snapshot.edges.len(), 1, "the message goes with its sender");
    assert!(planner::plan(&again.snapshot).moves.is_empty());
    Ok(())
}

#[test]
fn errors_name_the_file_and_the_key() -> Result {
    let good = file(&[task(1, "1.0"), task(2, "1.0")]);
    let cases = [
        (vec![("x.0.json", "{\"phases\":[}")], 3, "DIR/x.0.json:1: not JSON"),
        (vec![("x.0.json", "{}")], 3, "DIR/x.0.json: `phases`: it is missing"),
        (vec![("x.0.json", good.as_str())], 4, "DIR/x.0.json: `phases`: phase 4 is not among them (3)"),
        (
            vec![("x.0.json", good.as_str()), ("x.2.json", good.as_str())],
            3,
            "DIR: there are files of 2 ranks, but none of rank 1",
        ),
        (vec![("readme.txt", "")], 3, "DIR: no file NAME.RANK.json"),
        (vec![("x.0.json.br", "not brotli")], 3, "DIR/x.0.json.br: it cannot be read"),
    ];
    for (contents, phase, expected) in cases {
        let found = message(&contents, phase)?;
        assert!(found.starts_with(expected), "{found}\n  instead of {expected}");
    }
    let bad = [
        (task(1, "-1.0"), "`phases[0].tasks[0].time`: -1 is out of range"),
        (task(1, "\"1\""), "`phases[0].tasks[0].time`: it is not a number"),
        (task(1, "1.0").replace("10.5", "1e300"), "`phases[0].tasks[0].user_defined.shared_bytes`: "),
        (task(1, "1.0").replace("\"id\":1,", ""), "`phases[0].tasks[0].entity.id`: it is missing"),
    ];
    for (task, expected) in bad {
        let found = message(&[("x.0.json", &file(&[task]))], 3)?;
        assert!(found.contains(expected), "{found}\n  instead of {expected}");
    }
    let twice = message(&[("x.0.json", &file(&[task(1, "1"), task(1, "1")]))], 3)?;
    assert!(twice.contains("tasks[1].entity.id`: 1 is the id of another task"), "{twice}");
    Ok(())
}

#[test]
fn what_was_measured_comes_back_as_a_problem() -> Result {
    let host = |name: &str, state: &str, cpus: u32| -> Result<control::HostView> {
        Ok(serde_json::from_value(
            serde_json::json!({"name": name, "state": state, "cpus": (0..cpus).collect::<Vec<_>>(),
            "memory_bytes": 1, "memory_used_bytes": 0, "partitions": 0, "load": 0.0, "utilisation": 0.0, "silent_s": null,
            "labels": []}),
        )?)
    };
    let partition = |rank: u32, host: &str, load: f64, ended: Option<u8>| -> Result<control::PartitionView> {
        Ok(serde_json::from_value(
            serde_json::json!({"application": "heat-1", "rank": rank, "host": host, "epoch": 1,
            "state": "running", "pid": 1, "exit_status": ended, "load": load, "steal": 0.0, "progress": 1,
            "resident_kib": 2, "dirty_pages_per_s": null, "moves": 0, "last_blackout_ms": null}),
        )?)
    };
    let pair = |from, to, bytes_per_s| control::TrafficPair {
        from,
        to,
        remote: true,
        bytes_per_s,
        bytes: 0,
        messages: 5,
        round_trip_ns: None,
    };
    let traffic = control::TrafficView {
        application: "heat-1".parse()?,
        ranks: 4,
        remote_bytes_per_s: 0.0,
        local_bytes_per_s: 0.0,
        // Rank 3 has ended: nobody sends to it any more.
        pairs: vec![pair(0, 2, 1500.0), pair(2, 0, 10.0), pair(0, 3, 9.0)],
    };
    let partitions = vec![
        partition(0, "a", 0.5, None)?,
        partition(1, "a", 0.25, None)?,
        partition(2, "c", 1.0, None)?,
        partition(3, "c", 0.0, Some(0))?,
    ];
    let hosts = vec![host("a", "active", 1)?, host("b", "lost", 1)?, host("c", "active", 2)?];
    let measured = export::Measured { hosts, partitions, traffic: vec![traffic] };
    let directory = tempfile::tempdir()?;
    let exported = export::write(&measured, directory.path())?;
    assert_eq!((exported.tasks, exported.communications), (3, 2));
    let names: Vec<&str> = exported.hosts.iter().map(control::HostName::as_str).collect();
    assert_eq!(names, ["a", "c"]);
    let again = read(directory.path(), 0, LOAD_ONLY)?.snapshot;
    let found: Vec<(usize, f64, u64)> =
        again.partitions.iter().map(|it| (it.host, it.load, it.memory)).collect();
    assert_eq!(found, [(0, 0.5, 2048), (0, 0.25, 2048), (1, 1.0, 2048)]);
    let edges: Vec<(usize, usize, f64)> = again.edges.iter().map(|it| (it.from, it.to, it.bytes)).collect();
    assert_eq!(edges, [(0, 2, 1500.0), (2, 0, 10.0)]);
    let alphas: Vec<f64> = again.hosts.iter().map(|it| it.alpha).collect();
    assert_eq!(alphas, [1.0, 0.5]);
    Ok(())
}
