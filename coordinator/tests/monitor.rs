//! Monitoring by the API, over real processes: series, communication matrix.

mod common;

use common::{Cluster, Result, STILL};

#[test]
fn loads_and_traffic_are_kept_over_time_and_can_be_asked_for() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let more = "env = { LOAD_0 = \"0.5\", TALK_0 = \"1,2\", TALK_2 = \"1\" }";
    let id = cluster.submit(&cluster.manifest(3, 100_000, 20, more)?)?;
    cluster.wait_running(&id)?;
    cluster.wait("loads", |it| {
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
    cluster.wait("all pairs", |it| {
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

#[test]
fn coordinator_and_agents_export_metrics_with_the_numbers_that_the_client_shows() -> Result {
    let port = common::free_port()?;
    let cluster = Cluster::start(STILL, &[&format!("a --metrics tcp:127.0.0.1:{port}"), "b"])?;
    let id =
        cluster.submit(&cluster.manifest(2, 100_000, 20, "env = { LOAD = \"0.5\", TALK_0 = \"1\" }")?)?;
    cluster.wait_running(&id)?;
    assert!(cluster.move_rank(&id, 0, "b")?.status.success());
    let lines = [
        "partita_moves_total{reason=\"user\",state=\"done\"} 1.0".to_owned(),
        "partita_move_blackout_seconds_bucket{le=\"0.003\"} 1".to_owned(),
        "partita_host_partitions{host=\"b\"} 2.0".to_owned(),
        "partita_host_state{host=\"a\",state=\"active\"} 1.0".to_owned(),
        format!("partita_partition_sent_bytes_total{{application=\"{id}\",rank=\"0\"}}"),
        format!("partita_partition_load{{application=\"{id}\",rank=\"1\",host=\"b\"}} 0."),
        format!("partita_application_time{{application=\"{id}\"}}"),
        "partita_plan_seconds_count".to_owned(),
        "partita_gate_rejections_total{gate=\"imbalance\"}".to_owned(),
        "partita_fencing_token 1.0".to_owned(),
    ];
    cluster.wait("all metrics", |it| {
        let text = it.get("/metrics", "", |_| false)?;
        match lines.iter().find(|line| !text.contains(line.as_str())) {
            None => Ok(true),
            Some(line) => Err(format!("{line} is not in\n{text}").into()),
        }
    })?;
    assert!(cluster.move_rank(&id, 0, "a")?.status.success());
    let wanted = format!("partita_agent_partition_run_seconds_total{{application=\"{id}\",rank=\"0\"}}");
    cluster.wait("the agent's metrics", |_| {
        let text = common::get(port, "/metrics", "", |_| false)?;
        Ok(text.contains("application/openmetrics-text")
            && text.contains(&wanted)
            && text.ends_with("# EOF\n"))
    })
}

#[test]
fn events_come_as_a_stream_that_goes_on_where_it_was_left() -> Result {
    let cluster = Cluster::start(STILL, &["a"])?;
    // Of whole events only: what was read may end anywhere.
    let ids = |text: &str| -> Vec<u64> {
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let lines = whole.lines().filter_map(|line| line.strip_prefix("id: "));
        lines.filter_map(|id| id.parse().ok()).collect()
    };
    let has_whole = |text: &str, kind: &str| {
        let parts = text.split_once(&format!("event: {kind}"));
        parts.is_some_and(|(_, rest)| rest.contains("\n\n"))
    };
    let first = cluster.get("/v1/events/stream", "", |text| has_whole(text, "host-joined"))?;
    assert!(first.contains("text/event-stream") && first.contains("data: {\"sequence\":"), "{first}");
    let last = *ids(&first).last().ok_or("no id")?;
    let header = format!("Last-Event-ID: {last}\r\n");
    let manifest = cluster.manifest(1, 1, 1, "")?;
    let second = std::thread::scope(|scope| {
        let reading =
            scope.spawn(|| cluster.get("/v1/events/stream", &header, |text| has_whole(text, "finished")));
        cluster.submit(&manifest)?;
        reading.join().map_err(|_| "the reader failed")?
    })?;
    let all = cluster.json(&["events"])?;
    let all: Vec<u64> =
        all.as_array().ok_or("no list")?.iter().filter_map(|it| it["sequence"].as_u64()).collect();
    let streamed: Vec<u64> = ids(&first).into_iter().chain(ids(&second)).collect();
    assert!(
        streamed.len() >= 5 && all.starts_with(&streamed),
        "{streamed:?} is not the beginning of {all:?}"
    );
    let wrong = cluster.get("/v1/events/stream", "Last-Event-ID: x\r\n", |_| false)?;
    assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");
    Ok(())
}

#[test]
fn top_and_lbaf_show_what_runs() -> Result {
    let cluster = Cluster::start(STILL, &["a", "b"])?;
    let more = "env = { LOAD_0 = \"0.5\", TALK_0 = \"1\" }";
    let id = cluster.submit(&cluster.manifest(2, 100_000, 20, more)?)?;
    cluster.wait_running(&id)?;
    assert!(cluster.move_rank(&id, 1, "a")?.status.success());
    let text = String::from_utf8(cluster.client(&["top", "--once"])?.stdout)?;
    assert!(text.contains("2 hosts, 1 applications, 2 partitions, 0 moves under way"), "{text}");
    assert!(text.contains("asked by a user") && text.contains(&format!("{id}  ")), "{text}");
    let refused = cluster.client(&["top"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this is no terminal"), "{refused:?}");
    let directory = cluster.path().join("lbaf").display().to_string();
    cluster.wait("a load and traffic", |it| {
        let known = it.partition(0)?["load"].as_f64().is_some_and(|load| load > 0.4);
        Ok(known && it.json(&["traffic", &id])?["pairs"].as_array().is_some_and(|it| it.len() == 1))
    })?;
    let exported = cluster.json(&["plan", "--to-lbaf", &directory])?;
    assert_eq!((&exported["tasks"], &exported["communications"]), (&2.into(), &1.into()), "{exported}");
    let planned = cluster.json(&["plan", "--from-lbaf", &directory])?;
    assert_eq!((&planned["ranks"], &planned["tasks"]), (&2.into(), &2.into()), "{planned}");
    assert!(planned["w_max_before"].as_f64().is_some_and(|it| it > 0.4), "{planned}");
    Ok(())
}

#[test]
fn the_description_of_the_api_is_served_and_names_every_route() -> Result {
    let cluster = Cluster::start(STILL, &[])?;
    let served = cluster.get("/openapi.json", "", |_| false)?;
    let printed = String::from_utf8(cluster.client(&["openapi"])?.stdout)?;
    assert!(served.contains(printed.trim_end()) || served.contains("chunked"), "it is another one");
    let api: serde_json::Value = serde_json::from_str(&printed)?;
    for path in ["/v1/hosts", "/v1/series", "/v1/events/stream", "/v1/moves/{id}", "/metrics"] {
        assert!(api["paths"][path]["get"]["responses"]["200"].is_object(), "{path}");
    }
    Ok(())
}
