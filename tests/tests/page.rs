//! A newcomer's first minute: started without any configuration, the server shows this host on
//! its page, in a real browser.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::{http, peers};

#[test]
fn without_configuration_the_page_shows_this_host() -> Result<()> {
    if !peers::present(&["chromium"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let arguments = [
        format!("--storage.tsdb.path={}", folder.path().join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let _server = Process::start(tidewatch()?, &arguments, &folder.path().join("log"))?;
    wait_for("both default jobs are up", Duration::from_secs(60), || {
        http::query(port, "up == 1").ok().filter(|result| result.as_array().is_some_and(|r| r.len() == 2))
    })?;
    let rules = http::get(port, "/api/v1/rules")?.text();
    ensure!(rules.contains("HostOutOfDiskSpace"), "the default alerts are loaded: {rules}");
    let load = http::query(port, "node_load1")?;
    ensure!(load.as_array().is_some_and(|r| r.len() == 1), "{load}");

    let page = browse(&format!("http://127.0.0.1:{port}/"), folder.path())?;
    for text in ["tidewatch", "node", "up"] {
        ensure!(page.contains(text), "{text:?} is not on the page:\n{page}");
    }
    let targets = browse(&format!("http://127.0.0.1:{port}/targets"), folder.path())?;
    ensure!(targets.contains(&format!("127.0.0.1:{port}")), "the target is not on the page:\n{targets}");
    Ok(())
}

/// The page's document after its scripts have run.
fn browse(url: &str, folder: &std::path::Path) -> Result<String> {
    let profile = format!("--user-data-dir={}", folder.join("browser").display());
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=5000",
        "--dump-dom",
        &profile,
        url,
    ];
    let output = Command::new(peers::find("chromium").context("chromium")?).args(flags).output()?;
    ensure!(output.status.success(), "chromium: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
