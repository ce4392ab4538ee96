//! Writing metrics in Prometheus' text format 0.0.4.

use std::fmt::Write;

use tidewatch_model::format_float;

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Exposition {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Exposition {
        self.text.push_str(self.family);
        for (i, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if i == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    _ => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", format_float(value));
        self
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &'static str, kind: &str, help: &str, value: f64) -> &mut Exposition {
        self.family(name, kind, help).sample(&[], value)
    }

    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_they_are_read() {
        let mut out = Exposition::new();
        out.family("a_total", "counter", "What.").sample(&[("x", "q\"\\\n"), ("y", "")], 1.5);
        out.single("b", "gauge", "Other.", f64::INFINITY);
        assert_eq!(
            out.finish(),
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\",y=\"\"} 1.5\n\
             # HELP b Other.\n# TYPE b gauge\nb +Inf\n"
        );
    }
}
