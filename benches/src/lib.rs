//! What the benchmarks share: a recording of real scrapes, and the load made from it.
//!
//! [`recording`] holds what a real node_exporter and a real Prometheus said, second by second.
//! [`load`] replays it for any number of hosts, each with a phase and a scale of its own, as
//! remote-write requests; [`servers`] runs ours and its peers. The binaries in `bin/` run whole servers beside their peers and print
//! ratios; `benches/` holds criterion benches of kernels.
//!
//! Not here: assertions on time. A figure is printed, and read by people.

pub mod load;
pub mod recording;
pub mod servers;
