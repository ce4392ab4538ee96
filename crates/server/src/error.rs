//! What the API answers when it can not answer: kind, status and words of an error.

use hyper::StatusCode;
use tidewatch_promql::QueryError;
use tidewatch_storage::SelectError;

/// Prometheus' error types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Internal,
    Unavailable,
    TooLarge,
}

impl ErrorKind {
    /// The `errorType` of the answer.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ErrorKind::BadData | ErrorKind::TooLarge => "bad_data",
            ErrorKind::Execution => "execution",
            ErrorKind::Canceled => "canceled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal",
            ErrorKind::Unavailable => "unavailable",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            ErrorKind::BadData => StatusCode::BAD_REQUEST,
            ErrorKind::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // What nginx introduced and Prometheus 3 answers: the client closed the request.
            ErrorKind::Canceled => StatusCode::from_u16(499).expect("three digits"),
            ErrorKind::Timeout | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into() }
    }

    pub(crate) fn bad_data(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::BadData, message)
    }

    /// `invalid parameter "NAME": CAUSE`
    pub(crate) fn parameter(name: &str, cause: impl std::fmt::Display) -> ApiError {
        ApiError::bad_data(format!("invalid parameter \"{name}\": {cause}"))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> ApiError {
        let kind = match &error {
            QueryError::Invalid(cause) => return ApiError::parameter("query", cause),
            QueryError::Timeout(_) => ErrorKind::Timeout,
            QueryError::Canceled(_) => ErrorKind::Canceled,
            QueryError::Execution(_) | QueryError::TooManySamples(_) | QueryError::OutOfMemory { .. } => {
                ErrorKind::Execution
            }
            QueryError::Overloaded { .. } => ErrorKind::Unavailable,
            QueryError::Storage(cause) => select_kind(cause),
        };
        ApiError::new(kind, error.to_string())
    }
}

impl From<SelectError> for ApiError {
    fn from(error: SelectError) -> ApiError {
        ApiError::new(select_kind(&error), error.to_string())
    }
}

fn select_kind(error: &SelectError) -> ErrorKind {
    match error {
        SelectError::Recovering | SelectError::NoRoom => ErrorKind::Unavailable,
        SelectError::Damaged(_) => ErrorKind::Internal,
    }
}
