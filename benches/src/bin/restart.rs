//! Starts after a kill: `restart load FOLDER new|known` loads a server, kills it and keeps its
//! data; `restart time FOLDER [TIMES]` starts servers on copies of that.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidewatch_benches::load::{Load, STEP_S};
use tidewatch_benches::recording::Recording;
use tidewatch_benches::servers::{Kind, Server};
use tidewatch_tests::{http, root};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["load", folder, "new"] => load(Path::new(folder), 1_000, 8),
        ["load", folder, "known"] => load(Path::new(folder), 50, 6 * 3600 / STEP_S),
        ["time", folder] => time(Path::new(folder), 5),
        ["time", folder, times] => time(Path::new(folder), times.parse()?),
        _ => bail!("restart load FOLDER new|known, or restart time FOLDER [TIMES]"),
    }
}

/// Sends `steps` scrapes of `hosts` hosts, and kills the server behind the last acknowledgement.
fn load(folder: &Path, hosts: usize, steps: usize) -> Result<()> {
    let recording = Recording::read(&root().join("benches/data/recording.gz"))?;
    let load = Load::new(&recording, hosts, 1_000)?;
    let server = Server::start(Kind::Tidewatch, folder)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let start_ms = now.as_millis() as i64 - (steps * STEP_S * 1000) as i64 - 60_000;
    let (cpu, clock) = (server.cpu_seconds()?, Instant::now());
    let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|worker| {
                let (server, load) = (&server, &load);
                scope.spawn(move || {
                    let mut sender = server.connect()?;
                    let mut sent = 0;
                    for step in 0..steps {
                        for (body, count) in load.requests(step, start_ms, worker, 4) {
                            sender.write(&body)?;
                            sent += count;
                        }
                    }
                    Ok(sent)
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("no sender panics")).collect()
    });
    let sent: usize = counts.into_iter().sum::<Result<usize>>()?;
    let (cpu, seconds) = (server.cpu_seconds()? - cpu, clock.elapsed().as_secs_f64());
    println!(
        "{sent} samples of {} series, {:.0} a CPU-second, {seconds:.1} s",
        load.series_count(),
        sent as f64 / cpu
    );
    // A drop is a kill.
    drop(server);
    Ok(())
}

fn time(folder: &Path, times: usize) -> Result<()> {
    for _ in 0..times {
        let copy = folder.with_extension("copy");
        let _ = std::fs::remove_dir_all(&copy);
        let status = Command::new("cp").args(["-a"]).arg(folder).arg(&copy).status()?;
        ensure!(status.success(), "cp failed");
        // What a server that was killed had on the disk: not its start's to write.
        let status = Command::new("sync").arg("--file-system").arg(&copy).status()?;
        ensure!(status.success(), "sync failed");
        let start = Instant::now();
        let server = Server::start(Kind::Tidewatch, &copy)?;
        let ready = start.elapsed();
        loop {
            let answer = http::query(server.port, "count(node_load1) or vector(0)").ok();
            if answer.is_some_and(|result| result.as_array().is_some_and(|r| !r.is_empty())) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let complete = start.elapsed();
        let (ready, complete) = (ready.as_secs_f64(), complete.as_secs_f64());
        println!("ready {ready:.3} s, complete {complete:.3} s, {:.2} CPU-seconds", server.cpu_seconds()?);
        drop(server);
        std::fs::remove_dir_all(&copy).context("the copy")?;
    }
    Ok(())
}
