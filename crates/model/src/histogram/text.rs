//! Histograms in text, as Prometheus prints them: `{count:3, sum:4.5, (1,2]:3}`.

use std::fmt;

use super::{Bucket, FloatHistogram};

/// Formats as Go's `%g`: the shortest digits that read back equal, with an exponent below 1e-4
/// and from 1e6 on; `NaN`, `+Inf`, `-Inf` for what is no finite number.
pub fn format_g(value: f64) -> String {
    crate::format_general(value)
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        write!(f, "{open}{},{}{close}:{}", format_g(self.lower), format_g(self.upper), format_g(self.count))
    }
}

impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        let negative = self.negative().rev();
        for bucket in negative.chain(zero).chain(self.positive()).filter(|bucket| bucket.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Span;

    #[test]
    fn numbers_print_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (100000.0, "100000"),
            (1e6, "1e+06"),
            (123456789.0, "1.23456789e+08"),
            (-1e21, "-1e+21"),
            (0.0001, "0.0001"),
            (1.25e-7, "1.25e-07"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(format_g(value), text);
        }
    }

    #[test]
    fn a_histogram_prints_its_populated_buckets_from_the_lowest() {
        let histogram = FloatHistogram {
            zero_threshold: 0.001,
            zero_count: 1.0,
            count: 6.0,
            sum: 2.5,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![2.0, 0.0, 1.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            histogram.to_string(),
            "{count:6, sum:2.5, [-2,-1):2, [-0.001,0.001]:1, (0.5,1]:2, (2,4]:1}"
        );
    }
}
