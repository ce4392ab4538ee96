//! Records what exporters say, second by second: `record SECONDS FILE PORT…` scrapes
//! `http://127.0.0.1:PORT/metrics` of each port and writes the recording to FILE.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidewatch_benches::recording::Recorder;
use tidewatch_tests::http;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, file, ports @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: record SECONDS FILE PORT…");
    };
    let seconds: u64 = seconds.parse().context("SECONDS")?;
    let ports: Vec<u16> = ports.iter().map(|p| p.parse()).collect::<Result<_, _>>().context("PORT")?;
    let mut recorder = Recorder::default();
    let start = Instant::now();
    for second in 0..seconds {
        let texts: Result<Vec<String>> =
            ports.iter().map(|port| Ok(http::get(*port, "/metrics")?.text())).collect();
        recorder.tick(&texts?);
        let due = Duration::from_secs(second + 1);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let count = recorder.write(Path::new(file))?;
    eprintln!("{count} series over {seconds} s written to {file}");
    Ok(())
}
