//! Any bytes as the only segment of a log: the reader ends, and the log opens and goes on.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidewatch_env::{Env, Open, create_dir_durably};
use tidewatch_wal::{Position, Reader, Wal, WalOptions};

fuzz_target!(|data: &[u8]| {
    let env = Env::in_memory();
    let dir = Path::new("/wal");
    create_dir_durably(&*env.disk, dir).expect("memory");
    let file = env.disk.open(&dir.join("00000001.wal"), Open::Create).expect("memory");
    file.append(data).expect("memory");
    let mut reader = Reader::open(&env, dir, Position::START).expect("memory");
    while let Ok(Some(_)) = reader.read() {}
    if let Ok((wal, _)) = Wal::open(&env, dir, WalOptions::default()) {
        wal.append(&[b"after"]).expect("room");
        wal.commit().expect("memory");
    }
});
