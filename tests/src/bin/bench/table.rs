//! The printed table: at most 100 columns, one section a benchmark.

use std::fmt;

use crate::sample::Sample;

/// Marks a row whose bound was not kept.
pub const MISSED: &str = "MISSED";

/// What one benchmark found.
pub struct Section {
    pub title: String,
    pub rows: Vec<Row>,
}

/// One figure, and what it is compared with.
pub struct Row {
    what: String,
    figure: String,
    spread: String,
    compared: String,
    bound: Option<Bound>,
}

/// A promise about a row.
pub struct Bound {
    text: String,
    kept: bool,
}

impl Section {
    pub fn all_kept(&self) -> bool {
        let bounds = self.rows.iter().filter_map(|row| row.bound.as_ref());
        bounds.into_iter().all(|bound| bound.kept)
    }
}

impl Row {
    /// The median of `sample`, and its extremes.
    pub fn of(what: impl Into<String>, sample: &Sample, unit: &str) -> Self {
        let spread = format!("{}..{}", number(sample.min()), number(sample.max()));
        Self {
            spread,
            ..Self::single(what, sample.median(), unit)
        }
    }

    /// A figure that does not vary.
    pub fn single(what: impl Into<String>, figure: f64, unit: &str) -> Self {
        Self {
            what: what.into(),
            figure: format!("{} {unit}", number(figure)),
            spread: String::new(),
            compared: String::new(),
            bound: None,
        }
    }

    /// Shows how many times the `base` it is.
    pub fn compared(self, ratio: &Sample, base: &str) -> Self {
        let median = number(ratio.median());
        let (min, max) = (number(ratio.min()), number(ratio.max()));
        Self {
            compared: format!("{median} x {base} ({min}..{max})"),
            ..self
        }
    }

    pub fn bound(self, bound: Bound) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }
}

impl Bound {
    pub fn at_most(limit: f64, value: f64) -> Self {
        Self {
            text: format!("<= {limit}"),
            kept: value <= limit,
        }
    }

    pub fn at_least(limit: f64, value: f64) -> Self {
        Self {
            text: format!(">= {limit}"),
            kept: value >= limit,
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.title)?;
        self.rows.iter().try_for_each(|row| write!(out, "{row}"))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            figure,
            spread,
            compared,
            bound,
        } = self;
        let line = format!("  {what:<28}{figure:>11}{spread:>16}  {compared:<28}");
        let verdict = bound.as_ref().map_or(String::new(), Bound::to_string);
        writeln!(out, "{}", format!("{line}{verdict}").trim_end())
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.kept { "ok" } else { MISSED };
        write!(out, "{} {verdict}", self.text)
    }
}

/// As many digits as mean something, thousands set apart: `0.37`, `61.4`, `17,220`.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(limit: f64) -> Row {
        let sample = Sample::of(vec![17_220.4, 17_000.0, 18_999.0]);
        let ratio = Sample::of(vec![10.0, 10.5, 11.0]);
        Row::of("offset 0", &sample, "ns")
            .compared(&ratio, "residue")
            .bound(Bound::at_least(limit, ratio.median()))
    }

    #[test]
    fn a_row_shows_median_extremes_ratio_and_bound_within_100_columns() {
        let line = row(8.0).to_string();
        for part in [
            "17,220 ns",
            "17,000..18,999",
            "10.5 x residue (10.0..11.0)",
            ">= 8 ok",
        ] {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
        assert!(line.len() <= 100, "{} columns", line.len());
    }

    #[test]
    fn a_missed_bound_is_marked_and_fails_its_section() {
        let section = Section {
            title: "costs".to_owned(),
            rows: vec![row(8.0), row(12.0)],
        };
        assert!(section.to_string().contains(">= 12 MISSED"));
        assert!(!section.all_kept());
    }
}
