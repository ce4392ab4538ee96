//! The files of a simulated disk, taken off it and put back.

use std::path::PathBuf;

use tidewatch_env::Open;
use tidewatch_env::sim::Simulation;

pub fn files(simulation: &Simulation) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |path: PathBuf| (path.clone(), simulation.disk.peek(&path).expect("there"));
    simulation.disk.files().into_iter().map(file).collect()
}

pub fn restore(simulation: &Simulation, before: &[(PathBuf, Vec<u8>)]) {
    simulation.disk.kill();
    for file in simulation.disk.files() {
        simulation.env.disk.remove(&file).expect("there");
    }
    for (path, bytes) in before {
        let file = simulation.env.disk.open(path, Open::Create).expect("a good disk");
        file.append(bytes).expect("a good disk");
        file.sync().expect("a good disk");
    }
}
