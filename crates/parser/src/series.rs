//! Series descriptions: the notation of scripts and unit tests for a series and its samples.
//!
//! ```text
//! metric{label="value"} 1 2+3x4 _ _x2 stale {{schema:1 sum:3 count:22 buckets:[5 10 7]}}
//! ```

use std::sync::Arc;

use tidewatch_model::histogram::{CounterResetHint, Span};
use tidewatch_model::{FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, STALE_NAN};

use crate::ast::{BinaryOp, PosRange};
use crate::expr::sign;
use crate::literal;
use crate::parser::{Context, Parsed, Parser, fail};
use crate::token::{Descriptor, TokenKind};

/// One place in a sequence of samples.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// `_`: no sample.
    Omitted,
    Float(f64),
    Histogram {
        histogram: Arc<FloatHistogram>,
        /// Whether the description names a counter reset hint, so that a test compares it.
        hint_given: bool,
    },
}

/// How many samples one description may make.
const VALUES_MAX: usize = 1 << 20;

const LABEL_SET: &str = "label set";

impl Parser<'_> {
    pub(crate) fn series_description(&mut self) -> Parsed<(Labels, Vec<SequenceValue>)> {
        let labels = self.metric()?;
        let values = self.within(Context::SERIES, Parser::series_values)?;
        Ok((labels, values))
    }

    /// Reads `metric{label="value"}`.
    fn metric(&mut self) -> Parsed<Labels> {
        let mut labels = LabelsBuilder::new();
        let token = self.peek()?;
        let named = token.kind.is_metric_name();
        if named {
            self.next()?;
        }
        if self.accept(TokenKind::LeftBrace)?.is_some() {
            self.label_set(&mut labels)?;
        }
        if named {
            labels.set(METRIC_NAME, self.text(token));
        }
        Ok(labels.build())
    }

    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Parsed<()> {
        if self.accept(TokenKind::RightBrace)?.is_some() {
            return Ok(());
        }
        loop {
            self.label(labels)?;
            let token = self.next()?;
            match token.kind {
                TokenKind::RightBrace => return Ok(()),
                TokenKind::Comma if self.accept(TokenKind::RightBrace)?.is_some() => return Ok(()),
                TokenKind::Comma => {}
                _ => return self.unexpected_in(token, LABEL_SET, "\",\" or \"}\""),
            }
        }
    }

    fn label(&mut self, labels: &mut LabelsBuilder) -> Parsed<()> {
        let label = self.next()?;
        let name = match label.kind {
            TokenKind::Identifier => self.text(label).to_owned(),
            TokenKind::String => literal::unquote(self.text(label)),
            _ => return self.unexpected_in(label, LABEL_SET, "identifier or \"}\""),
        };
        let token = self.peek()?;
        if token.kind != TokenKind::Assign {
            if label.kind == TokenKind::String {
                labels.set(METRIC_NAME, &name);
                return Ok(());
            }
            return self.unexpected_in(token, LABEL_SET, "\"=\"");
        }
        self.next()?;
        let value = self.next()?;
        if value.kind != TokenKind::String {
            return self.unexpected_in(value, LABEL_SET, "string");
        }
        labels.set(&name, &literal::unquote(self.text(value)));
        Ok(())
    }

    fn series_values(&mut self) -> Parsed<Vec<SequenceValue>> {
        let mut values = Vec::new();
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::Eof => return Ok(values),
                TokenKind::Space => {}
                _ => return self.unexpected(token),
            }
            match self.peek()?.kind {
                TokenKind::Eof | TokenKind::Space => {}
                _ => self.series_item(&mut values)?,
            }
        }
    }

    /// Reads one item, which may stand for many values.
    fn series_item(&mut self, values: &mut Vec<SequenceValue>) -> Parsed<()> {
        if self.accept(TokenKind::Blank)?.is_some() {
            let count = self.repetitions()?.unwrap_or(1);
            return self.extend(values, count, std::iter::repeat(SequenceValue::Omitted));
        }
        if self.accept(TokenKind::OpenHistogram)?.is_some() {
            return self.histogram_item(values);
        }
        let start = self.series_value()?;
        let step = match sign(self.peek()?) {
            Some(_) => self.signed_number()?,
            None => {
                // `1x3` is four values: that at time 0 counts for itself.
                let count = self.repetitions()?.map_or(1, |count| count.saturating_add(1));
                return self.extend(values, count, std::iter::repeat(SequenceValue::Float(start)));
            }
        };
        let Some(count) = self.repetitions()? else {
            let token = self.next()?;
            return self.unexpected(token);
        };
        let steps = std::iter::successors(Some(start), |value| Some(value + step));
        self.extend(values, count.saturating_add(1), steps.map(SequenceValue::Float))
    }

    fn extend(
        &mut self,
        values: &mut Vec<SequenceValue>,
        count: u64,
        more: impl Iterator<Item = SequenceValue>,
    ) -> Parsed<()> {
        if count > (VALUES_MAX - values.len()) as u64 {
            let pos = self.peek()?.pos();
            return fail(pos, format!("series has more than {VALUES_MAX} values"));
        }
        values.extend(more.take(count as usize));
        Ok(())
    }

    /// Reads a number or `stale`.
    fn series_value(&mut self) -> Parsed<f64> {
        let token = self.peek()?;
        match token.kind {
            TokenKind::Identifier if self.text(token) == "stale" => {
                self.next()?;
                Ok(STALE_NAN)
            }
            TokenKind::Identifier => self.unexpected_in(token, "series values", "number or \"stale\""),
            _ => self.signed_number(),
        }
    }

    /// Reads `x3`, if it is there.
    fn repetitions(&mut self) -> Parsed<Option<u64>> {
        if self.accept(TokenKind::Times)?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.unsigned()?))
    }

    fn unsigned(&mut self) -> Parsed<u64> {
        let token = self.expect(TokenKind::Number)?;
        let text = self.text(token);
        text.parse().or_else(|error: std::num::ParseIntError| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            let text = tidewatch_model::quote(text);
            let message =
                format!("invalid repetition in series values: strconv.ParseUint: parsing {text}: {why}");
            fail(token.pos(), message)
        })
    }

    /// Reads an item that starts with a histogram, behind its `{{`.
    fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Parsed<()> {
        let base = self.histogram()?;
        let token = self.peek()?;
        let TokenKind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) = token.kind else {
            let count = self.repetitions()?.map_or(1, |count| count.saturating_add(1));
            return self.extend(values, count, std::iter::repeat(base.into_value()));
        };
        self.next()?;
        self.expect(TokenKind::OpenHistogram)?;
        let step = self.histogram()?;
        self.expect(TokenKind::Times)?;
        let count = self.peek()?;
        let steps = self.unsigned()?;
        // The hint that counts is the second's, as in Prometheus.
        let hint_given = step.hint_given;
        let mut sequence = Sequence { next: Some(base.histogram), step: step.histogram, op, error: None };
        let histograms = std::iter::from_fn(|| sequence.next())
            .map(|histogram| SequenceValue::Histogram { histogram: Arc::new(histogram), hint_given });
        self.extend(values, steps.saturating_add(1), histograms)?;
        match sequence.error {
            Some(message) if steps > 0 => fail(count.pos(), message),
            _ => Ok(()),
        }
    }

    /// Reads a histogram behind its `{{`, with its `}}`.
    fn histogram(&mut self) -> Parsed<Described> {
        let mut description = Description::default();
        // Blank space may stand behind the braces of an empty histogram only.
        let blank = self.accept(TokenKind::Space)?.is_some();
        if self.accept(TokenKind::CloseHistogram)?.is_some() {
            return Ok(description.build());
        }
        if blank {
            let token = self.next()?;
            return self.unexpected(token);
        }
        self.histogram_property(&mut description)?;
        // A list of properties that has begun reports mistakes itself.
        self.within(Context::HISTOGRAM, |parser| {
            loop {
                let token = parser.next()?;
                match token.kind {
                    TokenKind::CloseHistogram => return Ok(description.build()),
                    TokenKind::Space if parser.accept(TokenKind::CloseHistogram)?.is_some() => {
                        return Ok(description.build());
                    }
                    TokenKind::Space => parser.histogram_property(&mut description)?,
                    _ => return parser.unexpected(token),
                }
            }
        })
    }

    fn histogram_property(&mut self, description: &mut Description) -> Parsed<()> {
        let token = self.next()?;
        let TokenKind::Descriptor(property) = token.kind else { return self.unexpected(token) };
        self.expect(TokenKind::Colon)?;
        if description.seen & 1 << property as u32 != 0 {
            let message = format!("duplicate key \"{}\" in histogram", property.as_str());
            return fail(PosRange::default(), message);
        }
        let histogram = &mut description.histogram;
        match property {
            Descriptor::Schema => histogram.schema = self.integer()?,
            Descriptor::Sum => histogram.sum = self.signed_number()?,
            Descriptor::Count => histogram.count = self.signed_number()?,
            Descriptor::ZeroBucket => histogram.zero_count = self.signed_number()?,
            Descriptor::ZeroBucketWidth => histogram.zero_threshold = self.number()?.value,
            Descriptor::Offset => description.offset = self.integer()?,
            Descriptor::NegativeOffset => description.negative_offset = self.integer()?,
            Descriptor::CustomValues => histogram.custom_values = Some(Arc::from(self.bucket_set()?)),
            Descriptor::Buckets => histogram.positive_buckets = self.bucket_set()?,
            Descriptor::NegativeBuckets => histogram.negative_buckets = self.bucket_set()?,
            Descriptor::CounterResetHint => {
                let token = self.expect(TokenKind::Hint)?;
                histogram.hint = hint(self.text(token));
            }
        }
        description.seen |= 1 << property as u32;
        Ok(())
    }

    fn integer(&mut self) -> Parsed<i32> {
        let minus = sign(self.peek()?).is_some();
        if minus {
            self.next()?;
        }
        let pos = self.peek()?.pos();
        let value = self.unsigned()?;
        let signed = i64::try_from(value).map(|value| if minus { -value } else { value });
        match signed.ok().and_then(|value| i32::try_from(value).ok()) {
            Some(value) => Ok(value),
            None => fail(pos, "number in histogram description is out of range".to_owned()),
        }
    }

    /// Reads `[1 2 3]`.
    fn bucket_set(&mut self) -> Parsed<Vec<f64>> {
        self.expect(TokenKind::LeftBracket)?;
        let mut buckets = Vec::new();
        loop {
            buckets.push(self.signed_number()?);
            let token = self.next()?;
            match token.kind {
                TokenKind::RightBracket => return Ok(buckets),
                TokenKind::Space if self.accept(TokenKind::RightBracket)?.is_some() => return Ok(buckets),
                TokenKind::Space => {}
                _ => return self.unexpected(token),
            }
        }
    }
}

fn hint(word: &str) -> CounterResetHint {
    match word.to_ascii_lowercase().as_str() {
        "reset" => CounterResetHint::Reset,
        "not_reset" => CounterResetHint::NotReset,
        "gauge" => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

/// A histogram that is being described.
#[derive(Default)]
struct Description {
    histogram: FloatHistogram,
    offset: i32,
    negative_offset: i32,
    /// A bit for each property that was given.
    seen: u32,
}

/// A described histogram.
struct Described {
    histogram: FloatHistogram,
    hint_given: bool,
}

impl Description {
    fn build(mut self) -> Described {
        let spans = |offset, buckets: &[f64]| match buckets.len() {
            0 => Vec::new(),
            length => vec![Span { offset, length: length as u32 }],
        };
        let histogram = &mut self.histogram;
        histogram.positive_spans = spans(self.offset, &histogram.positive_buckets);
        histogram.negative_spans = spans(self.negative_offset, &histogram.negative_buckets);
        let hint_given = self.seen & 1 << Descriptor::CounterResetHint as u32 != 0;
        Described { histogram: self.histogram, hint_given }
    }
}

impl Described {
    fn into_value(self) -> SequenceValue {
        SequenceValue::Histogram { histogram: Arc::new(self.histogram), hint_given: self.hint_given }
    }
}

/// `{{…}}+{{…}}x3`: a histogram and what is added to it again and again.
struct Sequence {
    next: Option<FloatHistogram>,
    step: FloatHistogram,
    op: BinaryOp,
    error: Option<String>,
}

impl Sequence {
    fn next(&mut self) -> Option<FloatHistogram> {
        let current = self.next.take()?;
        match combine(&current, &self.step, self.op) {
            Ok(next) => self.next = Some(next),
            Err(message) => self.error = Some(message),
        }
        Some(current)
    }
}

fn combine(current: &FloatHistogram, step: &FloatHistogram, op: BinaryOp) -> Result<FloatHistogram, String> {
    if current.schema > step.schema {
        let (from, to) = (step.schema, current.schema);
        return Err(format!("error combining histograms: cannot merge from schema {from} to {to}"));
    }
    let mut next = current.clone();
    let combined = if op == BinaryOp::Sub { next.sub(step) } else { next.add(step) };
    combined.map(|_| next).map_err(|error| error.to_string())
}
