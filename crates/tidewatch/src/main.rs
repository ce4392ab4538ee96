//! The binary: parses the command line and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidewatch_env::share_heap();
    tidewatch::cli::main()
}
