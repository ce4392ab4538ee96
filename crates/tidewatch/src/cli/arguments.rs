//! `--no-NAME`, which Prometheus' tools take for every switch.

use std::ffi::OsString;

use clap::{ArgAction, Command, CommandFactory};

use super::Cli;

/// The command line without the switches that it turns off. All our switches are off unless they are
/// given, so `--no-NAME` only takes back a `--NAME` before it.
pub fn without_negations(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut switches = Vec::new();
    collect_switches(&Cli::command(), &mut switches);
    let mut kept: Vec<OsString> = Vec::new();
    for argument in arguments {
        let name = argument.to_str().and_then(|text| text.strip_prefix("--no-"));
        match name.filter(|name| switches.iter().any(|switch| switch == name)) {
            Some(name) => {
                let given = format!("--{name}");
                kept.retain(|earlier| *earlier != *given);
            }
            None => kept.push(argument),
        }
    }
    kept
}

fn collect_switches(command: &Command, switches: &mut Vec<String>) {
    let flags =
        command.get_arguments().filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue));
    switches.extend(flags.filter_map(|flag| flag.get_long().map(str::to_owned)));
    for child in command.get_subcommands() {
        collect_switches(child, switches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negation_takes_back_its_switch_and_nothing_else() {
        let kept = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            let kept = without_negations(words);
            kept.iter().map(|word| word.to_str().expect("ASCII")).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("tidewatch --no-web.enable-lifecycle", "tidewatch"),
            ("tidewatch --web.enable-lifecycle --no-web.enable-lifecycle", "tidewatch"),
            (
                "tidewatch --no-web.enable-lifecycle --web.enable-lifecycle",
                "tidewatch --web.enable-lifecycle",
            ),
            ("tidewatch check config --no-syntax-only x.yml", "tidewatch check config x.yml"),
            // A flag of this very name.
            ("tidewatch --storage.tsdb.no-lockfile", "tidewatch --storage.tsdb.no-lockfile"),
            ("tidewatch --no-such-flag", "tidewatch --no-such-flag"),
        ] {
            assert_eq!(kept(line), expected, "{line}");
        }
    }
}
