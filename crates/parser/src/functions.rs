//! The functions of PromQL: names, parameters, results.

use crate::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// A function's signature.
#[derive(Debug)]
pub struct Function {
    pub id: FunctionId,
    pub name: &'static str,
    /// Types of the parameters; where `variadic` is not zero the last may repeat or be absent.
    pub parameters: &'static [ValueType],
    /// 0: as many arguments as parameters. n > 0: the last parameter may be absent, and up to
    /// n − 1 arguments may follow the parameters. Below 0: the last may be absent or repeat
    /// without bound.
    pub variadic: i32,
    pub returns: ValueType,
    /// Refused unless [`crate::ParserOptions::experimental_functions`] is set.
    pub experimental: bool,
}

impl Function {
    /// Finds a function by the name that a query calls it.
    pub fn by_name(name: &str) -> Option<&'static Function> {
        FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().map(|i| &FUNCTIONS[i])
    }
}

/// A function belongs to the static table: its identity is its name.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

macro_rules! functions {
    ($($(#[$flag:ident])? $id:ident $name:literal ($($parameter:ident),*) $([$variadic:literal])? -> $returns:ident;)*) => {
        /// Names every function, so that an evaluator can match exhaustively.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FunctionId { $($id,)* }

        /// Every function, sorted by name.
        pub static FUNCTIONS: &[Function] = &[$(Function {
            id: FunctionId::$id,
            name: $name,
            parameters: &[$($parameter),*],
            variadic: 0 $(+ $variadic)?,
            returns: $returns,
            experimental: false $(|| functions!(@$flag))?,
        },)*];
    };
    (@experimental) => { true };
}

functions! {
    Abs "abs" (Vector) -> Vector;
    Absent "absent" (Vector) -> Vector;
    AbsentOverTime "absent_over_time" (Matrix) -> Vector;
    Acos "acos" (Vector) -> Vector;
    Acosh "acosh" (Vector) -> Vector;
    Asin "asin" (Vector) -> Vector;
    Asinh "asinh" (Vector) -> Vector;
    Atan "atan" (Vector) -> Vector;
    Atanh "atanh" (Vector) -> Vector;
    AvgOverTime "avg_over_time" (Matrix) -> Vector;
    Ceil "ceil" (Vector) -> Vector;
    Changes "changes" (Matrix) -> Vector;
    Clamp "clamp" (Vector, Scalar, Scalar) -> Vector;
    ClampMax "clamp_max" (Vector, Scalar) -> Vector;
    ClampMin "clamp_min" (Vector, Scalar) -> Vector;
    Cos "cos" (Vector) -> Vector;
    Cosh "cosh" (Vector) -> Vector;
    CountOverTime "count_over_time" (Matrix) -> Vector;
    DayOfMonth "day_of_month" (Vector) [1] -> Vector;
    DayOfWeek "day_of_week" (Vector) [1] -> Vector;
    DayOfYear "day_of_year" (Vector) [1] -> Vector;
    DaysInMonth "days_in_month" (Vector) [1] -> Vector;
    Deg "deg" (Vector) -> Vector;
    Delta "delta" (Matrix) -> Vector;
    Deriv "deriv" (Matrix) -> Vector;
    #[experimental] DoubleExponentialSmoothing "double_exponential_smoothing" (Matrix, Scalar, Scalar) -> Vector;
    #[experimental] End "end" () -> Scalar;
    Exp "exp" (Vector) -> Vector;
    FirstOverTime "first_over_time" (Matrix) -> Vector;
    Floor "floor" (Vector) -> Vector;
    HistogramAvg "histogram_avg" (Vector) -> Vector;
    HistogramCount "histogram_count" (Vector) -> Vector;
    HistogramFraction "histogram_fraction" (Scalar, Scalar, Vector) -> Vector;
    HistogramQuantile "histogram_quantile" (Scalar, Vector) -> Vector;
    #[experimental] HistogramQuantiles "histogram_quantiles" (Vector, String, Scalar, Scalar) [9] -> Vector;
    HistogramStddev "histogram_stddev" (Vector) -> Vector;
    HistogramStdvar "histogram_stdvar" (Vector) -> Vector;
    HistogramSum "histogram_sum" (Vector) -> Vector;
    Hour "hour" (Vector) [1] -> Vector;
    Idelta "idelta" (Matrix) -> Vector;
    Increase "increase" (Matrix) -> Vector;
    #[experimental] Info "info" (Vector, Vector) [1] -> Vector;
    Irate "irate" (Matrix) -> Vector;
    LabelJoin "label_join" (Vector, String, String, String) [-1] -> Vector;
    LabelReplace "label_replace" (Vector, String, String, String, String) -> Vector;
    LastOverTime "last_over_time" (Matrix) -> Vector;
    Ln "ln" (Vector) -> Vector;
    Log10 "log10" (Vector) -> Vector;
    Log2 "log2" (Vector) -> Vector;
    #[experimental] MadOverTime "mad_over_time" (Matrix) -> Vector;
    #[experimental] MaxOf "max_of" (Scalar, Scalar) -> Scalar;
    MaxOverTime "max_over_time" (Matrix) -> Vector;
    #[experimental] MinOf "min_of" (Scalar, Scalar) -> Scalar;
    MinOverTime "min_over_time" (Matrix) -> Vector;
    Minute "minute" (Vector) [1] -> Vector;
    Month "month" (Vector) [1] -> Vector;
    Pi "pi" () -> Scalar;
    PredictLinear "predict_linear" (Matrix, Scalar) -> Vector;
    PresentOverTime "present_over_time" (Matrix) -> Vector;
    QuantileOverTime "quantile_over_time" (Scalar, Matrix) -> Vector;
    Rad "rad" (Vector) -> Vector;
    #[experimental] Range "range" () -> Scalar;
    Rate "rate" (Matrix) -> Vector;
    Resets "resets" (Matrix) -> Vector;
    Round "round" (Vector, Scalar) [1] -> Vector;
    ScalarOf "scalar" (Vector) -> Scalar;
    Sgn "sgn" (Vector) -> Vector;
    Sin "sin" (Vector) -> Vector;
    Sinh "sinh" (Vector) -> Vector;
    Sort "sort" (Vector) -> Vector;
    #[experimental] SortByLabel "sort_by_label" (Vector, String) [-1] -> Vector;
    #[experimental] SortByLabelDesc "sort_by_label_desc" (Vector, String) [-1] -> Vector;
    SortDesc "sort_desc" (Vector) -> Vector;
    Sqrt "sqrt" (Vector) -> Vector;
    #[experimental] Start "start" () -> Scalar;
    #[experimental] StartTimestamp "start_timestamp" (Vector) -> Vector;
    StddevOverTime "stddev_over_time" (Matrix) -> Vector;
    StdvarOverTime "stdvar_over_time" (Matrix) -> Vector;
    #[experimental] Step "step" () -> Scalar;
    SumOverTime "sum_over_time" (Matrix) -> Vector;
    Tan "tan" (Vector) -> Vector;
    Tanh "tanh" (Vector) -> Vector;
    Time "time" () -> Scalar;
    Timestamp "timestamp" (Vector) -> Vector;
    #[experimental] TsOfFirstOverTime "ts_of_first_over_time" (Matrix) -> Vector;
    #[experimental] TsOfLastOverTime "ts_of_last_over_time" (Matrix) -> Vector;
    #[experimental] TsOfMaxOverTime "ts_of_max_over_time" (Matrix) -> Vector;
    #[experimental] TsOfMinOverTime "ts_of_min_over_time" (Matrix) -> Vector;
    VectorOf "vector" (Scalar) -> Vector;
    Year "year" (Vector) [1] -> Vector;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_function_is_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in FUNCTIONS {
            assert_eq!(Function::by_name(function.name), Some(function));
        }
        assert_eq!(Function::by_name("holt_winters"), None);
    }
}
