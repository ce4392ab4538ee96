//! Time intervals: when a route is muted or active.

use std::ops::{Range, RangeInclusive};

use jiff::tz::TimeZone;

use super::super::schema::{Object, Problem, Section, Type, no_check};

/// `mute_time_intervals`, the older name of the list.
pub(super) static MUTE_TIME_INTERVAL: Object = Object {
    name: "config.plain",
    fields: FIELDS,
    inline: &[],
    check: |section, problems| require_name(section, "missing name in mute time interval", problems),
};

pub(super) static TIME_INTERVAL: Object = Object {
    name: "config.plain",
    fields: FIELDS,
    inline: &[],
    check: |section, problems| require_name(section, "missing name in time interval", problems),
};

const FIELDS: &[(&str, Type)] =
    &[("name", Type::Text), ("time_intervals", Type::List(&Type::Object(&SCHEDULE)))];

static SCHEDULE: Object = Object {
    name: "timeinterval.TimeInterval",
    fields: &[
        ("times", Type::List(&Type::Object(&TIME_RANGE))),
        ("weekdays", Type::List(&Type::Checked(|text| weekdays(text).map(drop)))),
        ("days_of_month", Type::List(&Type::Checked(|text| days_of_month(text).map(drop)))),
        ("months", Type::List(&Type::Checked(|text| months(text).map(drop)))),
        ("years", Type::List(&Type::Checked(|text| years(text).map(drop)))),
        ("location", Type::Checked(|text| time_zone(text).map(drop))),
    ],
    inline: &[],
    check: no_check,
};

static TIME_RANGE: Object = Object {
    name: "timeinterval.yamlTimeRange",
    fields: &[("start_time", Type::Text), ("end_time", Type::Text)],
    inline: &[],
    check: |section, problems| {
        if let Err(message) = minutes(section) {
            problems.push(Problem::at(section.node, message));
        }
    },
};

/// Times that fit every field. A field without entries fits any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Minutes of the day.
    pub times: Vec<Range<u16>>,
    /// Sunday is 0.
    pub weekdays: Vec<RangeInclusive<u8>>,
    pub days_of_month: Vec<RangeInclusive<DayOfMonth>>,
    /// January is 1.
    pub months: Vec<RangeInclusive<u8>>,
    pub years: Vec<RangeInclusive<i32>>,
    /// The IANA name of the zone that the fields mean; UTC where absent.
    pub location: Option<String>,
}

/// A day, counted from 1, or from the month's end, whose last day is -1.
pub type DayOfMonth = i8;

/// Reads a checked schedule.
pub(super) fn schedule(section: &Section<'_>) -> Schedule {
    fn read<T>(section: &Section<'_>, name: &str, one: fn(&str) -> Result<T, String>) -> Vec<T> {
        section.strings(name).iter().filter_map(|text| one(text).ok()).collect()
    }
    Schedule {
        times: section.items("times").iter().filter_map(|item| minutes(item).ok()).collect(),
        weekdays: read(section, "weekdays", weekdays),
        days_of_month: read(section, "days_of_month", days_of_month),
        months: read(section, "months", months),
        years: read(section, "years", years),
        location: section.filled("location").then(|| section.string("location")),
    }
}

fn require_name(section: &Section<'_>, message: &str, problems: &mut Vec<Problem>) {
    if !section.filled("name") {
        problems.push(section.problem("name", message));
    }
}

fn minutes(section: &Section<'_>) -> Result<Range<u16>, String> {
    if !section.filled("start_time") || !section.filled("end_time") {
        return Err("both start and end times must be provided".to_owned());
    }
    let start = minute_of_day(&section.string("start_time"))?;
    let end = minute_of_day(&section.string("end_time"))?;
    if start >= end {
        return Err("start time cannot be equal or greater than end time".to_owned());
    }
    Ok(start..end)
}

/// `HH:MM` up to `24:00`.
fn minute_of_day(text: &str) -> Result<u16, String> {
    let invalid = || format!("couldn't parse timestamp {text}, invalid format");
    let two_digits = |part: &str| {
        let fits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| fits)
    };
    let (hour, minute) = text.split_once(':').ok_or_else(invalid)?;
    let (hour, minute) = two_digits(hour).zip(two_digits(minute)).ok_or_else(invalid)?;
    let of_day = hour * 60 + minute;
    if minute < 60 && of_day <= 24 * 60 { Ok(of_day) } else { Err(invalid()) }
}

/// `member` or `member:member`, in lower case.
fn range<T: Copy>(text: &str, member: impl Fn(&str) -> Result<T, String>) -> Result<(T, T), String> {
    let text = text.to_lowercase();
    match text.split_once(':') {
        Some((_, end)) if end.contains(':') => Err(format!("couldn't parse range {text}, invalid format")),
        Some((begin, end)) => Ok((member(begin)?, member(end)?)),
        None => member(&text).map(|only| (only, only)),
    }
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

fn weekdays(text: &str) -> Result<RangeInclusive<u8>, String> {
    let (begin, end) = range(text, |name| {
        let day = WEEKDAYS.iter().position(|day| *day == name);
        day.ok_or_else(|| format!("{name} is not a valid weekday"))
    })?;
    if begin > end {
        // Alertmanager's words; it means that the end stands before the start.
        return Err("start day cannot be before end day".to_owned());
    }
    Ok(begin as u8..=end as u8)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn days_of_month(text: &str) -> Result<RangeInclusive<DayOfMonth>, String> {
    let (begin, end) = range(text, number::<i8>)?;
    for day in [begin, end] {
        if day == 0 || !(-31..=31).contains(&day) {
            return Err(format!("{day} is not a valid day of the month: out of range"));
        }
    }
    // Otherwise a range could be empty in short months alone.
    if begin < 0 && end > 0 {
        return Err("end day must be negative if start day is negative".to_owned());
    }
    // Counted from the end, a day is compared as in the shortest month.
    let in_february = |day: i8| if day < 0 { 28 + day } else { day };
    if in_february(begin) > in_february(end) {
        return Err(format!("end day {end} is always before start day {begin}"));
    }
    Ok(begin..=end)
}

fn months(text: &str) -> Result<RangeInclusive<u8>, String> {
    let (begin, end) = range(text, |name| {
        let named = MONTHS.iter().position(|month| *month == name).map(|index| index as u8 + 1);
        let month = named.or_else(|| name.parse().ok()).filter(|month| (1..=12).contains(month));
        month.ok_or_else(|| format!("{name} is not a valid month"))
    })?;
    if begin > end {
        let name = |month: u8| MONTHS[usize::from(month) - 1];
        return Err(format!("end month {} is before start month {}", name(end), name(begin)));
    }
    Ok(begin..=end)
}

fn years(text: &str) -> Result<RangeInclusive<i32>, String> {
    let (begin, end) = range(text, number::<i32>)?;
    if begin > end {
        return Err(format!("end year {end} is before start year {begin}"));
    }
    Ok(begin..=end)
}

fn time_zone(text: &str) -> Result<TimeZone, String> {
    match text {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        _ => TimeZone::get(text).map_err(|_| format!("unknown time zone {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_names_have_any_case() {
        assert_eq!(weekdays("Monday:friday"), Ok(1..=5));
        assert_eq!(weekdays("sunday"), Ok(0..=0));
        assert_eq!(months("1:MARCH"), Ok(1..=3));
        assert_eq!(days_of_month("-3:-1"), Ok(-3..=-1));
        assert_eq!(years("2020:2022"), Ok(2020..=2022));
        assert_eq!(minute_of_day("24:00"), Ok(1440));
        assert!(time_zone("Australia/Sydney").is_ok());
    }

    #[test]
    fn ranges_that_can_not_be_met_are_refused() {
        for (text, message) in [
            ("friday:monday", "start day cannot be before end day"),
            ("mon", "mon is not a valid weekday"),
            ("a:b:c", "couldn't parse range a:b:c, invalid format"),
        ] {
            assert_eq!(weekdays(text), Err(message.to_owned()));
        }
        for (text, message) in [
            ("0", "0 is not a valid day of the month: out of range"),
            ("32", "32 is not a valid day of the month: out of range"),
            ("-3:4", "end day must be negative if start day is negative"),
            ("10:-20", "end day -20 is always before start day 10"),
        ] {
            assert_eq!(days_of_month(text), Err(message.to_owned()));
        }
        assert_eq!(months("may:1"), Err("end month january is before start month may".to_owned()));
        assert_eq!(months("13"), Err("13 is not a valid month".to_owned()));
        for bad in ["9:00", "24:01", "12:60", "1200", "+1:00"] {
            assert!(minute_of_day(bad).is_err(), "{bad}");
        }
        assert_eq!(time_zone("Mars/Olympus"), Err("unknown time zone Mars/Olympus".to_owned()));
    }
}
