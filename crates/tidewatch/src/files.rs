//! File names with `*`, as rule files and scrape configuration files are named.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use tidewatch_model::regex::GoRegex;

/// The files that `pattern` names, sorted; any part of the path may have wildcards. A pattern
/// without wildcards names one file, whether it exists or not, so that a missing file is an error
/// where it is read.
pub fn glob(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    if !has_wildcard(pattern.as_os_str()) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        match part {
            Component::Normal(name) if has_wildcard(name) => {
                let expression = to_regex(&name.to_string_lossy())
                    .map_err(|reason| format!("{}: {reason}", pattern.display()))?;
                found = found.iter().flat_map(|folder| entries(folder, &expression)).collect();
            }
            fixed => found.iter_mut().for_each(|path| path.push(fixed)),
        }
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn has_wildcard(text: &OsStr) -> bool {
    text.to_string_lossy().contains(['*', '?', '['])
}

/// The entries of a folder whose names match. One that can not be read has none, as in Go.
fn entries(folder: &Path, expression: &GoRegex) -> Vec<PathBuf> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = std::fs::read_dir(shown) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| expression.is_match(name)))
        .map(|entry| folder.join(entry.file_name()))
        .collect()
}

/// A shell pattern of one path part as a regular expression. A leading dot is nothing special,
/// as in Go's `filepath.Glob`.
fn to_regex(pattern: &str) -> Result<GoRegex, String> {
    let mut expression = String::new();
    let mut in_class = false;
    for c in pattern.chars() {
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        match c {
            '*' if !in_class => expression.push_str("[^/]*"),
            '?' if !in_class => expression.push_str("[^/]"),
            '[' | ']' | '^' | '-' => expression.push(c),
            _ => {
                if !c.is_alphanumeric() && c != '_' && c.is_ascii() {
                    expression.push('\\');
                }
                expression.push(c);
            }
        }
    }
    GoRegex::new(&expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_sorted_files_of_one_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.rules", "a.rules", "a.txt"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let found = glob(&folder.path().join("*.rules")).expect("valid");
        let names: Vec<_> = found.iter().map(|p| p.file_name().expect("a name").to_owned()).collect();
        assert_eq!(names, ["a.rules", "b.rules"]);
        assert_eq!(glob(Path::new("/no/such.yml")).expect("valid"), [Path::new("/no/such.yml")]);
        assert!(glob(&folder.path().join("c*")).expect("valid").is_empty());
    }

    #[test]
    fn folders_may_have_wildcards_too() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["team-b", "team-a", "other"] {
            std::fs::create_dir(root.path().join(folder)).expect("made");
            std::fs::write(root.path().join(folder).join("alerts.yml"), "").expect("written");
        }
        for last in ["*.yml", "alerts.yml"] {
            let found = glob(&root.path().join("team-*").join(last)).expect("valid");
            let expected = ["team-a", "team-b"].map(|folder| root.path().join(folder).join("alerts.yml"));
            assert_eq!(found, expected, "{last}");
        }
    }
}
