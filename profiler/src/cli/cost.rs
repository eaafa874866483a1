//! How much a recording may cost a process.

/// The value of `--max-slowdown`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxSlowdown(Option<f64>);

impl MaxSlowdown {
    /// Twice the time: a server has that much to spare, and residue needs that much to record an
    /// allocation-heavy server.
    pub const DEFAULT: Self = Self(Some(2.0));

    /// No limit, whatever the recording costs.
    pub const OFF: Self = Self(None);

    /// How many times slower a process may become, if there is a limit.
    pub const fn limit(self) -> Option<f64> {
        self.0
    }
}

impl std::str::FromStr for MaxSlowdown {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            Ok(0.0) => Ok(Self(None)),
            Ok(limit) if limit > 1.0 && limit.is_finite() => Ok(Self(Some(limit))),
            _ if text == "off" => Ok(Self(None)),
            _ => Err(
                "give how many times slower a process may become, such as 2 or 1.5; off or 0 is no limit",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_above_one_or_off() {
        let limit = |text: &str| text.parse().map(MaxSlowdown::limit);
        assert_eq!(limit("2"), Ok(Some(2.0)));
        assert_eq!(limit("off"), Ok(None));
        assert_eq!(limit("0"), Ok(None));
        for wrong in ["1", "-2", "0.5", "nan", "inf", "much", ""] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }
}
