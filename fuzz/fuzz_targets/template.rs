//! Templates: any text parses or is refused, and what parses runs within its budget.
#![no_main]

use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use tidewatch_rules::template::{AlertData, Surroundings, Template, Value};

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse("fuzz", text, false) else { return };
    let labels = Rc::new([("a".to_owned(), "b".to_owned())].into());
    let external_labels = Rc::new([].into());
    let data = AlertData { labels, external_labels, external_url: "u".into(), value: Value::Float(1.5) };
    let mut query = |_: &str| Ok(Vec::new());
    let mut surroundings = Surroundings { now_ms: 0, external_url: "u", query: &mut query };
    let _ = template.expand(&Value::Alert(Rc::new(data)), &mut surroundings, false);
});
