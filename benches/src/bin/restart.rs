//! Starts after a kill: `restart load FOLDER new|known` loads a server, kills it and keeps its
//! data; `restart time FOLDER [TIMES]` starts servers on copies of that, `restart press FOLDER HOSTS` while so many
//! hosts go on sending without a pause.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
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
        ["time", folder] => time(Path::new(folder), 5, None),
        ["time", folder, times] => time(Path::new(folder), times.parse()?, None),
        ["press", folder, hosts] => time(Path::new(folder), 5, Some(&load_of(hosts.parse()?)?)),
        _ => {
            bail!("restart load FOLDER new|known, restart time FOLDER [TIMES], or restart press FOLDER HOSTS")
        }
    }
}

fn load_of(hosts: usize) -> Result<Load> {
    let recording = Recording::read(&root().join("benches/data/recording.gz"))?;
    Load::new(&recording, hosts, 1_000)
}

fn now_ms() -> Result<i64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64)
}

/// Sends `steps` scrapes of `hosts` hosts, and kills the server behind the last acknowledgement.
fn load(folder: &Path, hosts: usize, steps: usize) -> Result<()> {
    let load = load_of(hosts)?;
    let server = Server::start(Kind::Tidewatch, folder)?;
    let start_ms = now_ms()? - (steps * STEP_S * 1000) as i64 - 60_000;
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

fn time(folder: &Path, times: usize, pressing: Option<&Load>) -> Result<()> {
    for _ in 0..times {
        let copy = folder.with_extension("copy");
        let _ = std::fs::remove_dir_all(&copy);
        let status = Command::new("cp").args(["-a"]).arg(folder).arg(&copy).status()?;
        ensure!(status.success(), "cp failed");
        // What a server that was killed had on the disk: not its start's to write.
        let status = Command::new("sync").arg("--file-system").arg(&copy).status()?;
        ensure!(status.success(), "sync failed");
        let start = Instant::now();
        let running = Server::start(Kind::Tidewatch, &copy)?;
        let ready = start.elapsed();
        let (server, is_complete) = (&running, &AtomicBool::new(false));
        let (complete, pressed) = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .filter_map(|worker| pressing.map(|load| (load, worker)))
                .map(|(load, worker)| scope.spawn(move || press(server, load, worker, is_complete)))
                .collect();
            while !has_answer(server) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let complete = start.elapsed();
            is_complete.store(true, Ordering::Relaxed);
            let mut pressed = senders.into_iter().map(|sender| sender.join().expect("no sender panics"));
            let pressed = pressed.try_fold((0, 0), |all: (usize, usize), one: Result<(usize, usize)>| {
                one.map(|one| (all.0 + one.0, all.1 + one.1))
            });
            (complete, pressed)
        });
        let (ready, complete) = (ready.as_secs_f64(), complete.as_secs_f64());
        print!("ready {ready:.3} s, complete {complete:.3} s, {:.2} CPU-seconds", server.cpu_seconds()?);
        match pressed? {
            (0, 0) => println!(),
            (taken, refused) => println!(", {taken} requests taken until then, {refused} refused"),
        }
        drop(running);
        std::fs::remove_dir_all(&copy).context("the copy")?;
    }
    Ok(())
}

fn has_answer(server: &Server) -> bool {
    let answer = http::query(server.port, "count(node_load1) or vector(0)").ok();
    answer.is_some_and(|result| result.as_array().is_some_and(|result| !result.is_empty()))
}

/// Sends the same scrapes until the store is complete; gives how many were taken and how many refused.
fn press(server: &Server, load: &Load, worker: usize, is_complete: &AtomicBool) -> Result<(usize, usize)> {
    let requests = load.requests(0, now_ms()? - 20_000, worker, 4);
    let (mut sender, mut taken, mut refused) = (server.connect()?, 0, 0);
    for (body, _) in requests.iter().cycle() {
        if is_complete.load(Ordering::Relaxed) {
            break;
        }
        match sender.write(body) {
            Ok(()) => taken += 1,
            Err(error) if error.to_string().contains("503") => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(30));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((taken, refused))
}
