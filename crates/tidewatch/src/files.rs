//! File names with `*`, as rule files and scrape configuration files are named.

use std::path::{Path, PathBuf};

/// The files that `pattern` names, sorted. A pattern without wildcards names one file, whether
/// it exists or not, so that a missing file is an error where it is read.
pub fn glob(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let expression = to_regex(name).map_err(|reason| format!("{}: {reason}", pattern.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| expression.is_match(name)))
        .map(|entry| pattern.with_file_name(entry.file_name()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// A shell pattern of one path part as a regular expression. A leading dot is nothing special,
/// as in Go's `filepath.Glob`.
fn to_regex(pattern: &str) -> Result<tidewatch_model::regex::GoRegex, String> {
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
    tidewatch_model::regex::GoRegex::new(&expression)
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
}
