//! What the program says when it can not start: one clear line, and a status that is not zero.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidewatch_tests::http;
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};

/// Runs the program to its end.
fn run(arguments: &[String]) -> Result<Output> {
    Command::new(tidewatch()?).args(arguments).output().context("run tidewatch")
}

fn serve(folder: &Path, port: u16, more: &[String]) -> Vec<String> {
    let mut arguments = vec![
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=error".to_owned(),
    ];
    arguments.extend_from_slice(more);
    arguments
}

/// The program ends by itself, not with success, and its last words hold every one of `words`.
#[track_caller]
fn check_refused(arguments: &[String], words: &[&str]) -> Result<()> {
    let output = run(arguments)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it ended with success: {text}");
    let last = text.trim().lines().last().unwrap_or_default();
    for word in words {
        ensure!(last.contains(word), "{word:?} is not in {last:?}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    check_refused(&serve(folder.path(), port, &[]), &[&format!("127.0.0.1:{port}"), "in use"])
}

#[test]
fn a_directory_of_another_process_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let _first = Process::start(tidewatch()?, &serve(folder.path(), port, &[]), &folder.path().join("log"))?;
    wait_for("the first is ready", Duration::from_secs(20), || {
        http::get(port, "/-/ready").ok().filter(|answer| answer.status == 200)
    })?;
    check_refused(&serve(folder.path(), free_port()?, &[]), &["data", "another process"])
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("bad.yml");
    std::fs::write(&config, "global:\n  scrape_interval: 5s\nscrape_configz: []\n")?;
    let flag = [format!("--config.file={}", config.display())];
    check_refused(&serve(folder.path(), free_port()?, &flag), &["bad.yml", "scrape_configz", "line 3"])?;
    std::fs::write(
        folder.path().join("r.yml"),
        "groups:\n- name: a\n  rules:\n  - record: x\n    expr: sum(\n",
    )?;
    std::fs::write(&config, "rule_files: [r.yml]\n")?;
    check_refused(&serve(folder.path(), free_port()?, &flag), &["r.yml", "5:", "parse error"])?;
    let flag = ["--config.file=/no/such/file.yml".to_owned()];
    check_refused(&serve(folder.path(), free_port()?, &flag), &["/no/such/file.yml"])
}

/// Prometheus starts too: a deployment may write the file next.
#[test]
fn a_rule_file_that_is_missing_is_named_and_does_not_stop_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yml");
    std::fs::write(&config, "rule_files: [later.yml]\n")?;
    let port = free_port()?;
    let flags = [
        format!("--config.file={}", config.display()),
        "--web.config.file=".to_owned(),
        "--web.enable-lifecycle".to_owned(),
        "--no-web.enable-remote-write-receiver".to_owned(),
    ];
    let mut server =
        Process::start(tidewatch()?, &serve(folder.path(), port, &flags), &folder.path().join("log"))?;
    let notices = || http::get(port, "/api/tidewatch/notices").map(|answer| answer.text());
    wait_for("the file is missed", Duration::from_secs(20), || {
        notices().ok().filter(|text| text.contains("later.yml does not exist"))
    })?;
    std::fs::write(
        folder.path().join("later.yml"),
        "groups: [{name: late, rules: [{record: x, expr: '1'}]}]\n",
    )?;
    ensure!(http::request(port, "POST", "/-/reload", &[], &[])?.status == 200, "the file is taken");
    ensure!(!notices()?.contains("later.yml"), "and no longer missed");
    // Rules are not told of before the store is complete.
    wait_for("its rules are in force", Duration::from_secs(20), || {
        http::get(port, "/api/v1/rules").ok().filter(|answer| answer.text().contains("late"))
    })?;
    ensure!(http::request(port, "POST", "/-/quit", &[], &[])?.status == 200, "it ends when asked");
    let ended = wait_for("it ends", Duration::from_secs(20), || server.ended().ok().flatten())?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

#[test]
fn a_reload_of_a_bad_file_keeps_the_good_one_and_says_the_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yml");
    std::fs::write(&config, "scrape_configs: [{job_name: good}]\n")?;
    let port = free_port()?;
    let flags = [format!("--config.file={}", config.display()), "--web.enable-lifecycle".to_owned()];
    let mut server =
        Process::start(tidewatch()?, &serve(folder.path(), port, &flags), &folder.path().join("log"))?;
    wait_for("it is ready", Duration::from_secs(20), || {
        http::get(port, "/-/ready").ok().filter(|answer| answer.status == 200)
    })?;
    std::fs::write(&config, "scrape_configs: [{job_name: bad, scrape_intervall: 1s}]\n")?;
    let refused = http::request(port, "POST", "/-/reload", &[], &[])?;
    ensure!(refused.status == 500 && refused.text().contains("line 1, column 34"), "{}", refused.text());
    ensure!(http::get(port, "/api/v1/status/config")?.text().contains("good"), "the good file is in force");
    std::fs::write(&config, "scrape_configs: [{job_name: better}]\n")?;
    ensure!(http::request(port, "POST", "/-/reload", &[], &[])?.status == 200, "a good file is taken");
    ensure!(http::get(port, "/api/v1/status/config")?.text().contains("better"), "and is in force");
    ensure!(http::request(port, "POST", "/-/quit", &[], &[])?.status == 200, "it ends when asked");
    let ended = wait_for("it ends", Duration::from_secs(20), || server.ended().ok().flatten())?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

// A query log that could not be opened ended a reload half applied: the new retention was in force with the old jobs.
#[test]
fn a_reload_that_fails_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [config, log, other_log] = ["config.yml", "queries", "other"].map(|name| folder.path().join(name));
    let write = |job: &str, more: &str, log: &Path, retention: &str| {
        let text = format!(
            "global: {{query_log_file: '{}'}}\nstorage: {{tsdb: {{retention: {{time: {retention}}}}}}}\n\
             scrape_configs: [{{job_name: {job}{more}}}]\n",
            log.display()
        );
        std::fs::write(&config, text)
    };
    write("good", "", &log, "20d")?;
    let port = free_port()?;
    let flags = [format!("--config.file={}", config.display()), "--web.enable-lifecycle".to_owned()];
    let mut server =
        Process::start(tidewatch()?, &serve(folder.path(), port, &flags), &folder.path().join("log"))?;
    let ask = |query: &str| http::get(port, &format!("/api/v1/query?query={query}"));
    wait_for("it answers", Duration::from_secs(20), || ask("1").ok().filter(|answer| answer.status == 200))?;

    let check_refused = |words: &[&str], number: &str| -> Result<()> {
        let refused = http::request(port, "POST", "/-/reload", &[], &[])?;
        let text = refused.text();
        ensure!(refused.status == 500 && words.iter().all(|word| text.contains(word)), "{text}");
        ensure!(
            http::get(port, "/api/v1/status/config")?.text().contains("good"),
            "the good file is in force"
        );
        let runtime = http::get(port, "/api/v1/status/runtimeinfo")?.json()?;
        ensure!(runtime["data"]["storageRetention"] == "20d", "{runtime}");
        ask(number)?;
        let logged = std::fs::read_to_string(&log)?;
        ensure!(logged.contains(&format!("\"query\":\"{number}\"")), "the old log goes on: {logged}");
        Ok(())
    };
    write("bad", "", &folder.path().join("none/queries"), "1d")?;
    check_refused(&["open the query log", "none/queries"], "12345")?;
    write("bad", ", tls_config: {ca_file: none.pem}", &other_log, "1d")?;
    check_refused(&["none.pem"], "23456")?;

    write("better", "", &other_log, "1d")?;
    ensure!(http::request(port, "POST", "/-/reload", &[], &[])?.status == 200, "a good file is taken");
    ask("34567")?;
    ensure!(std::fs::read_to_string(&other_log)?.contains("34567"), "the new log is in force");
    server.terminate(Duration::from_secs(20)).map(drop)
}

// Under systemd standard output is a socket, which no name opens: the server did not start.
#[test]
fn a_query_log_goes_to_standard_output_where_that_is_a_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yml");
    std::fs::write(&config, "global: {query_log_file: /dev/stdout}\nscrape_configs: []\n")?;
    let port = free_port()?;
    let flags = [format!("--config.file={}", config.display())];
    let (ours, theirs) = UnixStream::pair()?;
    let stdout = OwnedFd::from(theirs).into();
    let stderr = std::fs::File::create(folder.path().join("log"))?.into();
    let mut server = Process::start_with(tidewatch()?, &serve(folder.path(), port, &flags), stdout, stderr)?;
    let ask = || http::get(port, "/api/v1/query?query=12345").ok().filter(|answer| answer.status == 200);
    wait_for("it answers", Duration::from_secs(20), ask)?;
    ours.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(ours).lines();
    let logged = lines.find_map(|line| line.map(|line| line.contains("12345").then_some(line)).transpose());
    ensure!(logged.transpose()?.is_some(), "the query is logged");
    server.terminate(Duration::from_secs(20)).map(drop)
}
