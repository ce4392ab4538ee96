//! Samples out of order in a real Prometheus with deletions: what it shows after a crash comes over.

use anyhow::Result;

use super::*;

/// The samples of `f`, as a server answers a query.
fn shown(port: u16, now_ms: i64) -> Result<Samples> {
    let query = format!("/api/v1/query?query=f%5B3h%5D&time={}", now_ms / 1000 + 60);
    let answer = http::get(port, &query)?.json()?;
    let mut samples = Samples::new();
    for series in answer["data"]["result"].as_array().context("series")? {
        for pair in series["values"].as_array().context("values")? {
            let time = (pair[0].as_f64().context("a time")? * 1000.0).round() as i64;
            let value: f64 = pair[1].as_str().context("a value")?.parse()?;
            samples.insert((series["metric"].to_string(), time), bits(value));
        }
    }
    Ok(samples)
}

fn send(port: u16, series: &str, timestamp: i64, value: f64) -> Result<()> {
    let labels = Labels::from_pairs([("__name__", "f"), ("j", series)]);
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
    remote_write(port, &batch)
}

#[test]
fn samples_out_of_order_come_over_though_their_times_were_deleted() -> Result<()> {
    if !peers::present(&["prometheus"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let [theirs, killed, data] = ["theirs", "killed", "data"].map(|name| folder.path().join(name));
    let config = "storage: {tsdb: {out_of_order_time_window: 2h}}\n";
    let config = write(folder.path(), "prometheus.yml", config)?;
    let start = |program: &Path, data: &Path, more: &[String]| -> Result<(Process, u16)> {
        let port = free_port()?;
        let mut arguments = vec![
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        arguments.extend_from_slice(more);
        let server = Process::start(program, &arguments, &folder.path().join("log"))?;
        wait_for("the server answers", Duration::from_secs(60), || {
            http::get(port, "/api/v1/query?query=f").ok().filter(|answer| answer.status == 200)
        })?;
        Ok((server, port))
    };
    let theirs_of = |data: &Path| {
        let more = [
            format!("--config.file={}", config.display()),
            "--web.enable-remote-write-receiver".to_owned(),
            "--web.enable-admin-api".to_owned(),
        ];
        start(&peers::find("prometheus").context("prometheus")?, data, &more)
    };
    let (mut server, port) = theirs_of(&theirs)?;
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let first_ms = now_ms - 60 * 60_000;
    for step in 0..100 {
        for series in ["deleted", "in_part", "whole"] {
            send(port, series, first_ms + step * 30_000, step as f64)?;
        }
    }
    for step in 0..20 {
        for series in ["deleted", "in_part", "whole"] {
            send(port, series, first_ms + step * 90_000 + 7, 1000.0 + step as f64)?;
        }
    }
    for of in ["match[]=f%7Bj%3D%22deleted%22%7D".to_owned(), {
        let (from, to) = (first_ms / 1000 + 600, first_ms / 1000 + 1200);
        format!("match[]=f%7Bj%3D%22in_part%22%7D&start={from}&end={to}")
    }] {
        let answer =
            http::request(port, "POST", &format!("/api/v1/admin/tsdb/delete_series?{of}"), &[], &[])?;
        ensure!(answer.status == 204, "{}", answer.text());
    }
    for step in 0..20 {
        for series in ["deleted", "in_part"] {
            send(port, series, first_ms + step * 90_000 + 11, 2000.0 + step as f64)?;
        }
    }
    send(port, "deleted", now_ms, 3000.0)?;
    server.kill()?;
    copy(&theirs, &killed)?;
    let (mut server, port) = theirs_of(&theirs)?;
    let expected = shown(port, now_ms)?;
    server.kill()?;
    ensure!(expected.len() > 100 + 20 + 80 + 40, "{} samples", expected.len());
    let said = import(&data, "prometheus", &killed)?;
    let (_server, port) = start(&tidewatch()?, &data, &[])?;
    check_equal(&shown(port, now_ms)?, &expected)?;
    ensure!(said.contains("samples were deleted") && said.contains("as Prometheus keeps them"), "{said}");
    Ok(())
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() { copy(&path, &to)? } else { std::fs::copy(&path, &to).map(drop)? }
    }
    Ok(())
}
