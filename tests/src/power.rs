//! A file system whose power a test can cut, and whose device it can break: ext4 in a file, mounted
//! over a loop device. What had not reached the device when it goes is gone, as on a machine that
//! loses its power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidewatch_conformance::say;

use crate::process::wait_for;

pub struct PoweredDisk {
    image: PathBuf,
    mount: PathBuf,
    options: String,
    mounted: bool,
}

const SIZE_BYTES: u64 = 256 << 20;

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: u32 = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written any more.
const AT_ONCE: u32 = 2;

impl PoweredDisk {
    /// Makes a file system in `folder` and mounts it with `data=JOURNALING`. `None`, and a line that
    /// says why, where this machine or user can not.
    pub fn new(folder: &Path, journaling: &str) -> Result<Option<PoweredDisk>> {
        let mut disk = PoweredDisk {
            image: folder.join(format!("{journaling}.ext4")),
            mount: folder.join(journaling),
            options: format!("loop,data={journaling}"),
            mounted: false,
        };
        std::fs::create_dir(&disk.mount)?;
        std::fs::File::create(&disk.image)?.set_len(SIZE_BYTES)?;
        let made = run("mkfs.ext4", &["-q", "-F", &disk.image.display().to_string()]);
        match made.and_then(|()| disk.mount()) {
            Ok(()) => Ok(Some(disk)),
            Err(error) => {
                say(&format!("not run: no power to cut, as only root with loop devices can: {error:#}"));
                Ok(None)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The power goes. Whoever has files open sees errors from now on.
    pub fn cut(&self) -> Result<()> {
        let root = std::fs::File::open(&self.mount)?;
        // SAFETY: the request takes a pointer to an unsigned integer of 32 bits, and only reads it.
        let shutdown =
            unsafe { rustix::ioctl::Setter::<{ SHUTDOWN as rustix::ioctl::Opcode }, u32>::new(AT_ONCE) };
        // SAFETY: as above; the file is open.
        unsafe { rustix::ioctl::ioctl(&root, shutdown) }.context("EXT4_IOC_SHUTDOWN")
    }

    /// What is not in memory can not be read any more: the file below is empty now.
    pub fn fail_reads(&self) -> Result<()> {
        Ok(std::fs::OpenOptions::new().write(true).open(&self.image)?.set_len(0)?)
    }

    /// The machine starts again, once nobody has files open.
    pub fn restore(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        let (image, mount) = (self.image.display().to_string(), self.mount.display().to_string());
        run("mount", &["-t", "ext4", "-o", &self.options, &image, &mount])?;
        self.mounted = true;
        // What nobody asked for is not read ahead: it would be in memory when the device breaks.
        run("blockdev", &["--setra", "0", &self.device()?])
    }

    /// The loop device below.
    fn device(&self) -> Result<String> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let is_ours = |path: Option<&str>| path.is_some_and(|path| Path::new(path) == self.mount);
        let device = fields.find_map(|mut line| line.next().filter(|_| is_ours(line.next())));
        Ok(device.context("a mounted device")?.to_owned())
    }

    fn unmount(&mut self) -> Result<()> {
        let mount = self.mount.display().to_string();
        wait_for("the file system is let go", Duration::from_secs(10), || run("umount", &[&mount]).ok())?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for PoweredDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.unmount();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(())
}
