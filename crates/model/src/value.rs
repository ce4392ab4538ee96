//! What a query answers.

use std::sync::Arc;

use crate::{FloatHistogram, Labels};

/// A value at one time: a float, or a native histogram.
#[derive(Debug, Clone)]
pub enum SampleValue {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// One element of an instant vector.
#[derive(Debug, Clone)]
pub struct InstantSample {
    pub labels: Labels,
    pub timestamp: i64,
    pub value: SampleValue,
}

/// One series of a range vector: floats and histograms each ascend in time.
#[derive(Debug, Clone, Default)]
pub struct RangeSeries {
    pub labels: Labels,
    pub floats: Vec<(i64, f64)>,
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// The answer to a query.
#[derive(Debug, Clone)]
pub enum Value {
    Scalar {
        timestamp: i64,
        value: f64,
    },
    String {
        timestamp: i64,
        value: String,
    },
    /// In the order that the query gave: sorted where it sorts.
    Vector(Vec<InstantSample>),
    /// Sorted by labels.
    Matrix(Vec<RangeSeries>),
}
