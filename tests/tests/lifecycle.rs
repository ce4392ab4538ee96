//! The life of stored samples through the program itself: deletion, clean-up and snapshots over HTTP,
//! the offline commands, and two replicas of which one is heard, all across `kill -9`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tidewatch_model::{Batch, Labels, RawLabels, Sample};
use tidewatch_tests::power::PoweredDisk;
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::{http, remote};

const ADMIN: &str = "/api/v1/admin/tsdb";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

fn start(data: &Path, folder: &Path) -> Result<(Process, u16)> {
    let port = free_port()?;
    std::fs::write(folder.join("empty.yml"), "scrape_configs: []\n")?;
    let arguments = [
        format!("--config.file={}", folder.join("empty.yml").display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.enable-admin-api".to_owned(),
        "--ha-tracker.accept-ha-samples".to_owned(),
        "--storage.tsdb.retention.size=1GB".to_owned(),
    ];
    let server = Process::start(tidewatch()?, &arguments, &folder.join("log"))?;
    wait_for("queries are answered", Duration::from_secs(20), || {
        http::get(port, "/api/v1/query?query=up").ok().filter(|answer| answer.status == 200)
    })?;
    Ok((server, port))
}

/// Writes one sample of a series; gives the status.
fn write(port: u16, labels: &[(&str, &str)], timestamp: i64) -> Result<u16> {
    let labels = Labels::from_pairs(labels.iter().copied());
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value: 1.0 }]);
    Ok(remote::write(port, &batch)?.status)
}

/// The values of a label on series with any sample, once the store is complete.
fn values(port: u16, selector: &str, label: &str) -> Result<Vec<String>> {
    values_within(port, selector, label, "start=0")
}

/// The same on those with a sample within some times.
fn values_within(port: u16, selector: &str, label: &str, times: &str) -> Result<Vec<String>> {
    let path = format!("/api/v1/series?match[]={}&{times}", http::encode(selector));
    let answer = wait_for("the store is complete", Duration::from_secs(20), || {
        http::get(port, &path).ok().filter(|answer| answer.status != 503)
    })?;
    let answer = answer.json()?;
    let series = answer["data"].as_array().context("a list")?;
    let mut values: Vec<String> =
        series.iter().map(|labels| labels[label].as_str().unwrap_or("").to_owned()).collect();
    values.sort();
    Ok(values)
}

fn post(port: u16, path: &str) -> Result<http::Answer> {
    http::request(port, "POST", path, &[], &[])
}

fn offline(command: &str, data: &Path) -> Result<Output> {
    Command::new(tidewatch()?).args(["tsdb", command]).arg(data).output().context("run tidewatch")
}

#[test]
fn deleted_stays_deleted_and_a_snapshot_opens_as_data() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let (mut server, port) = start(&data, folder.path())?;
    let now = now_ms();
    // Old enough to be cut into blocks at once, and new.
    let old_ms = 9 * 3_600_000;
    for (name, back_ms) in [("old_a", old_ms), ("old_b", old_ms - 1000), ("new_a", 0), ("new_b", 0)] {
        ensure!(write(port, &[("__name__", name), ("kind", &name[4..])], now - back_ms)? == 204, "{name}");
    }
    wait_for("a block is cut", Duration::from_secs(20), || {
        http::get(port, "/metrics").ok().filter(|answer| answer.text().contains("tidewatch_store_blocks 1\n"))
    })?;
    let at = (now - old_ms) as f64 / 1000.0;
    let times = format!("start={}&end={}", at - 0.5, at + 0.5);
    ensure!(
        values_within(port, "{kind=~\".+\"}", "__name__", &times)? == ["old_a"],
        "a series of a block is there when it has a sample"
    );
    let snapshot = post(port, &format!("{ADMIN}/snapshot"))?.json()?;
    let name = snapshot["data"]["name"].as_str().context("a name")?.to_owned();
    let selector = http::encode("{kind=\"a\"}");
    ensure!(post(port, &format!("{ADMIN}/delete_series?match[]={selector}"))?.status == 204, "it is deleted");
    let all = "{__name__=~\".+\"}";
    ensure!(values(port, all, "__name__")? == ["new_b", "old_b"], "half of it is gone");
    server.kill()?;
    let (mut server, port) = start(&data, folder.path())?;
    ensure!(values(port, all, "__name__")? == ["new_b", "old_b"], "and stays so");
    ensure!(post(port, &format!("{ADMIN}/clean_tombstones"))?.status == 204, "it is cleaned up");
    ensure!(values(port, all, "__name__")? == ["new_b", "old_b"], "and nothing else");
    ensure!(post(port, &format!("{ADMIN}/compact"))?.status == 204, "it is compacted");
    ensure!(values(port, all, "__name__")? == ["new_b", "old_b"], "and nothing else");
    let runtime = http::get(port, "/api/v1/status/runtimeinfo")?.json()?;
    ensure!(runtime["data"]["storageRetention"] == "1GiB", "{runtime}");
    server.kill()?;

    let listed = offline("list", &data)?;
    let text = String::from_utf8(listed.stdout)?;
    ensure!(listed.status.success() && text.starts_with("BLOCK ULID   MIN TIME"), "{text}");
    ensure!(offline("verify", &data)?.status.success(), "all is whole");
    let analyzed = String::from_utf8(offline("analyze", &data)?.stdout)?;
    ensure!(analyzed.contains("Total Series: 1\n") && analyzed.contains("1 kind=b\n"), "{analyzed}");

    let (mut server, port) = start(&data.join("snapshots").join(name), folder.path())?;
    ensure!(values(port, all, "__name__")? == ["new_a", "new_b", "old_a", "old_b"], "the snapshot has all");
    server.kill()
}

#[test]
fn damage_is_named_and_repaired() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let (mut server, port) = start(&data, folder.path())?;
    ensure!(write(port, &[("__name__", "x")], now_ms() - 9 * 3_600_000)? == 204, "it is taken");
    ensure!(write(port, &[("__name__", "x")], now_ms())? == 204, "it is taken");
    wait_for("a block is cut", Duration::from_secs(20), || {
        http::get(port, "/metrics").ok().filter(|answer| answer.text().contains("tidewatch_store_blocks 1\n"))
    })?;
    server.kill()?;
    let blocks = std::fs::read_dir(data.join("blocks"))?.flatten().map(|entry| entry.path());
    let block =
        blocks.into_iter().find(|path| path.extension().is_some_and(|e| e == "block")).context("a block")?;
    let mut bytes = std::fs::read(&block)?;
    bytes[17] ^= 1;
    std::fs::write(&block, bytes)?;
    let verified = offline("verify", &data)?;
    let text = String::from_utf8(verified.stdout)?;
    ensure!(!verified.status.success() && text.contains("{__name__=\"x\"} lacks its samples from"), "{text}");
    let repaired = offline("repair", &data)?;
    ensure!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stdout));
    ensure!(offline("verify", &data)?.status.success(), "all is whole");
    ensure!(data.join("damaged").join(block.file_name().context("has one")?).exists(), "the old one is kept");
    Ok(())
}

/// Writes some old samples, which become a block of a megabyte, and a new one. Gives the block.
fn make_block(port: u16, data: &Path) -> Result<PathBuf> {
    let hour = 3_600_000;
    // Within one block, so that no merge replaces it.
    let old = (now_ms() - 10 * hour).div_euclid(2 * hour) * 2 * hour;
    let labels: Vec<Labels> =
        (0..300).map(|i| Labels::from_pairs([("__name__", "x"), ("i", &i.to_string())])).collect();
    let mut batch = Batch::new();
    for (i, labels) in (0u64..).zip(&labels) {
        // Between 1 and 2, and no codec makes it shorter.
        let bits = |step: i64| (i << 32 | step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
        let value = |step: i64| f64::from_bits(bits(step) | 0x3ff0_0000_0000_0000);
        let sample = |step: i64| Sample { timestamp: old + step * 15_000, value: value(step) };
        batch.push(RawLabels::Canonical(labels.as_bytes()), &(0..400).map(sample).collect::<Vec<_>>());
    }
    ensure!(remote::write(port, &batch)?.status == 204, "it is taken");
    ensure!(write(port, &[("__name__", "x"), ("i", "0")], now_ms())? == 204, "it is taken");
    wait_for("a block is cut", Duration::from_secs(20), || {
        let files = std::fs::read_dir(data.join("blocks")).ok()?.flatten().map(|entry| entry.path());
        let is_listed = http::get(port, "/metrics").ok()?.text().contains("tidewatch_store_blocks 1\n");
        files.filter(|path| is_listed && path.extension().is_some_and(|e| e == "block")).min()
    })
}

fn ask(port: u16, query: &str) -> Result<http::Answer> {
    http::get(port, &format!("/api/v1/query?query={}", http::encode(query)))
}

const WHOLE: &str = "count(count_over_time(x[13h]) >= 400)";

/// A part of a block is gone: who needs it gets an error that names the file, all else goes on.
fn check_lost(server: &mut Process, port: u16, block: &Path, folder: &Path) -> Result<()> {
    let answer = ask(port, WHOLE)?;
    let named =
        answer.text().contains(&block.display().to_string()) && answer.text().contains("can not read");
    ensure!(answer.status / 100 != 2 && named, "{} {}", answer.status, answer.text());
    ensure!(server.ended()?.is_none(), "the server lives");
    wait_for("the server's log names it", Duration::from_secs(5), || {
        let log = std::fs::read_to_string(folder.join("log")).ok()?;
        let mut errors = log.lines().filter(|line| line.contains("stored data is damaged"));
        errors.any(|line| line.contains(&block.display().to_string())).then_some(())
    })?;
    ensure!(ask(port, "x")?.text().contains("\"i\":\"0\""), "what is elsewhere is answered");
    ensure!(write(port, &[("__name__", "x"), ("i", "0")], now_ms() - 60_000)? == 204, "and more is taken");
    Ok(())
}

#[test]
fn a_block_that_ends_under_the_server_costs_an_error_and_not_the_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let (mut server, port) = start(&data, folder.path())?;
    let block = make_block(port, &data)?;
    ensure!(ask(port, WHOLE)?.text().contains("\"300\""), "the block is read");
    std::fs::OpenOptions::new().write(true).open(&block)?.set_len(4096)?;
    check_lost(&mut server, port, &block, folder.path())?;
    server.kill()?;
    let (mut server, port) = start(&data, folder.path())?;
    let metrics = http::get(port, "/metrics")?.text();
    ensure!(metrics.contains("tidewatch_store_damage_total 1\n"), "the start names the damage");
    server.kill()
}

#[test]
fn a_device_that_can_not_read_costs_an_error_and_not_the_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut disk) = PoweredDisk::new(folder.path(), "ordered")? else { return Ok(()) };
    let data = disk.path().join("data");
    let (mut server, port) = start(&data, folder.path())?;
    let block = make_block(port, &data)?;
    server.kill()?;
    // With nothing in memory, and the start reads no more than the block's index.
    disk.restore()?;
    let (mut server, port) = start(&data, folder.path())?;
    // The log has its room on the disk before that fails.
    ensure!(write(port, &[("__name__", "x"), ("i", "0")], now_ms() - 120_000)? == 204, "it is taken");
    disk.fail_reads()?;
    check_lost(&mut server, port, &block, folder.path())?;
    server.kill()
}

#[test]
fn of_two_replicas_one_is_heard_across_a_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let of = |replica: &'static str| [("__name__", "y"), ("__replica__", replica), ("cluster", "eu")];
    let (mut server, port) = start(&data, folder.path())?;
    ensure!(write(port, &of("a"), now_ms())? == 204, "the first is heard");
    ensure!(write(port, &of("b"), now_ms())? == 202, "the second is not");
    server.kill()?;
    let (mut server, port) = start(&data, folder.path())?;
    ensure!(write(port, &of("b"), now_ms())? == 202, "nor after a kill");
    ensure!(write(port, &of("a"), now_ms())? == 204, "the first still is");
    ensure!(values(port, "y", "__replica__")? == [""], "its label is off");
    let status = http::get(port, "/api/tidewatch/ha_tracker")?.text();
    ensure!(status.contains("\"replica\":\"a\"") && status.contains("\"deduplicatedSamples\":1"), "{status}");
    let metrics = http::get(port, "/metrics")?.text();
    let line = "tidewatch_ha_tracker_deduplicated_samples_total{cluster=\"eu\"} 1\n";
    ensure!(metrics.contains(line), "the metric is there");
    server.kill()
}
