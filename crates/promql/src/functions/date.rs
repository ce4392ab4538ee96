//! Parts of dates, in UTC.

use tidewatch_model::Labels;
use tidewatch_parser::FunctionId;

use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::grid::Grid;

pub(super) fn is_date(id: FunctionId) -> bool {
    use FunctionId as F;
    matches!(
        id,
        F::DaysInMonth
            | F::DayOfMonth
            | F::DayOfWeek
            | F::DayOfYear
            | F::Hour
            | F::Minute
            | F::Month
            | F::Year
    )
}

/// Without an argument: of the time of evaluation.
pub(super) fn of_steps(evaluator: &Evaluator<'_>, id: FunctionId, grid: Grid) -> Result<Frame, QueryError> {
    let value = |step: usize| Some(part(id, grid.time(step).div_euclid(1000)));
    super::single_row(evaluator, Name::keep(Labels::empty()), grid.count, value)
}

/// Whole seconds of a sample. NaN and what no `i64` holds are the smallest, as for Go on amd64.
pub(super) fn seconds(value: f64) -> i64 {
    let fits = value >= i64::MIN as f64 && value < i64::MAX as f64;
    if fits { value as i64 } else { i64::MIN }
}

/// Seconds from the start of the year -292277022399, the first that Go's calendar knows, to the
/// epoch. What lies before comes again after the last that 64 bits count.
const GO_FIRST_SECOND: i64 = -9_223_372_028_715_321_600;

/// A part of the date that lies `seconds` after the epoch.
pub(super) fn part(id: FunctionId, seconds: i64) -> f64 {
    let turn = if seconds < GO_FIRST_SECOND { 1i128 << 64 } else { 0 };
    let seconds = i128::from(seconds) + turn;
    let days = seconds.div_euclid(86_400) as i64;
    let second = seconds.rem_euclid(86_400) as i64;
    let value = match id {
        FunctionId::Hour => second / 3600,
        FunctionId::Minute => second / 60 % 60,
        // The epoch was a Thursday.
        FunctionId::DayOfWeek => (days + 4).rem_euclid(7),
        _ => {
            let (year, month, day) = civil_from_days(days);
            match id {
                FunctionId::DayOfMonth => day,
                FunctionId::Month => month,
                FunctionId::Year => year,
                FunctionId::DaysInMonth => days_in_month(year, month),
                _ => days - days_from_civil(year, 1, 1) + 1,
            }
        }
    };
    value as f64
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days in the 400 years after which the calendar repeats.
const CYCLE_DAYS: i64 = 146_097;

/// Year, month and day of the Gregorian calendar for a day since the epoch. Years begin in March
/// here, so that the leap day is the last of a year.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted.div_euclid(CYCLE_DAYS), shifted.rem_euclid(CYCLE_DAYS));
    let year_of_cycle = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_cycle + cycle * 400 + i64::from(month <= 2), month, day_of_month)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    cycle * CYCLE_DAYS + year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates_and_back() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (20_000, (2024, 10, 4)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_from_days(days), date);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
        }
    }

    #[test]
    fn parts_are_those_of_the_calendar() {
        // 2024-02-29T13:45:10Z, a Thursday.
        let at = 1_709_214_310;
        for (id, value) in [
            (FunctionId::Year, 2024.0),
            (FunctionId::Month, 2.0),
            (FunctionId::DayOfMonth, 29.0),
            (FunctionId::DayOfWeek, 4.0),
            (FunctionId::DayOfYear, 60.0),
            (FunctionId::DaysInMonth, 29.0),
            (FunctionId::Hour, 13.0),
            (FunctionId::Minute, 45.0),
        ] {
            assert_eq!(part(id, at), value, "{id:?}");
        }
    }

    #[test]
    fn what_is_no_time_gives_what_go_makes_of_it() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -9.3e18, 1e300] {
            for (id, expected) in [
                (FunctionId::Year, 292_277_026_596.0),
                (FunctionId::Month, 12.0),
                (FunctionId::DayOfMonth, 4.0),
                (FunctionId::Hour, 15.0),
                (FunctionId::Minute, 30.0),
            ] {
                assert_eq!(part(id, seconds(value)), expected, "{id:?} of {value}");
            }
        }
    }
}
