//! Tokens, and the words that error messages use for them.

use tidewatch_model::quote;

use crate::ast::{AggregateOp, BinaryOp, PosRange};

/// A token: its kind and the bytes of the input that it covers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub(crate) fn pos(&self) -> PosRange {
        PosRange::new(self.start, self.end)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Eof,
    Comment,
    Identifier,
    /// An identifier with a colon.
    MetricIdentifier,
    String,
    Number,
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `=~`
    RegexMatch,
    /// `!~`
    RegexMismatch,
    /// `@`
    At,
    Operator(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    /// Of series descriptions: `_`, `x`, blank space, `{{`, `}}` and what stands between these.
    Blank,
    Times,
    Space,
    OpenHistogram,
    CloseHistogram,
    Descriptor(Descriptor),
    Hint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    Smoothed,
    Anchored,
    On,
    Without,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

impl Keyword {
    /// Those that are functions of the query's own range, and print as text in messages.
    fn is_preprocessor(self) -> bool {
        use Keyword::{End, MaxOf, MinOf, Range, Start, Step};
        matches!(self, Start | End | Step | Range | MaxOf | MinOf)
    }
}

/// The properties of a histogram description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptor {
    Sum,
    Count,
    Schema,
    Offset,
    NegativeOffset,
    Buckets,
    NegativeBuckets,
    ZeroBucket,
    ZeroBucketWidth,
    CustomValues,
    CounterResetHint,
}

const DESCRIPTORS: [(&str, Descriptor); 11] = [
    ("sum", Descriptor::Sum),
    ("count", Descriptor::Count),
    ("schema", Descriptor::Schema),
    ("offset", Descriptor::Offset),
    ("n_offset", Descriptor::NegativeOffset),
    ("buckets", Descriptor::Buckets),
    ("n_buckets", Descriptor::NegativeBuckets),
    ("z_bucket", Descriptor::ZeroBucket),
    ("z_bucket_w", Descriptor::ZeroBucketWidth),
    ("custom_values", Descriptor::CustomValues),
    ("counter_reset_hint", Descriptor::CounterResetHint),
];

impl Descriptor {
    pub(crate) fn from_word(word: &str) -> Option<Descriptor> {
        DESCRIPTORS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, d)| *d)
    }

    pub(crate) fn as_str(self) -> &'static str {
        DESCRIPTORS[self as usize].0
    }
}

/// Words of the language, whatever their case.
const WORDS: [(&str, TokenKind); 39] = {
    use AggregateOp as A;
    use BinaryOp as B;
    use Keyword as K;
    use TokenKind::{Aggregate, Keyword as Word, Number, Operator};
    [
        ("and", Operator(B::And)),
        ("or", Operator(B::Or)),
        ("unless", Operator(B::Unless)),
        ("atan2", Operator(B::Atan2)),
        ("sum", Aggregate(A::Sum)),
        ("avg", Aggregate(A::Avg)),
        ("count", Aggregate(A::Count)),
        ("min", Aggregate(A::Min)),
        ("max", Aggregate(A::Max)),
        ("group", Aggregate(A::Group)),
        ("stddev", Aggregate(A::Stddev)),
        ("stdvar", Aggregate(A::Stdvar)),
        ("topk", Aggregate(A::Topk)),
        ("bottomk", Aggregate(A::Bottomk)),
        ("count_values", Aggregate(A::CountValues)),
        ("quantile", Aggregate(A::Quantile)),
        ("limitk", Aggregate(A::Limitk)),
        ("limit_ratio", Aggregate(A::LimitRatio)),
        ("offset", Word(K::Offset)),
        ("smoothed", Word(K::Smoothed)),
        ("anchored", Word(K::Anchored)),
        ("by", Word(K::By)),
        ("without", Word(K::Without)),
        ("on", Word(K::On)),
        ("ignoring", Word(K::Ignoring)),
        ("group_left", Word(K::GroupLeft)),
        ("group_right", Word(K::GroupRight)),
        ("fill", Word(K::Fill)),
        ("fill_left", Word(K::FillLeft)),
        ("fill_right", Word(K::FillRight)),
        ("bool", Word(K::Bool)),
        ("start", Word(K::Start)),
        ("end", Word(K::End)),
        ("step", Word(K::Step)),
        ("range", Word(K::Range)),
        ("max_of", Word(K::MaxOf)),
        ("min_of", Word(K::MinOf)),
        ("inf", Number),
        ("nan", Number),
    ]
};

/// The token that `word` is by itself, if it is a word of the language.
pub(crate) fn keyword(word: &str) -> Option<TokenKind> {
    WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

impl TokenKind {
    /// Whether the token may name a metric where an expression starts.
    pub(crate) fn is_metric_name(self) -> bool {
        use Keyword::{Bool, GroupLeft, GroupRight, Ignoring, On};
        match self {
            TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
            TokenKind::Operator(op) => op.is_set(),
            TokenKind::Keyword(word) => !matches!(word, Bool | On | Ignoring | GroupLeft | GroupRight),
            _ => false,
        }
    }

    /// Whether the token may name a label in a list of labels.
    pub(crate) fn is_label_name(self) -> bool {
        match self {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregate(_)
            | TokenKind::Operator(BinaryOp::Atan2) => true,
            TokenKind::Keyword(Keyword::Without) => false,
            TokenKind::Operator(op) => op.is_set(),
            TokenKind::Keyword(_) => true,
            _ => false,
        }
    }

    /// How a message names a token of this kind whose text is `text`.
    pub(crate) fn describe(self, text: &str) -> String {
        match self {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Comment => format!("comment {}", shortened(text)),
            TokenKind::Identifier => format!("identifier {}", quote(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            TokenKind::String => format!("string {}", shortened(text)),
            TokenKind::Number => format!("number {}", shortened(text)),
            TokenKind::Duration => format!("duration {}", shortened(text)),
            TokenKind::Operator(_) | TokenKind::RegexMatch | TokenKind::RegexMismatch | TokenKind::At => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(word) if !word.is_preprocessor() => format!("<{text}>"),
            // Prometheus knows no name for these and prints the number of the kind.
            TokenKind::Descriptor(descriptor) => {
                format!("\"<Item {}>\" {}", FIRST_DESCRIPTOR + descriptor as u32, shortened(text))
            }
            TokenKind::Hint => format!("\"<Item {FIRST_HINT}>\" {}", shortened(text)),
            _ => shortened(text),
        }
    }
}

/// The numbers of `SUM_DESC` and of `UNKNOWN_COUNTER_RESET` in Prometheus' generated parser.
const FIRST_DESCRIPTOR: u32 = 57370;
const FIRST_HINT: u32 = 57383;

/// Quotes a text, at most ten characters of it.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quote(text);
    }
    let end = text.char_indices().nth(10).map_or(text.len(), |(i, _)| i);
    format!("{}...", quote(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_stand_in_the_order_of_their_enum() {
        for (i, (name, descriptor)) in DESCRIPTORS.iter().enumerate() {
            assert_eq!(*descriptor as usize, i);
            assert_eq!(descriptor.as_str(), *name);
        }
    }
}
