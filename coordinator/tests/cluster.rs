//! Whole clusters of real processes: what users rely on while everything goes well, and while things die.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, QUICK, Result, STILL, assert_lines};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn an_application_runs_and_its_output_and_status_pass_through() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let output = cluster.submit_and_wait(&cluster.manifest(3, 50, 5, "")?)?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_lines(&output, 3, 50);
    let app = cluster.app("app-1")?;
    assert_eq!((&app["state"], &app["exit_status"]), (&"done".into(), &0.into()));
    let output =
        cluster.submit_and_wait(&cluster.manifest(2, 5, 5, "env = { EXIT = \"7\" }")?)?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(7));
    let logs = cluster.client(&["logs", "app-1", "--rank", "2"])?;
    assert_eq!(String::from_utf8_lossy(&logs.stdout).lines().count(), 50);
    cluster.wait_nothing_left()
}

#[test]
fn strategies_place_and_bad_manifests_are_refused() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b", "c --standby"])?;
    for (more, placement) in [
        ("strategy = \"spread\"", "abab"),
        ("strategy = \"pack\"", "abab"),
        ("strategy = \"pinned\"\n[pinned]\n0 = \"b\"\n1 = \"b\"\n2 = \"b\"\n3 = \"a\"", "bbba"),
    ] {
        let id = cluster.submit(&cluster.manifest(4, 10_000, 50, more)?)?;
        cluster.wait_running(&id)?;
        assert_eq!(cluster.placement()?, placement, "{more}");
        cluster.client(&["stop", &id])?;
        let app = cluster.wait_state(&id, "failed")?;
        assert_eq!(app["exit_status"], 143);
    }
    cluster.wait_nothing_left()?;
    let refused =
        cluster.client(&["submit", &cluster.manifest(4, 1, 1, "rank = 3")?.display().to_string()])?;
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("app.toml:6: unknown field `rank`"), "{text}");
    let nowhere = cluster.manifest(1, 1, 1, "strategy = \"pinned\"\n[pinned]\n0 = \"z\"")?;
    let refused = cluster.client(&["submit", &nowhere.display().to_string()])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("host z, which is not in the cluster"));
    let plain = cluster.client(&["serve", "--listen", "tcp:0.0.0.0:0", "--state", "/nonexistent/x"])?;
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("--insecure"));
    Ok(())
}

#[test]
fn an_imbalance_is_found_explained_and_cured_without_oscillation() -> Result {
    let cluster = Cluster::start(QUICK, &["a", "b"])?;
    let more = "strategy = \"pinned\"\nmigrate = true\n[env]\nLOAD_0 = \"0.3\"\nLOAD_1 = \"0.3\"\nLOAD_2 = \"0.2\"\n\
        LOAD_3 = \"0.1\"\n[pinned]\n0 = \"a\"\n1 = \"a\"\n2 = \"a\"\n3 = \"b\"";
    let manifest = cluster.held_manifest(4, 1_500, 10, more)?;
    let waiting = cluster.submit_and_wait(&manifest)?;
    cluster.wait_running("app-1")?;
    let plan = cluster.client(&["plan", "--explain"])?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("GATE") && plan.contains("HOST"), "{plan}");
    let balanced = |it: &Cluster| {
        Ok(it.json(&["plan"])?["imbalance"].as_f64().is_some_and(|imbalance| imbalance < 0.15))
    };
    cluster.wait("a move", |it| {
        Ok(it.app("app-1")?["moves"].as_array().is_some_and(|moves| !moves.is_empty()))
    })?;
    // Time to do too much in.
    std::thread::sleep(Duration::from_secs(2));
    cluster.wait("balance", balanced)?;
    cluster.let_end()?;
    let output = waiting.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0));
    assert_lines(&output, 4, 1_500);
    let app = cluster.app("app-1")?;
    let moves = app["moves"].as_array().ok_or("no moves")?;
    assert!((1..=2).contains(&moves.len()), "{moves:?}");
    let reason = moves[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("imbalance") && moves[0]["blackout_ms"] == 2.5, "{moves:?}");
    let explained = cluster.client(&["explain", "1"])?;
    assert!(String::from_utf8_lossy(&explained.stdout).contains("payback seconds"));
    cluster.wait_nothing_left()
}

#[test]
fn output_over_many_moves_is_neither_lost_nor_doubled_and_peers_are_told() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b", "c"])?;
    let peers = cluster.path().join("peers");
    let manifest =
        cluster.held_manifest(3, 1_500, 4, &format!("env = {{ PEERS = \"{}\" }}", peers.display()))?;
    let waiting = cluster.submit_and_wait(&manifest)?;
    cluster.wait_running("app-1")?;
    for (rank, host) in (0..).zip(["b", "c", "a", "c", "a", "b"]) {
        let order = cluster.move_rank("app-1", rank % 3, host)?;
        assert_eq!(order.status.code(), Some(0), "{order:?}");
        assert!(String::from_utf8_lossy(&order.stdout).contains("done"));
    }
    let again = cluster.move_rank("app-1", 2, "b")?;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("it is there already"));
    // They have to be told while they run.
    cluster.wait("peers are told", |_| {
        let told = std::fs::read_to_string(&peers)?;
        let misses = |line: &&&str| !told.lines().any(|it| it == **line);
        match ["0 2 3", "1 2 3", "2 0 3"].iter().find(misses) {
            None => Ok(true),
            Some(line) => Err(format!("{line} is not in\n{told}").into()),
        }
    })?;
    cluster.let_end()?;
    let output = waiting.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_lines(&output, 3, 1_500);
    let moves = cluster.app("app-1")?["moves"].as_array().map_or(0, Vec::len);
    assert_eq!(moves, 6);
    cluster.wait_nothing_left()
}

#[test]
fn a_killed_vmm_ends_its_application_soon_and_nothing_is_left() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let waiting = cluster.submit_and_wait(&cluster.manifest(4, 100_000, 20, "")?)?;
    cluster.wait_running("app-1")?;
    let pid = cluster.partition(2)?["pid"].as_i64().ok_or("no pid")?;
    let begin = Instant::now();
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    let output = waiting.wait_with_output()?;
    // By itself it would end after half an hour.
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert_eq!(output.status.code(), Some(137));
    let app = cluster.app("app-1")?;
    assert_eq!(app["state"], "failed");
    assert!(
        app["reason"].as_str().is_some_and(|it| it.contains("rank 2 was killed (signal 9) on host a")),
        "{app}"
    );
    cluster.wait_nothing_left()
}

#[test]
fn a_program_that_is_refused_fails_with_the_vmm_s_words() -> Result {
    let cluster = Cluster::start(STILL, &["a"])?;
    let manifest = cluster.manifest(2, 1, 1, "")?;
    std::fs::write(cluster.path().join("refused"), b"x")?;
    let text = std::fs::read_to_string(&manifest)?.replace("\"prog\"", "\"refused\"");
    std::fs::write(&manifest, text)?;
    let output = cluster.submit_and_wait(&manifest)?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused: not an ELF file"), "{output:?}");
    cluster.wait_nothing_left()
}

#[test]
fn a_killed_coordinator_finds_its_application_again_and_goes_on_moving() -> Result {
    let mut cluster = Cluster::start(STILL, &["a", "b"])?;
    let waiting = cluster.submit_and_wait(&cluster.held_manifest(2, 800, 10, "")?)?;
    cluster.wait_running("app-1")?;
    assert_eq!(cluster.move_rank("app-1", 0, "b")?.status.code(), Some(0));
    cluster.kill_coordinator()?;
    std::thread::sleep(Duration::from_millis(500));
    cluster.start_coordinator()?;
    cluster.wait("running again", |it| {
        Ok(it.partition(0)?["state"] == "running" && it.partition(1)?["state"] == "running")
    })?;
    assert_eq!(cluster.placement()?, "bb");
    let order = cluster.move_rank("app-1", 0, "a")?;
    assert_eq!(order.status.code(), Some(0), "{order:?}");
    assert_eq!(cluster.partition(0)?["epoch"], 3);
    cluster.let_end()?;
    let output = waiting.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let app = cluster.app("app-1")?;
    assert_eq!(app["moves"].as_array().map(Vec::len), Some(2));
    cluster.wait_nothing_left()
}

/// When a coordinator is killed that was told to move a partition.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    /// Before anybody knows whether it took the order.
    AtOnce,
    /// While memory is copied, and the move is over before there is a coordinator again.
    AndNotThere,
    /// While memory is copied, and the move goes on when there is a coordinator again.
    AndThereAgain,
    Afterwards,
}

#[test]
fn a_coordinator_killed_in_the_middle_of_a_move_lets_one_copy_go_on() -> Result {
    use Killed::{Afterwards, AndNotThere, AndThereAgain, AtOnce};
    for killed in [AtOnce, AndNotThere, AndThereAgain, Afterwards] {
        let mut cluster = Cluster::start(STILL, &["a", "b"])?;
        let more = format!("env = {{ {} }}", cluster.held_moves());
        let id = cluster.submit(&cluster.held_manifest(2, 50, 10, &more)?)?;
        cluster.wait_running(&id)?;
        let mut order = cluster.command(&["migrate", &id, "0", "b"]).stderr(Stdio::null()).spawn()?;
        match killed {
            AtOnce => {}
            AndNotThere | AndThereAgain => cluster.wait_move(&id, "sending")?,
            Afterwards => {
                cluster.let_move()?;
                cluster.wait_move(&id, "done")?;
            }
        }
        cluster.kill_coordinator()?;
        order.wait()?;
        if killed == AndNotThere {
            cluster.let_move()?;
            // Its source ends when it has moved.
            cluster.wait("it has moved", |it| Ok(it.vmms()?.iter().all(|it| !it.contains("/a/p/"))))?;
        }
        cluster.start_coordinator()?;
        cluster.let_move()?;
        cluster
            .wait("one copy each, and no move", |it| {
                let app = it.app_in_state(&id, "running")?;
                let moves = app["other_moves"].as_array().ok_or("no list")?;
                let runs = |rank| Ok::<_, common::Error>(it.partition(rank)?["state"] == "running");
                let is_open = moves.iter().any(|it| it["state"] != "failed");
                Ok(!is_open && runs(0)? && runs(1)? && it.vmms()?.len() == 2)
            })
            .map_err(|error| format!("killed {killed:?}: {error}"))?;
        let placement = cluster.placement()?;
        assert!(placement == "bb" || killed == AtOnce && placement == "ab", "killed {killed:?}: {placement}");
        cluster.let_end()?;
        let app = cluster.wait_state(&id, "done")?;
        assert_eq!(app["exit_status"], 0, "killed {killed:?}");
        cluster.wait_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_coordinator_with_an_old_copy_of_its_journal_cannot_start_an_epoch_again() -> Result {
    let mut cluster = Cluster::start(STILL, &["a"])?;
    let (state, copy) = (cluster.path().join("state.redb"), cluster.path().join("old.redb"));
    cluster.kill_coordinator()?;
    std::fs::copy(&state, &copy)?;
    cluster.start_coordinator()?;
    let is_back = |it: &Cluster| Ok(it.json(&["hosts"])?[0]["silent_s"].is_number());
    cluster.wait("a is back", is_back)?;
    let id = cluster.submit(&cluster.manifest(1, 5, 5, "")?)?;
    cluster.wait_state(&id, "done")?;
    cluster.kill_coordinator()?;
    std::fs::rename(&copy, &state)?;
    cluster.start_coordinator()?;
    cluster.wait("a is back", is_back)?;
    assert_eq!(cluster.submit(&cluster.manifest(1, 5, 5, "")?)?, id, "the name is given again");
    let app = cluster.wait_state(&id, "failed")?;
    assert!(app["reason"].as_str().is_some_and(|it| it.contains("could not be started")), "{app}");
    cluster.wait_nothing_left()
}

#[test]
fn a_dead_agent_fails_its_applications_and_no_vmm_outlives_it() -> Result {
    let mut cluster = Cluster::start(&["--imbalance-threshold=1000000", "--host-timeout-s=5"], &["a", "b"])?;
    let id = cluster.submit(&cluster.manifest(4, 100_000, 20, "")?)?;
    cluster.wait_running(&id)?;
    cluster.end_agent("b", Signal::SIGKILL)?;
    let app = cluster.wait_state(&id, "failed")?;
    assert!(app["reason"].as_str().is_some_and(|it| it.contains("host b")), "{app}");
    assert!(cluster.kinds()?.contains(&"host-lost".to_owned()));
    cluster.wait("no vmm", |it| Ok(it.vmms()?.is_empty()))?;
    cluster.start_agent("b")?;
    cluster.wait("b is back", |it| Ok(it.json(&["hosts"])?[1]["state"] == "active"))?;
    let id = cluster.submit(&cluster.manifest(4, 100_000, 20, "")?)?;
    cluster.wait_running(&id)?;
    // An agent that is told to end takes its partitions with it and says so.
    cluster.end_agent("b", Signal::SIGTERM)?;
    cluster.wait_state(&id, "failed")?;
    cluster.wait_nothing_left()
}

#[test]
fn a_failed_move_leaves_the_partition_where_it_was_and_movable() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let waiting =
        cluster.submit_and_wait(&cluster.held_manifest(1, 400, 10, "env = { MIGRATE = \"fail\" }")?)?;
    cluster.wait_running("app-1")?;
    let order = cluster.client(&["migrate", "app-1", "0", "b"])?;
    assert_eq!(order.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&order.stdout).contains("the destination hung up"), "{order:?}");
    let order = cluster.client(&["migrate", "app-1", "0", "b"])?;
    assert_eq!(order.status.code(), Some(0), "{order:?}");
    assert_eq!(cluster.partition(0)?["epoch"], 3, "the failed move's epoch is not used again");
    cluster.let_end()?;
    let output = waiting.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0));
    assert_lines(&output, 1, 400);
    cluster.wait_nothing_left()
}

#[test]
fn a_program_that_ends_during_a_move_is_said_to_have_ended_and_was_never_in_doubt() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let more = "env = { MIGRATE = \"program-ends\" }";
    let waiting = cluster.submit_and_wait(&cluster.held_manifest(1, 400, 10, more)?)?;
    cluster.wait_running("app-1")?;
    let order = cluster.client(&["migrate", "app-1", "0", "b"])?;
    assert_eq!(order.status.code(), Some(1));
    assert_eq!(waiting.wait_with_output()?.status.code(), Some(0));
    let events = cluster.json(&["events"])?;
    let events = events.as_array().ok_or("no events")?;
    assert!(!events.iter().any(|it| it["kind"] == "move-in-doubt"), "{events:?}");
    let failed = events.iter().find(|it| it["kind"] == "move-failed").ok_or("no event")?;
    assert_eq!(failed["text"], "move 1 failed; the partition has ended");
    assert_eq!(failed["reason"], "the program ended during the move, with status 0");
    cluster.wait_nothing_left()
}

#[test]
fn an_unanswered_commit_is_settled_so_that_exactly_one_copy_goes_on() -> Result {
    for (trouble, state, host) in [
        ("in-doubt-lost", "failed", "a"),
        ("in-doubt-both", "failed", "a"),
        ("in-doubt-delivered", "done", "b"),
        ("die-after-delivery", "done", "b"),
    ] {
        let cluster = Cluster::start(STILL, &["a", "b"])?;
        let more = format!("env = {{ MIGRATE = \"{trouble}\" }}");
        let waiting = cluster.submit_and_wait(&cluster.held_manifest(1, 400, 10, &more)?)?;
        cluster.wait_running("app-1")?;
        let order =
            cluster.json(&["migrate", "app-1", "0", "b"]).or_else(|_| cluster.json(&["explain", "1"]))?;
        assert_eq!(order["state"], state, "{trouble}: {order}");
        assert!(cluster.kinds()?.contains(&"move-in-doubt".to_owned()), "{trouble}");
        assert_eq!(cluster.placement()?, host, "{trouble}");
        cluster.let_end()?;
        let output = waiting.wait_with_output()?;
        assert_eq!(output.status.code(), Some(0), "{trouble}: {output:?}");
        assert_lines(&output, 1, 400);
        cluster.wait_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_destination_killed_during_a_move_does_not_hurt() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let more = format!("env = {{ {} }}", cluster.held_moves());
    let waiting = cluster.submit_and_wait(&cluster.held_manifest(1, 300, 10, &more)?)?;
    cluster.wait_running("app-1")?;
    let order = cluster.command(&["migrate", "app-1", "0", "b"]).stdout(Stdio::null()).spawn()?;
    cluster.wait_move("app-1", "sending")?;
    let receiver = Pid::from_raw(find_receiver(&cluster)?);
    kill(receiver, Signal::SIGKILL)?;
    cluster.wait("it is dead", |it| Ok(find_receiver(it).is_err()))?;
    cluster.let_move()?;
    assert_eq!(order.wait_with_output()?.status.code(), Some(1));
    cluster.let_end()?;
    let output = waiting.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_lines(&output, 1, 300);
    cluster.wait_nothing_left()
}

fn find_receiver(cluster: &Cluster) -> Result<i32> {
    let mine = cluster.path().display().to_string();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("fake_vmm receive") && line.contains(&mine) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Err("no receiver".into())
}

#[test]
fn a_standby_host_is_activated_when_the_others_are_overloaded() -> Result {
    for activate in [true, false] {
        let mut options = QUICK.to_vec();
        if !activate {
            options.push("--no-activate");
        }
        let cluster = Cluster::start(&options, &["a", "b", "c --standby"])?;
        let id = cluster.submit(&cluster.manifest(4, 100_000, 50, "env = { LOAD = \"0.48\" }")?)?;
        cluster.wait_running(&id)?;
        let kind = if activate { "host-activated" } else { "overloaded" };
        cluster.wait(kind, |it| Ok(it.kinds()?.iter().any(|it| it == kind)))?;
        if activate {
            cluster.wait("a move to c", |it| Ok(it.placement()?.contains('c')))?;
        } else {
            assert!(!cluster.placement()?.contains('c'));
        }
    }
    Ok(())
}

/// Sets a policy from text.
fn set_policy(cluster: &Cluster, text: &str) -> Result {
    let path = cluster.path().join("policy.toml");
    std::fs::write(&path, text)?;
    let set = cluster.client(&["policy", "set", &path.display().to_string()])?;
    assert_eq!(set.status.code(), Some(0), "{set:?}");
    Ok(())
}

/// How soon is in `pool.rs`.
#[test]
fn a_rule_that_is_added_at_run_time_and_broken_is_cured() -> Result {
    let mut cluster = Cluster::start(QUICK, &["a", "b"])?;
    let more = "strategy = \"pinned\"\nmigrate = true\n[pinned]\n0 = \"a\"\n1 = \"a\"";
    let id = cluster.submit(&cluster.held_manifest(2, 10, 10, more)?)?;
    cluster.wait_running(&id)?;
    assert_eq!(cluster.placement()?, "aa");
    let bad = cluster.path().join("bad.toml");
    std::fs::write(&bad, "[[anti-affinity]]\npartitions = [\"a b\"]\n")?;
    let refused = cluster.client(&["policy", "set", &bad.display().to_string()])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bad.toml:2: `partitions`"), "{refused:?}");
    set_policy(&cluster, "[[anti-affinity]]\nname = \"apart\"\npartitions = [\"app\"]\n")?;
    cluster.wait("apart", |it| Ok(it.placement()? != "aa"))?;
    let explained = cluster.json(&["explain", "1"])?;
    assert!(explained["reason"].as_str().is_some_and(|it| it.contains("rule apart")), "{explained}");
    assert_eq!(explained["explanation"]["policy"], 1);
    let refused = cluster.client(&["migrate", &id, "0", "b"])?;
    assert_eq!(refused.status.code(), Some(1), "a user's move may not break a rule either: {refused:?}");
    // It is in the journal.
    cluster.kill_coordinator()?;
    cluster.start_coordinator()?;
    assert_eq!(cluster.json(&["policy", "show"])?["version"], 1);
    Ok(())
}

#[test]
fn an_image_runs_without_what_it_was_made_of_and_not_if_it_was_changed() -> Result {
    let cluster = Cluster::start(STILL, &["a"])?;
    let manifest = cluster.manifest(2, 20, 5, "")?;
    let image = cluster.path().join("image");
    let (manifest_text, image_text) = (manifest.display().to_string(), image.display().to_string());
    let packed = cluster.client(&["pack", &manifest_text, "--out", &image_text])?;
    assert_eq!(packed.status.code(), Some(0), "{packed:?}");
    std::fs::remove_file(&manifest)?;
    std::fs::remove_file(cluster.path().join("prog"))?;
    let output = cluster.submit_and_wait(&image)?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_lines(&output, 2, 20);
    let specification = cluster.json(&["submit", &image_text])?;
    assert_eq!(specification["application"], "app-2");
    let blobs = std::fs::read_dir(image.join("blobs/sha256"))?;
    let program =
        blobs.filter_map(std::result::Result::ok).find(|it| it.metadata().is_ok_and(|it| it.len() == 1));
    std::fs::write(program.ok_or("no program")?.path(), b"y")?;
    let refused = cluster.client(&["submit", &image_text])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("contents have changed"), "{refused:?}");
    cluster.wait_nothing_left()
}

#[test]
fn an_application_that_does_not_fit_waits_and_begins_when_there_is_room() -> Result {
    let cluster = Cluster::start(STILL, &["a"])?;
    set_policy(&cluster, "[limits]\npartitions_per_processor = 2\n")?;
    let first = cluster.submit(&cluster.manifest(2, 100_000, 10, "")?)?;
    cluster.wait_running(&first)?;
    let low = cluster.submit(&cluster.manifest(1, 10, 10, "")?)?;
    let high = cluster.submit(&cluster.manifest(2, 10, 10, "priority = 1")?)?;
    let waits = cluster.wait_state(&low, "queued")?;
    assert!(waits["reason"].as_str().is_some_and(|it| it.contains("partitions_per_processor")), "{waits}");
    let explained = cluster.client(&["explain", &high])?;
    assert!(String::from_utf8_lossy(&explained.stdout).contains("queued"), "{explained:?}");
    cluster.client(&["stop", &first])?;
    for id in [&high, &low] {
        cluster.wait_state(id, "done")?;
    }
    let events = cluster.json(&["events"])?;
    let started = |id: &str| {
        let mut all = events.as_array().into_iter().flatten();
        all.position(|it| it["kind"] == "running" && it["application"] == id)
    };
    let (high, low) = (started(&high).ok_or("never ran")?, started(&low).ok_or("never ran")?);
    assert!(high < low, "the one of higher priority goes first");
    cluster.wait_nothing_left()
}

#[test]
fn a_drained_host_is_emptied_in_overlapping_moves_and_comes_back() -> Result {
    let cluster = Cluster::start(QUICK, &["a", "b"])?;
    let more = format!("strategy = \"spread\"\nenv = {{ {} }}", cluster.held_moves());
    let id = cluster.submit(&cluster.held_manifest(6, 10, 10, &more)?)?;
    cluster.wait_running(&id)?;
    assert_eq!(cluster.placement()?, "ababab");
    assert_eq!(cluster.client(&["drain", "b"])?.status.code(), Some(0));
    cluster.wait("two moves at once", |it| {
        let app = it.app(&id)?;
        let moves = app["other_moves"].as_array().ok_or("no list")?;
        assert!(moves.len() <= 2, "more than two out of one host: {moves:?}");
        Ok(moves.iter().filter(|it| it["state"] == "sending").count() == 2)
    })?;
    cluster.let_move()?;
    let state = |it: &Cluster| Ok::<_, common::Error>(it.json(&["hosts"])?[1]["state"].clone());
    cluster.wait("b is empty", |it| Ok(state(it)? == "empty"))?;
    assert_eq!(cluster.placement()?, "aaaaaa");
    let refused = cluster.client(&["migrate", &id, "0", "b"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("takes nothing"), "{refused:?}");
    assert_eq!(cluster.client(&["activate", "b"])?.status.code(), Some(0));
    assert_eq!(state(&cluster)?, "active");
    let explained = cluster.client(&["explain", "b"])?;
    assert!(String::from_utf8_lossy(&explained.stdout).contains("asked by an operator"), "{explained:?}");
    let table = cluster.client(&["events", "--calibration"])?;
    assert!(String::from_utf8_lossy(&table.stdout).contains("p90"), "{table:?}");
    Ok(())
}
