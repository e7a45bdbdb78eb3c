//! Rings that wrap, gaps, moves, limits, and the bytes that are promised.

use control::{HostFacts, PartitionReport, PartitionState, PeerTraffic};

use super::*;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn counters(seconds: u64) -> Counters {
    let peer = PeerTraffic {
        rank: 1,
        bytes_sent: 100 * seconds,
        bytes_received: 0,
        messages_sent: 2 * seconds,
        messages_received: 0,
        wait_ns: 0,
        round_trip_ns: Some(7_000),
        round_trip_p99_ns: None,
    };
    Counters {
        run_ns: 400_000_000 * seconds,
        wait_ns: 600_000_000 * seconds,
        elapsed_ns: 1_000_000_000 * seconds,
        resident_kib: 4,
        peers: vec![peer],
        ..Counters::default()
    }
}

fn partition(application: &str, rank: Rank, epoch: Epoch, counters: Counters) -> Result<PartitionReport> {
    Ok(PartitionReport {
        application: application.parse()?,
        rank,
        epoch,
        state: PartitionState::Running,
        sending: false,
        awaits_switch: false,
        detail: None,
        pid: None,
        fabric: None,
        end: None,
        counters: Some(counters),
    })
}

fn report(host: &str, partitions: Vec<PartitionReport>) -> Result<Report> {
    let facts = HostFacts {
        cpus: vec![0],
        memory_bytes: 1,
        standby: false,
        labels: BTreeMap::new(),
        migrate_address: String::new(),
        fabric_address: None,
        state_directory: "/x".into(),
        version: String::new(),
    };
    let (results, output) = (Vec::new(), Vec::new());
    Ok(Report {
        protocol: 1,
        host: host.parse()?,
        session: 1,
        cluster: None,
        facts,
        partitions,
        results,
        output,
    })
}

fn known(_: &ApplicationId, _: Rank, _: Epoch) -> Option<Load> {
    Some(Load { mean: 0.4, variance_of_mean: 0.0004, steal: 0.0, samples: 9, changed: false })
}

fn of(application: &str, names: &[&str]) -> Result<Selection> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Selection { application: Some(application.parse()?), names, ..Selection::default() })
}

#[test]
fn intervals_are_means_gaps_are_null_and_a_move_is_not_mistaken_for_a_rate() -> Result {
    let mut history = History::default();
    // Two samples a second apart in the first interval, none in the second, one in the third, then a move.
    for (now_ms, epoch, seconds) in
        [(10_000, 1, 0), (11_000, 1, 1), (12_000, 1, 3), (21_000, 1, 13), (22_000, 2, 99)]
    {
        history.observe(now_ms, &report("a", vec![partition("x-1", 0, epoch, counters(seconds))?])?, known);
    }
    let answer = history.select(&of("x-1", &["sent_bytes_per_s", "run", "round_trip_us"])?)?;
    assert_eq!(answer.names, ["sent_bytes_per_s", "run", "round_trip_us"]);
    let it = &answer.series[0];
    assert_eq!((it.first_ms, it.rank), (10_000, Some(0)));
    assert_eq!(it.values[0], [Some(100.0), None, Some(100.0)]);
    assert_eq!(it.values[1], [Some(0.4), None, Some(0.4)]);
    assert_eq!(it.values[2], [Some(7.0), None, Some(7.0)]);
    let later = history.select(&Selection { since_ms: 15_001, ..of("x-1", &["load"])? })?;
    assert_eq!((later.series[0].first_ms, later.series[0].values[0].len()), (20_000, 1));
    let host = history.select(&Selection { host: Some("a".parse()?), ..Selection::default() })?;
    assert_eq!(host.names, HOST_NAMES);
    assert_eq!(host.series[0].values[0][0], Some(0.4));
    assert_eq!(host.series[0].values[2][0], Some(4096.0));
    Ok(())
}

#[test]
fn what_is_asked_for_and_not_there_is_said() -> Result {
    let history = History::default();
    assert_eq!(history.select(&Selection::default()), Err(SeriesError::Nothing));
    let error = history.select(&of("x-1", &["loud"])?).err().ok_or("it was found")?;
    assert!(error.to_string().contains("no series `loud`; there are load, load_noise"), "{error}");
    assert!(history.select(&of("x-1", &[])?)?.series.is_empty());
    Ok(())
}

#[test]
fn a_thousand_hosts_and_ten_thousand_partitions_take_the_bytes_that_are_promised() -> Result {
    let mut history = History::default();
    // More intervals than are kept, and a pause longer than all of them.
    for step in (0..KEPT as u64 + 20).chain([3 * KEPT as u64]) {
        for host in 0..10 {
            let partitions = (0..10).map(|rank| partition("x-1", 10 * host + rank, 1, counters(step)));
            let report = report(&format!("h{host}"), partitions.collect::<Result<Vec<_>>>()?)?;
            history.observe(step * PERIOD_MS, &report, known);
        }
    }
    let all = history.select(&of("x-1", &["load"])?)?;
    assert!(all.series.iter().all(|it| it.values[0].len() == KEPT));
    let (partition, host) = (
        history.partitions.values().map(|it| it.track.bytes() + size_of::<Before>()).max().unwrap_or(0),
        history.hosts.values().map(Track::bytes).max().unwrap_or(0),
    );
    let promised = 10_000 * partition + 1_000 * host;
    assert!(
        (60_000_000..71_000_000).contains(&promised),
        "{partition} bytes a partition, {host} a host: {promised}"
    );
    println!("{partition} bytes a partition, {host} a host: {promised} in all");
    assert_eq!(history.bytes(), 100 * partition + 10 * host);
    history.retain(|_| false);
    assert_eq!(history.bytes(), 10 * host);
    Ok(())
}

#[test]
fn an_answer_is_bounded() -> Result {
    let mut history = History::default();
    for step in 0..2 {
        let partitions = (0..4_000).map(|rank| partition("x-1", rank, 1, counters(step)));
        let report = report("h", partitions.collect::<Result<Vec<_>>>()?)?;
        history.observe(step * KEPT as u64 * PERIOD_MS, &report, known);
    }
    assert_eq!(history.select(&of("x-1", &[])?), Err(SeriesError::TooMuch));
    assert!(history.select(&Selection { rank: Some(7), ..of("x-1", &[])? }).is_ok());
    Ok(())
}
