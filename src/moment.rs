//! A point in time: as it is printed, and as people say it. Called by everybody; reads the clock and nothing else.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Moment {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    /// As Docker's --since takes it: `2026-11-24[T21:00[:00[.123]]][Z|+01:00]`, seconds since 1970, or how long before `now` (`1h30m`).
    /// Without a zone it is UTC, which is what we print.
    pub fn said(word: &str, now: Moment) -> Result<Moment> {
        let moment = written(word).or_else(|| seconds(word).map(Moment)).or_else(|| Some(Moment(now.0.saturating_sub(span(word)?))));
        moment.ok_or_else(|| Error::usage(format!("bad time '{word}': as 2026-11-24T21:00:00Z, as seconds since 1970, or so long ago, as 1h30m")))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = rfc3339(self.0 / SECOND);
        write!(f, "{}.{:09}Z", text.trim_end_matches('Z'), self.0 % SECOND)
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days
pub fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// What RFC 3339 has, and what Docker lets one leave out at its end.
pub fn written(text: &str) -> Option<Moment> {
    let number = |digits: &str, width| (digits.len() == width && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u64>().ok())?;
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let fits =
        year >= 1970 && usize::try_from(month.checked_sub(1)?).ok().and_then(|m| longest.get(m)).is_some_and(|most| (1..=*most).contains(&day));
    if !fits {
        return None;
    }
    let (time, ahead) = match time.find(['Z', 'z', '+', '-']) {
        None => (time, 0),
        Some(at) => {
            let (time, zone) = time.split_at_checked(at)?;
            let minutes = match zone.split_at_checked(1)? {
                ("Z" | "z", "") => 0,
                (sign, offset) => {
                    let (hours, minutes) = offset.split_once(':')?;
                    let (hours, minutes) = (number(hours, 2).filter(|h| *h < 24)?, number(minutes, 2).filter(|m| *m < 60)?);
                    i64::try_from(hours * 60 + minutes).ok()? * if sign == "-" { -1 } else { 1 }
                }
            };
            (time, minutes * 60)
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.splitn(3, ':');
    let mut field = |most: u64| match clock.next() {
        None | Some("") => Some(0),
        Some(digits) => number(digits, 2).filter(|n| *n <= most),
    };
    let (hour, minute, second) = (field(23)?, field(59)?, field(60)?);
    // days_from_civil, of the same paper
    let (year, shifted) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * shifted + 2) / 5 + day - 1;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = (days * 86400 + hour * 3600 + minute * 60 + second).checked_add_signed(-ahead)?;
    seconds.checked_mul(SECOND)?.checked_add(nanoseconds(fraction)?).map(Moment)
}

/// A decimal fraction of a second; what is beyond nanoseconds is cut off.
fn nanoseconds(fraction: &str) -> Option<u64> {
    let fits = fraction.bytes().all(|b| b.is_ascii_digit()) && fraction.len() <= 30;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    fits.then(|| digits.parse().ok())?
}

/// `1764018000` or `1764018000.5`, in nanoseconds.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.bytes().all(|b| b.is_ascii_digit()).then(|| whole.parse().ok())??;
    whole.checked_mul(SECOND)?.checked_add(nanoseconds(fraction)?)
}

/// How long, in nanoseconds: numbers with units, as `1h30m` or `1.5h`. go: time.ParseDuration
pub fn span(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] =
        [("ns", 1), ("us", 1000), ("µs", 1000), ("ms", 1_000_000), ("s", SECOND), ("m", 60 * SECOND), ("h", 3600 * SECOND)];
    let (mut rest, mut sum) = (text, 0u64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(end)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end)?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.bytes().all(|b| b.is_ascii_digit()).then(|| whole.parse().ok())??;
        let part = u128::from(nanoseconds(fraction)?) * u128::from(*unit) / u128::from(SECOND);
        sum = sum.checked_add(whole.checked_mul(*unit)?)?.checked_add(u64::try_from(part).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(written(text), Some(Moment(seconds * SECOND)), "{text}");
        }
        let moment = Moment(1_709_210_096_000_000_789);
        assert_eq!(moment.to_string(), "2024-02-29T12:34:56.000000789Z");
        assert_eq!(written(&moment.to_string()), Some(moment));
    }

    #[test]
    fn said() {
        let now = Moment(1_709_210_096 * SECOND);
        for (word, ago) in [
            ("2024-02-29T12:34:56Z", 0),
            ("2024-02-29T13:34:56+01:00", 0),
            ("2024-02-29T07:04:56-05:30", 0),
            ("2024-02-29T12:34:55.5", 500_000_000),
            ("2024-02-29 12:34", 56 * SECOND),
            ("2024-02-29", 45_296 * SECOND),
            ("1709210095", SECOND),
            ("1709210095.25", 750_000_000),
            ("10m", 600 * SECOND),
            ("1h30m", 5400 * SECOND),
            ("1.5h", 5400 * SECOND),
            ("100ms", 100_000_000),
            ("0s", 0),
        ] {
            assert_eq!(Moment::said(word, now).ok(), Some(Moment(now.0 - ago)), "{word}");
        }
        for word in ["", "x", "10x", "m", "1h-5m", "2023-02-29", "2024-13-01", "2024-1-1", "2024-02-29T25:00", "2024-02-29T12:34:56+1", "1e9", "-5s"]
        {
            assert!(Moment::said(word, now).is_err(), "{word}");
        }
    }
}
