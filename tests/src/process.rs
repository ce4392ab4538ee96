//! Programs that a test starts, and ends by id when it is done.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A running program. Killed when dropped.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` with its output going to `log`.
    pub fn start(program: impl AsRef<Path>, arguments: &[String], log: &Path) -> Result<Process> {
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        Process::start_with(program, arguments, output.try_clone()?.into(), output.into())
    }

    /// The same with standard output and standard error apart.
    pub fn start_with(
        program: impl AsRef<Path>,
        arguments: &[String],
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<Process> {
        let program = program.as_ref();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Process { child, name: program.display().to_string() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for an orderly end.
    pub fn terminate(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !status.success() {
            bail!("kill -TERM {} failed", self.name);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} did not end within {patience:?} of SIGTERM", self.name)
    }

    /// Whether the process has ended by itself.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `ready` gives a value, asking every 50 ms.
pub fn wait_for<T>(what: &str, patience: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Our own program, as the test run built it; built now where it was not.
pub fn tidewatch() -> Result<std::path::PathBuf> {
    let test = std::env::current_exe()?;
    // target/PROFILE/deps/TEST-HASH: the program stands two folders up.
    let profile = test.parent().and_then(Path::parent).context("a test stands in target/PROFILE/deps")?;
    let program = profile.join("tidewatch");
    if !program.is_file() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status =
            Command::new(cargo).args(["build", "-p", "tidewatch"]).current_dir(crate::root()).status()?;
        if !status.success() {
            bail!("cargo build -p tidewatch failed");
        }
    }
    Ok(program)
}
