//! Monitoring by the API, over real processes: series, communication matrix.

mod common;

use common::{Cluster, Result, STILL};

#[test]
fn loads_and_traffic_are_kept_over_time_and_can_be_asked_for() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let more = "env = { LOAD_0 = \"0.5\", TALK_0 = \"1,2\", TALK_2 = \"1\" }";
    let id = cluster.submit(&cluster.manifest(3, 100_000, 20, more)?)?;
    cluster.wait_running(&id)?;
    cluster.wait("loads", 20, |it| {
        let answer = it.json(&["series", &id, "--rank=0", "--names=load,wait,sent_bytes_per_s"])?;
        let last = |column: usize| answer["series"][0]["values"][column].as_array()?.last()?.as_f64();
        let near =
            |found: Option<f64>, wanted: f64| found.is_some_and(|it| (it - wanted).abs() < 0.2 * wanted);
        Ok(near(last(0), 0.5) && near(last(1), 0.5) && last(2).is_some_and(|it| it > 500.0))
    })?;
    let host = cluster.json(&["series", "--host=a"])?;
    assert_eq!(host["names"].as_array().map(Vec::len), Some(4), "{host}");
    assert_eq!(host["series"][0]["host"], "a");
    let wrong = cluster.client(&["series", &id, "--names=loud"])?;
    assert_eq!(wrong.status.code(), Some(1));
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(text.contains("no series `loud`; there are load,"), "{text}");
    cluster.wait("all pairs", 10, |it| {
        Ok(it.json(&["traffic", &id])?["pairs"].as_array().is_some_and(|pairs| pairs.len() == 3))
    })?;
    let matrix = cluster.json(&["traffic", &id])?;
    let pair = &matrix["pairs"][0];
    assert_eq!((&pair["from"], &pair["to"], &pair["remote"]), (&0.into(), &1.into(), &true.into()));
    assert_eq!(pair["round_trip_ns"], 12_000);
    assert_eq!(pair["bytes"].as_u64(), pair["messages"].as_u64().map(|it| 100 * it));
    let text = String::from_utf8_lossy(&cluster.client(&["traffic", &id])?.stdout).into_owned();
    assert!(text.contains("B/s FROM\\TO") && text.contains("12.0 us"), "{text}");
    let none = cluster.client(&["traffic", "nothing-1"])?;
    assert_eq!(none.status.code(), Some(1));
    Ok(())
}
