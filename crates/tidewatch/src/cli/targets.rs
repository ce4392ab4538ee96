//! What `check config` says of targets: those of a configuration and those of its discovery files,
//! built as the server would build them.

use std::path::Path;

use tidewatch_scrape::{FileSdConfig, ScrapeConfig, StaticConfig, build_target, parse_discovery_file};

use crate::{config, files};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    pub warnings: Vec<String>,
    pub problems: Vec<String>,
}

/// Checks the targets of all jobs, and the discovery files of the Alertmanagers.
pub fn check(config: &config::Config) -> Findings {
    let mut findings = Findings::default();
    for job in &config.scrape {
        findings.problems.extend(problems(&job.static_configs, job));
        for discovery in &job.file_sd_configs {
            let found = discovered(discovery, &format!("scrape job {:?}", job.job_name), &mut findings);
            findings.problems.extend(problems(&found, job));
        }
    }
    for alertmanagers in &config.alertmanagers {
        for discovery in &alertmanagers.file_sd_configs {
            discovered(discovery, "alertmanager config", &mut findings);
        }
    }
    findings
}

/// The groups in the files of one `file_sd_configs` entry. A file that is not there yet is no error.
fn discovered(discovery: &FileSdConfig, of: &str, findings: &mut Findings) -> Vec<StaticConfig> {
    let mut groups = Vec::new();
    for pattern in &discovery.files {
        let found = files::glob(pattern).unwrap_or_default();
        if !found.iter().any(|file| file.exists()) {
            let name = pattern.display().to_string();
            findings.warnings.push(format!("file {name:?} for file_sd in {of} does not exist"));
            continue;
        }
        for file in found {
            match groups_of(&file) {
                Ok(read) => groups.extend(read),
                Err(reason) => {
                    findings
                        .problems
                        .push(format!("checking SD file {:?}: {reason}", file.display().to_string()));
                }
            }
        }
    }
    groups
}

fn groups_of(file: &Path) -> Result<Vec<StaticConfig>, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    parse_discovery_file(file, &bytes)
}

/// The first address of each group that can not become a target.
fn problems(groups: &[StaticConfig], job: &ScrapeConfig) -> Vec<String> {
    let mut problems = Vec::new();
    for (group_index, group) in groups.iter().enumerate() {
        let built = group.targets.iter().map(|address| {
            let mut labels = vec![("__address__".to_owned(), address.clone())];
            labels.extend(group.labels.iter().cloned());
            build_target(job, &labels)
        });
        let refused = built.enumerate().find_map(|(index, built)| Some((index, built.err()?)));
        if let Some((index, reason)) = refused {
            problems
                .push(format!("job {:?}: instance {index} in group {group_index}: {reason}", job.job_name));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_checked_after_relabelling_and_in_discovery_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("good.yml", "[{targets: ['b:1']}]");
        write("bad.json", "[{\"targets\": [1]}]");
        write("url.yml", "[{targets: ['a:1', 'http://b']}]");
        let text = "scrape_configs:\n\
            - job_name: relabelled\n  static_configs: [{targets: ['a:1']}]\n\
            \x20 relabel_configs: [{target_label: __address__, replacement: ''}]\n\
            - job_name: files\n  file_sd_configs: [{files: [good.yml, bad.json, url.yml, none.yml]}]\n";
        write("p.yml", text);
        let file = folder.path().join("p.yml");
        let config = config::load(&file, config::LoadOptions::default()).expect("valid");
        let found = check(&config);
        let place = format!("{}/", folder.path().display());
        let plain = |texts: &[String]| texts.iter().map(|t| t.replace(&place, "")).collect::<Vec<_>>();
        assert_eq!(
            plain(&found.warnings),
            ["file \"none.yml\" for file_sd in scrape job \"files\" does not exist"]
        );
        let problems = plain(&found.problems);
        assert_eq!(problems[0], "job \"relabelled\": instance 0 in group 0: no address");
        assert!(problems[1].starts_with("checking SD file \"bad.json\": "), "{problems:?}");
        assert_eq!(problems[2], "job \"files\": instance 1 in group 1: \"http://b\" is not a valid hostname");
        assert_eq!(problems.len(), 3);
    }
}
