//! Whole servers, ours and its peers, as processes that are measured from outside.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tidewatch_tests::process::{Process, free_port, wait_for};
use tidewatch_tests::{http, peers};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tidewatch,
    Prometheus,
    VictoriaMetrics,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tidewatch => "tidewatch",
            Kind::Prometheus => "prometheus",
            Kind::VictoriaMetrics => "victoria-metrics",
        }
    }

    /// The program's file, where it is installed or built.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Kind::Tidewatch => {
                let target = std::env::var_os("CARGO_TARGET_DIR")
                    .map_or_else(|| tidewatch_tests::root().join("target"), PathBuf::from);
                Some(target.join("release/tidewatch")).filter(|file| file.is_file())
            }
            Kind::Prometheus | Kind::VictoriaMetrics => peers::find(self.name()),
        }
    }
}

/// A running server with its data in `folder`.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    process: Process,
    folder: PathBuf,
}

impl Server {
    /// Starts it and waits until it takes writes.
    pub fn start(kind: Kind, folder: &Path) -> Result<Server> {
        std::fs::create_dir_all(folder)?;
        let program = kind.program().with_context(|| format!("{} is not installed", kind.name()))?;
        let port = free_port()?;
        let config = folder.join("config.yml");
        std::fs::write(&config, "scrape_configs: []\n")?;
        let data = folder.join("data").display().to_string();
        let (config, address) = (config.display().to_string(), format!("127.0.0.1:{port}"));
        let arguments = match kind {
            Kind::Tidewatch => vec![
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
                "--web.enable-admin-api".to_owned(),
            ],
            Kind::Prometheus => vec![
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
                "--storage.tsdb.wal-compression".to_owned(),
            ],
            Kind::VictoriaMetrics => vec![
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
                "-retentionPeriod=100y".to_owned(),
                "-search.maxUniqueTimeseries=2000000".to_owned(),
                // It closes connections after two minutes, in the middle of whatever they send.
                "-http.connTimeout=1h".to_owned(),
            ],
        };
        let process = Process::start(program, &arguments, &folder.join("log"))?;
        let ready = if kind == Kind::VictoriaMetrics { "/health" } else { "/-/ready" };
        wait_for(&format!("{} is ready", kind.name()), Duration::from_secs(60), || {
            http::get(port, ready).ok().filter(|answer| answer.status == 200)
        })?;
        Ok(Server { kind, port, process, folder: folder.to_owned() })
    }

    /// CPU seconds used so far, by all threads, user and system.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // USER_HZ is 100 on every Linux that we run on.
        Ok(ticks as f64 / 100.0)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that was resident since the start or [`Server::forget_peak`], in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Lets [`Server::peak_bytes`] count from what is resident now.
    pub fn forget_peak(&self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.process.id());
        std::fs::write(&file, "5").with_context(|| file)
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with(field)).context("a field of status")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
    }

    /// Bytes of the data directory's files whose path satisfies `counted`.
    pub fn disk_bytes(&self, counted: impl Fn(&Path) -> bool) -> u64 {
        let mut sum = 0;
        let mut folders = vec![self.folder.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                    Ok(meta) if counted(&entry.path()) => sum += meta.len(),
                    _ => {}
                }
            }
        }
        sum
    }

    /// `kill -9`, start again on the same data, and wait until a query is answered: seconds.
    pub fn kill_and_restart(mut self, query: &str) -> Result<(Server, f64)> {
        self.process.kill()?;
        let start = Instant::now();
        let again = Server::start(self.kind, &self.folder)?;
        wait_for("the store is complete", Duration::from_secs(600), || {
            http::query(again.port, query)
                .ok()
                .filter(|result| result.as_array().is_some_and(|r| !r.is_empty()))
        })?;
        Ok((again, start.elapsed().as_secs_f64()))
    }

    /// A connection that stays open, for remote write.
    pub fn connect(&self) -> Result<Sender> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        Ok(Sender { reader: BufReader::new(stream.try_clone()?), stream })
    }
}

/// One connection that stays open.
pub struct Sender {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Sender {
    /// Asks for a path and reads the whole answer.
    pub fn get(&mut self, path: &str) -> Result<http::Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.stream.write_all(head.as_bytes())?;
        http::read_answer(&mut self.reader)
    }

    /// Posts a compressed write request; an answer other than 2xx is an error.
    pub fn write(&mut self, body: &[u8]) -> Result<()> {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat())?;
        let answer = http::read_answer(&mut self.reader)?;
        if answer.status / 100 != 2 {
            bail!("write answered {}: {}", answer.status, answer.text());
        }
        Ok(())
    }
}
